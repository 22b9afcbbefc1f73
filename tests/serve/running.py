"""A real server on a free port of this machine, and a client that speaks to its socket by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_lite.generation.chat_model import SharedModel
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.server import listen, make_server

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Reply:
    """An HTTP response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which has OpenAI's shape and nothing else."""
        assert self.json.keys() == {"error"}
        assert self.json["error"].keys() == {"message", "type", "param", "code"}
        return self.json["error"]


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def listens(self) -> bool:
        try:
            return self.send("GET", "/health").status == 200
        except OSError:
            return False

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send one request and read its answer until the server closes."""
        with self.connect() as connection:
            connection.sendall(request(method, path, body, **headers))
            return read_reply(connection)

    def post(self, body: object, **headers: str) -> Reply:
        """Ask; bytes go as they are, all else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", CHAT, data, **headers)


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """Write a request that asks for the connection to be closed behind it."""
    given = {"host": "x", "connection": "close", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body is not None:
        given = {"content-type": "application/json", "content-length": str(len(body)), **given}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def read_reply(connection: socket.socket) -> Reply:
    """Read to the end of the stream."""
    data = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return Reply(int(status.split()[1]), headers, body)


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """Read until something has been said, or fail where the stream ends before."""
    data = b""
    while wanted not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def unchunked(data: bytes) -> bytes:
    """Join the chunks of a body."""
    stream, chunks = io.BytesIO(data), []
    while size := int(stream.readline() or b"0", 16):
        chunks.append(stream.read(size))
        stream.readline()
    return b"".join(chunks)


@contextlib.contextmanager
def running(model: SharedModel, config: ServerConfig) -> Iterator[Address]:
    """Serve in a thread."""
    with listen("127.0.0.1", 0) as listening:
        server = make_server(model, config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield Address(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def is_idle(model: SharedModel) -> bool:
    """Whether no place is taken."""
    load = model.load()
    return (load.num_answering, load.num_waiting) == (0, 0)


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Wait until something is so, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def start_verb(model: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """Run `llava-lite serve` on a free port, which it tells on its standard error."""
    script = "from llava_lite.cli import main; main()"
    command = [sys.executable, "-c", script, "serve", str(model), "--port", "0", "--name", "tiny", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def question(text: str = "What is it?", **fields: object) -> dict[str, object]:
    """A good request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}
