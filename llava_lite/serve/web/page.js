// The life of the page at /: a conversation of exchanges, asked of the OpenAI-compatible API beside it.
// What people or models wrote reaches the document as text, never as HTML; images leave it as their files' own bytes.

import { events, Problem, send } from "./api.js";
import { markdown, node } from "./markdown.js";

const $ = (selector, inside = document) => inside.querySelector(selector);
const limits = { bytes: Number(document.body.dataset.maxBodyBytes), images: Number(document.body.dataset.maxImages) };
const kept = storage("localStorage"), held = storage("sessionStorage"); // the settings; the API key
const main = $("main"), text = $("#text"), settings = $("#settings form");

let exchanges = []; // {text, images: [{name, url, width, height}], answer, note, error, element}
let pending = []; // images of the question being written
let editing = null; // the exchange that the next question replaces
let running = null; // the AbortController of the answer under way
let model = null; // its name, once the server has told it
let following = true; // whether the end of the conversation is kept in sight

// --- Asking ---------------------------------------------------------------------------------------------------------

function content({ text, images }) {
  const parts = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return parts.length ? [...parts, ...(text ? [{ type: "text", text }] : [])] : text;
}

function messages(asked) {
  const { system } = read();
  const turns = asked.flatMap((one) => [
    { role: "user", content: content(one) },
    { role: "assistant", content: one.answer },
  ]);
  return system ? [{ role: "system", content: system }, ...turns] : turns;
}

function sampling() {
  const { temperature, top_p, max_tokens, seed } = read();
  const drawn = { temperature: Number(temperature), top_p: Number(top_p), max_tokens: Number(max_tokens) };
  return seed ? { ...drawn, seed: Number(seed) } : drawn;
}

const answered = () => exchanges.filter((one) => !one.error);

async function answer(exchange) {
  Object.assign(exchange, { answer: "", note: "", error: null });
  const own = (running = new AbortController());
  announce("The model is answering.");
  draw(exchange);
  try {
    const began = performance.now();
    for await (const chunk of events(await completion(own.signal))) take(chunk, exchange, began);
  } catch (error) {
    if (own.signal.aborted) exchange.note = "Stopped.";
    else exchange.error = error instanceof Problem ? error : new Problem("broken_off", error.message);
    if (exchange.error) connect(); // it tells the state, and asks for a key where one is missing
  }
  if (running !== own) return; // a new chat has begun
  running = null;
  draw(exchange);
  const { error, note } = exchange;
  announce(error ? `${error.title} ${error.message}` : `${exchange.answer} ${note}`);
  if (document.activeElement === document.body) focusText(); // where the button was that is gone
}

async function completion(signal) {
  model ??= await modelName();
  const turns = messages(answered()).slice(0, -1); // without the answer that is to come
  const body = JSON.stringify({
    model, ...sampling(), stream: true, stream_options: { include_usage: true }, messages: turns,
  });
  const size = new Blob([body]).size;
  if (size > limits.bytes) {
    const detail = `The conversation has ${mega(size)}; the server takes ${mega(limits.bytes)}. Begin a new chat.`;
    throw new Problem("request_too_large", detail);
  }
  const headers = { "Content-Type": "application/json" };
  return (await send("v1/chat/completions", held.llavaLiteKey, { method: "POST", headers, body, signal })).body;
}

function take(chunk, exchange, began) {
  const [choice] = chunk.choices;
  if (choice?.delta.content) {
    exchange.answer += choice.delta.content;
    drawSoon(exchange);
  }
  const notes = [
    chunk.dropped_turns && `The first ${chunk.dropped_turns} turns did not fit the model's context. `,
    choice?.finish_reason === "length" && "Cut off at the longest answer. ",
    chunk.usage && `${chunk.usage.completion_tokens} tokens in ${duration(performance.now() - began)}`,
  ];
  exchange.note += notes.filter(Boolean).join("");
}

const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const mega = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function ask(question) {
  if (running) return;
  if (editing) remove(editing);
  if (exchanges.at(-1)?.error) exchanges.at(-1).element.classList.add("left-out");
  const exchange = { ...question, element: clone("#exchange") };
  exchanges.push(exchange);
  $("#exchanges").append(exchange.element);
  fill(exchange);
  compose("", []);
  following = true;
  answer(exchange);
}

function remove(exchange) {
  exchange.element.remove();
  exchanges = exchanges.filter((one) => one !== exchange);
}

