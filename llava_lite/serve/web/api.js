// The OpenAI-compatible API beside the page: one request, and the events of a streamed answer.

const TITLES = {
  broken_off: "The answer broke off.",
  context_length_exceeded: "Too long for this model.",
  internal_error: "Something broke in the server.",
  invalid_api_key: "The API key is missing or wrong.",
  invalid_image: "An image cannot be read.",
  rate_limit_exceeded: "The model is busy.",
  request_too_large: "Too large for this server.",
  timeout: "It took too long.",
  too_many_images: "Too many images.",
  unavailable: "The server is not ready.",
  unreachable: "The server cannot be reached.",
};

// What people are told: a title in plain words, by the code that the server gives, and what it says itself.
export class Problem extends Error {
  constructor(code, detail) {
    super(detail.replace(/^./, (letter) => letter.toUpperCase()).replace(/[^.?!]$/, "$&."));
    this.code = code;
    this.title = TITLES[code] ?? "This cannot be answered.";
  }
}

export async function send(path, key, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch((error) => {
    throw error.name === "AbortError" ? error : new Problem("unreachable", "Is it still running?");
  });
  if (response.ok) return response;
  const unknown = { error: { code: "unknown", message: `It answered with ${response.status}` } };
  const { error } = await response.json().catch(() => unknown); // from a proxy between, it is not JSON
  throw new Problem(error.code, error.message);
}

export async function* events(stream) {
  let rest = "";
  for await (const piece of pieces(stream.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.trim() === "data: [DONE]") return;
      if (!line.startsWith("data: ")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Problem(event.error.code, event.error.message);
      yield event;
    }
  }
  throw new Problem("broken_off", "The connection to the server was lost");
}

async function* pieces(stream) { // not every browser's streams can be iterated over
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}
