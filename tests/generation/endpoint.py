"""A small OpenAI-compatible endpoint on a real socket, which fails as it is told to."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Say = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body: dict

    def do_GET(self) -> None:
        data = [{"id": name, "object": "model"} for name in self.server.models]
        self.send_json({"object": "list", "data": data})

    def do_POST(self) -> None:
        endpoint = self.server
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with endpoint.lock:
            endpoint.requests.append(self)
            endpoint.times[self.question] += 1
            endpoint.under_way += 1
            endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
        try:
            endpoint.say(self)
        except OSError:
            endpoint.gone.set()
            self.close_connection = True
        finally:
            with endpoint.lock:
                endpoint.under_way -= 1

    def log_message(self, *words: object) -> None: ...

    @property
    def question(self) -> str:
        """The last words asked."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    @property
    def attempt(self) -> int:
        """How often this question has been asked by now."""
        return self.server.times[self.question]

    def send_json(self, body: object, status: int = 200, **headers: str) -> None:
        self.send_text(json.dumps(body), status, "application/json", **headers)

    def send_text(self, text: str, status: int = 200, kind: str = "text/html", **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def send_error_of(self, status: int, message: str, **headers: str) -> None:
        self.send_json({"error": {"message": message, "type": "x", "code": None}}, status, **headers)

    def open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_event(self, body: object) -> None:
        data = f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Leave in the middle."""
        self.wfile.flush()
        self.close_connection = True


def whole(content: object, finish: object = "stop", **more: object) -> dict:
    """An answer as OpenAI writes it."""
    message = {"role": "assistant", "content": content, **more}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }


def piece(content: object = None, finish: object = None) -> dict:
    """A piece of an answer as OpenAI writes it."""
    delta = {} if content is None else {"content": content}
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def echo(handler: Handler) -> None:
    """Say the question again, a letter at a time where a stream is wanted."""
    if not handler.body.get("stream"):
        handler.send_json(whole(handler.question))
        return
    handler.open_stream()
    for letter in handler.question:
        handler.send_event(piece(letter))
    for event in (piece(finish="stop"), {"choices": [], "usage": {"total_tokens": 3}}, "[DONE]"):
        handler.send_event(event)
    handler.end_stream()


class Endpoint(ThreadingHTTPServer):
    """Use it with `with`; `say` answers, and what was asked is kept."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, say: Say = echo, models: tuple[str, ...] = ("tiny",)) -> None:
        self.say, self.models = say, models
        self.lock = threading.Lock()
        self.requests: list[Handler] = []
        self.times: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.gone = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> "Endpoint":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


def wait_until_gone(handler: Handler) -> None:
    """Send spaces, which JSON allows, until nobody listens."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(500):
        handler.wfile.write(b" ")
        time.sleep(0.02)