// --- Showing --------------------------------------------------------------------------------------------------------

function fill(exchange) {
  const { element } = exchange;
  $(".question .text", element).textContent = exchange.text;
  $(".images", element).append(...exchange.images.map(picture));
  $(".copy", element).onclick = (event) => copy(exchange.answer, event.target);
  $(".again", element).onclick = () => running || answer(exchange);
  $(".edit", element).onclick = () => running || compose(exchange.text, exchange.images, exchange);
}

function draw(exchange) {
  const { element, error } = exchange;
  element.classList.toggle("answering", running !== null && exchange === exchanges.at(-1));
  element.classList.remove("left-out");
  $(".answer .text", element).replaceChildren(...markdown(exchange.answer));
  $(".error", element).hidden = !error;
  $(".error strong", element).textContent = error?.title ?? "";
  $(".error span", element).textContent = error?.message ?? "";
  $(".again", element).textContent = error ? "Try again" : "Regenerate";
  $(".copy", element).hidden = !exchange.answer;
  $(".note", element).textContent = exchange.note;
  drawControls();
  follow();
}

function follow() {
  if (following) main.scrollTop = main.scrollHeight;
}

function drawControls() {
  $("#stop").hidden = !running;
  $("#send").hidden = running !== null;
  $("#welcome").hidden = exchanges.length > 0;
  $("#download").disabled = running !== null || !answered().length;
}

let drawing = null;

function drawSoon(exchange) { // once a frame, however many pieces come
  drawing ??= requestAnimationFrame(() => {
    drawing = null;
    if (exchanges.includes(exchange)) draw(exchange);
  });
}

function picture({ name, url, width, height }) {
  return Object.assign(new Image(width, height), { src: url, alt: name });
}

function announce(words) { // read aloud: once when it is whole, not at every piece
  $("#announcement").textContent = words;
}

