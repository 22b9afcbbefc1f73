"""Requests that no client library sends: each gets an error in OpenAI's shape, and the next good request its answer."""

import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from llava_lite.generation.assistant import Assistant
from llava_lite.generation.batching import Batcher
from llava_lite.serve.config import ServerConfig
from tests.serve.running import CHAT, Address, is_idle, question, read_reply, read_until, request, running, wait_for

GOOD = json.dumps(question()).encode()


@pytest.fixture(autouse=True)
def still_there(server: Address, shared: Batcher) -> Iterator[None]:
    """After each test the next good request is answered, and no place is taken."""
    yield
    assert server.post(question()).status == 200
    wait_for(lambda: is_idle(shared))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/v1/models/a%2F%F0%9F%98%80", 404, "model_not_found"),
        ("POST", "/v1/completions", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", "/health", 405, "method_not_allowed"),
    ],
)
def test_wrong_paths_and_methods(server: Address, method: str, path: str, status: int, code: str) -> None:
    reply = server.send(method, path)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.error["type"] == "invalid_request_error"
    assert (status == 405) == ("allow" in reply.headers)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"", {}, 400, "invalid_json"),
        (b"[" * 90_000, {}, 400, "invalid_json"),
        (b"\xff" * 10, {}, 400, "invalid_json"),
        (GOOD, {"content_type": "text/plain"}, 415, "unsupported_media_type"),
        (GOOD, {"content_type": ""}, 415, "unsupported_media_type"),
        (GOOD, {"content_encoding": "gzip"}, 415, "unsupported_media_type"),
        (json.dumps({**question(), "model": "\ud800"}).encode(), {}, 404, "model_not_found"),
        (json.dumps({**question(), "\ud800": 1}).encode(), {}, 400, "unknown_parameter"),
        (json.dumps(question("half \ud800")).encode(), {}, 400, "invalid_request"),
        (json.dumps(question(temperature=1e-40)).encode(), {}, 400, "invalid_value"),
        (json.dumps(question(stop="x" * 1001)).encode(), {}, 400, "invalid_value"),
        (json.dumps(question(stop=["x" * 1000] * 16, seed=-7, temperature=1)).encode(), {}, 200, None),
    ],
)
def test_wrong_bodies(server: Address, body: bytes, headers: dict[str, str], status: int, code: str | None) -> None:
    reply = server.post(body, **headers)
    assert reply.status == status
    assert code is None or reply.error["code"] == code
    assert len(reply.body) < 2000


def test_a_body_that_is_too_large_is_refused_before_it_is_there(server: Address, config: ServerConfig) -> None:
    large = config.max_body_bytes + 1
    declared = request("POST", CHAT, b"", content_length=str(large))
    with server.connect() as connection:
        connection.sendall(declared)  # and nothing of the body
        assert read_reply(connection).error["code"] == "request_too_large"
    assert server.post(b" " * large).status == 413
    assert server.post(GOOD + b" " * (config.max_body_bytes - len(GOOD))).status == 200


def test_a_body_in_chunks_is_refused_when_it_gets_too_large(server: Address, config: ServerConfig) -> None:
    with server.connect() as connection:
        connection.sendall(request("POST", CHAT, b"", content_length="", transfer_encoding="chunked"))
        for _ in range(config.max_body_bytes // 10_000 + 1):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert read_reply(connection).status == 413


def test_a_body_in_chunks_is_read(server: Address) -> None:
    with server.connect() as connection:
        connection.sendall(request("POST", CHAT, b"", content_length="", transfer_encoding="chunked"))
        for byte in GOOD:
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        assert read_reply(connection).json["object"] == "chat.completion"


def test_a_body_that_comes_too_slowly_is_refused(shared: Batcher, config: ServerConfig) -> None:
    with running(shared, replace(config, body_timeout=0.3)) as server, server.connect() as connection:
        head, _, body = request("POST", CHAT, GOOD).partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n" + body[:10])
        reply = read_reply(connection)
        assert (reply.status, reply.error["code"]) == (408, "timeout")
        assert server.post(question()).status == 200


def test_a_client_that_leaves_in_its_body_is_forgotten(server: Address) -> None:
    for cut in (0, 1, len(GOOD) // 2, len(GOOD) - 1):
        with server.connect() as connection:
            head, _, body = request("POST", CHAT, GOOD).partition(b"\r\n\r\n")
            connection.sendall(head + b"\r\n\r\n" + body[:cut])


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # TLS
        b"GET /nothing HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n" + b"\x00" * 1000,
        b"POST " + b"x" * 100_000,
        b"GET /nothing HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["tls", "version", "zeros", "line", "headers", "negative", "digits", "two lengths", "chunk"],
)
def test_what_is_not_http_ends_its_connection_alone(server: Address, garbage: bytes) -> None:
    with server.connect() as connection:
        try:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return
        assert answer == b"" or answer.split()[1] in (b"400", b"404")


def test_garbage_behind_a_good_request_does_not_hurt_it(server: Address) -> None:
    for rest in (b"\x00garbage\r\n\r\n", request("POST", CHAT, GOOD) * 3):
        with server.connect() as connection:
            connection.sendall(request("POST", CHAT, GOOD, connection="keep-alive") + rest)
            read_until(connection, b'"chat.completion"')


def test_a_bug_is_told_in_the_log_and_not_to_the_client(
    shared: Batcher, config: ServerConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_(*given: object) -> None:
        raise RuntimeError("a secret of the server")

    with running(shared, config) as server:
        monkeypatch.setattr(Batcher, "submit", break_)
        with caplog.at_level(logging.ERROR, "llava_lite"):
            reply = server.post(question())
        monkeypatch.undo()
        assert (reply.status, reply.error["type"], reply.error["code"]) == (500, "server_error", "internal_error")
        assert b"secret" not in reply.body
        assert "a secret of the server" in caplog.text
        assert server.post(question()).status == 200


def test_a_failing_model_ends_a_stream_with_an_error(
    shared: Batcher, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise RuntimeError("no memory left")

    with running(shared, config) as server:
        monkeypatch.setattr(shared._assistant.model, "extend", fail)
        reply = server.post(question(stream=True))
        whole = server.post(question())
        monkeypatch.undo()
        assert reply.status == 200
        *_, last, rest = reply.body.decode().split("\n\n")
        assert (json.loads(last.removeprefix("data: "))["error"]["code"], rest) == ("internal_error", "")
        assert (whole.status, whole.error["code"]) == (500, "internal_error")
        assert server.post(question()).status == 200


def test_a_closed_model_is_not_healthy(assistant: Assistant, config: ServerConfig) -> None:
    model = Batcher(assistant)
    with running(model, config) as server:
        assert server.send("GET", "/health").status == 200
        model.close()
        for reply in (server.send("GET", "/health"), server.post(question())):
            assert (reply.status, reply.error["type"], reply.error["code"]) == (503, "server_error", "unavailable")