async function copy(words, button) {
  if (navigator.clipboard) await navigator.clipboard.writeText(words);
  else { // plain http from another machine
    const field = node("textarea", words);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// --- The question being written -------------------------------------------------------------------------------------

function compose(words, images, replaced = null) {
  editing?.element.classList.remove("in-edit");
  editing = replaced;
  editing?.element.classList.add("in-edit");
  $("#editing").hidden = !editing;
  text.value = words;
  pending = [...images];
  notice("");
  grow();
  showPending();
  if (replaced) text.focus();
  else focusText();
}

function focusText() { // not on a phone, whose keyboard would cover the answer
  if (matchMedia("(hover: hover)").matches) text.focus();
}

function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function showPending() {
  $("#images").replaceChildren(...pending.map((image) => {
    const item = clone("#thumbnail");
    const button = $("button", item);
    button.ariaLabel = button.title = `Remove ${image.name}`;
    button.onclick = () => {
      pending = pending.filter((one) => one !== image);
      showPending();
      text.focus();
    };
    item.prepend(picture(image));
    return item;
  }));
}

function notice(words) {
  $("#notice").textContent = words;
  $("#notice").hidden = !words;
}

let adding = Promise.resolve(); // one after the other, and before the question is sent

function add(files) {
  adding = adding.then(() => addEach(files));
  return adding;
}

async function addEach(files) {
  notice("");
  for (const file of files) {
    const before = [...answered().filter((one) => one !== editing).flatMap(({ images }) => images), ...pending];
    const size = before.reduce((sum, { url }) => sum + url.length, (file.size * 4) / 3);
    if (!file.type.startsWith("image/")) notice(`${file.name} is not an image.`);
    else if (before.length >= limits.images) notice(`A conversation has at most ${limits.images} images here.`);
    else if (size > limits.bytes) notice(`${file.name} is too large: ${mega(size)} to send, of ${mega(limits.bytes)}.`);
    else await open(file).then(
      (image) => pending.push(image),
      () => notice(`${file.name} cannot be opened; save it as PNG or JPEG.`),
    );
  }
  showPending();
  focusText();
}

async function open(file, name = file.name) { // its bytes as they are: what is seen here is what the model gets
  const url = await new Promise((resolve, reject) => {
    const reader = Object.assign(new FileReader(), { onload: () => resolve(reader.result), onerror: reject });
    reader.readAsDataURL(file);
  });
  const image = Object.assign(new Image(), { src: url });
  await image.decode();
  return { name, url, width: image.naturalWidth, height: image.naturalHeight };
}

// --- Connection, settings, examples ---------------------------------------------------------------------------------

function storage(kind) { // a browser may forbid it: then nothing outlives the page
  try {
    return window[kind] ?? {};
  } catch {
    return {};
  }
}

function clone(template) {
  return $(template).content.firstElementChild.cloneNode(true);
}

async function modelName() {
  return (await (await send("v1/models", held.llavaLiteKey)).json()).data[0].id;
}

async function connect() {
  let [state, words] = ["offline", "not connected"];
  try {
    model = await modelName();
    [state, words] = ["ready", model];
  } catch (error) {
    if (error.code === "invalid_api_key") [state, words] = ["locked", "needs an API key"];
  }
  $("#key").hidden = state !== "locked";
  $("#state").dataset.is = state;
  $("#state").title = words; // where a narrow window cuts it
  if ($("#state span").textContent !== words) $("#state span").textContent = words; // else it is read aloud again
}

function read() {
  return Object.fromEntries(new FormData(settings));
}

function keepSettings() {
  kept.llavaLiteSettings = JSON.stringify(read());
  for (const output of settings.querySelectorAll("output")) output.value = settings.elements[output.htmlFor].value;
}

function recallSettings() {
  const values = JSON.parse(kept.llavaLiteSettings ?? "{}");
  for (const [name, value] of Object.entries(values)) {
    if (settings.elements[name]) settings.elements[name].value = value; // a range takes no more than it has
  }
  keepSettings();
}

async function showExamples() {
  const examples = await (await fetch("examples.json")).json();
  $("#examples").replaceChildren(...examples.map(({ image, description, questions }) => {
    const item = clone("#example");
    const scene = async () => open(await (await fetch(image)).blob(), description);
    $("button", item).append(Object.assign(new Image(), { src: image, alt: description }));
    $("button", item).onclick = async () => compose(text.value, [...pending, await scene()]);
    $("div", item).append(...questions.map((question) => {
      const button = Object.assign(node("button", question), { type: "button" });
      button.onclick = async () => ask({ text: question, images: [await scene()] });
      return button;
    }));
    return item;
  }));
}

function download() {
  const conversation = JSON.stringify({ model, ...sampling(), messages: messages(answered()) }, null, 2);
  const href = URL.createObjectURL(new Blob([conversation], { type: "application/json" }));
  const time = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  Object.assign(node("a"), { href, download: `chat-${time}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

function begin() {
  running?.abort();
  running = null;
  exchanges = [];
  $("#exchanges").replaceChildren();
  compose("", []);
  drawControls();
}

// --- What people do -------------------------------------------------------------------------------------------------

$("#new").onclick = begin;
$("#download").onclick = download;
$("#open-settings").onclick = () => $("#settings").showModal();
$("#choose").onclick = () => $("#files").click();
$("#stop").onclick = () => running?.abort();
$("#editing button").onclick = () => compose("", []);
settings.oninput = keepSettings;
settings.onreset = () => setTimeout(keepSettings); // it is told before it happens
text.oninput = grow;
main.onscroll = () => (following = main.scrollHeight - main.scrollTop - main.clientHeight < 60);
new ResizeObserver(follow).observe(main); // the question being written may take room from it

$("#files").onchange = async ({ target }) => {
  await add([...target.files]);
  target.value = ""; // so that the same file can be chosen again
};
$("#composer").onsubmit = async (event) => {
  event.preventDefault();
  await adding;
  if (text.value.trim() || pending.length) ask({ text: text.value.trim(), images: pending });
};
text.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("#composer").requestSubmit();
};
$("#key").onsubmit = async (event) => {
  event.preventDefault();
  held.llavaLiteKey = $("#key-field").value;
  await connect();
  $("#key label").textContent = "The server does not take this key. Another?"; // seen if it is still asked for
  if ($("#key").hidden && exchanges.at(-1)?.error) answer(exchanges.at(-1));
};
document.onkeydown = (event) => {
  if (event.key === "Escape" && !$("#settings").open) running?.abort();
};
document.onpaste = (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  add(files);
};
const hasFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files"); // words drop into the question as ever
document.ondragover = document.ondragenter = (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = (event) => event.relatedTarget ?? document.body.classList.remove("dropping");
document.ondrop = (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  add([...event.dataTransfer.files]);
};

recallSettings();
showExamples();
connect();
setInterval(() => document.hidden || running || connect(), 10_000);
