"""Places: as many as there are, freed by whoever goes, kept from nobody by a slow reader, and none left at the end."""

import base64
import json
import re
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from llava_lite.generation.assistant import Assistant
from llava_lite.generation.batching import Batcher
from llava_lite.serve.config import ServeError, ServerConfig, read_api_key
from llava_lite.serve.server import listen
from tests.serve.running import (
    CHAT,
    Address,
    is_idle,
    question,
    read_reply,
    read_until,
    request,
    running,
    start_verb,
    wait_for,
)

ENDLESS = question(max_tokens=1500)


@pytest.fixture
def narrow(assistant: Assistant) -> Iterator[Batcher]:
    """Two answer, one waits."""
    batcher = Batcher(assistant, max_answering=2, max_waiting=1)
    yield batcher
    batcher.close()


@pytest.fixture
def long(config: ServerConfig) -> ServerConfig:
    return replace(config, max_new_tokens=1500)


def post(body: dict[str, object]) -> bytes:
    return request("POST", CHAT, json.dumps(body).encode())


def figure(server: Address, name: str) -> float:
    lines = server.send("GET", "/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"llava_lite_{name} ")).rpartition(" ")[2])


def test_one_more_than_may_wait_is_told_to_come_again(narrow: Batcher, long: ServerConfig) -> None:
    with running(narrow, long) as server:
        asking = [server.connect() for _ in range(3)]
        for connection in asking:
            connection.sendall(post(ENDLESS))
        wait_for(lambda: (narrow.load().num_answering, narrow.load().num_waiting) == (2, 1))
        refused = server.post(question())
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert (refused.error["type"], refused.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        with openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(**question())
        assert figure(server, 'requests_total{outcome="rejected"}') == 2
        assert figure(server, "answering") == 2 and figure(server, "waiting") == 1
        for connection in asking:
            connection.close()
        wait_for(lambda: is_idle(narrow))
        wait_for(lambda: figure(server, "open_requests") == 0)
        assert server.post(question()).status == 200
        assert figure(server, 'requests_total{outcome="cancelled"}') == 3


def test_openais_client_waits_and_asks_again(narrow: Batcher, config: ServerConfig) -> None:
    with running(narrow, config) as server, openai.OpenAI(base_url=server.url, api_key="x", max_retries=9) as client:
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(client.chat.completions.create, **question(f"Number {i}?")) for i in range(8)]
            assert all(one.result().choices[0].message.content for one in asked)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(narrow: Batcher, long: ServerConfig, stream: bool) -> None:
    with running(narrow, long) as server:
        with server.connect() as connection:
            connection.sendall(post({**ENDLESS, "stream": stream}))
            if stream:
                read_until(connection, b'"content": ", ')
            wait_for(lambda: narrow.load().num_answering == 1)
            started = time.monotonic()
        wait_for(lambda: is_idle(narrow))
        assert time.monotonic() - started < 1  # the whole answer takes several seconds
        wait_for(lambda: figure(server, "open_requests") == 0)


def test_a_stream_that_is_closed_frees_its_place(narrow: Batcher, long: ServerConfig) -> None:
    with running(narrow, long) as server, openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        with client.chat.completions.create(**ENDLESS, stream=True) as stream:
            next(iter(stream))
        wait_for(lambda: is_idle(narrow))


@pytest.fixture
def wordy(long: ServerConfig) -> ServerConfig:
    """A model of so long a name that an answer of many chunks is more than the system holds for a slow reader."""
    return replace(long, model_name="tiny" * 5000)


def ask_and_read_nothing(server: Address, config: ServerConfig) -> socket.socket:
    slow = server.connect()
    slow.sendall(post({**ENDLESS, "max_tokens": 700, "stream": True, "model": config.model_name}))
    return slow


def test_a_slow_reader_holds_nobody_up(narrow: Batcher, wordy: ServerConfig) -> None:
    with running(narrow, wordy) as server, ask_and_read_nothing(server, wordy) as slow:
        wait_for(lambda: narrow.load().num_answering == 1)
        assert server.post(question(model=wordy.model_name)).status == 200
        wait_for(lambda: is_idle(narrow))  # the model is done with it, read or not
        assert figure(server, "open_requests") == 1
        assert read_reply(slow).body.endswith(b"data: [DONE]\n\n")


def test_a_reader_that_never_reads_is_left_in_the_end(narrow: Batcher, wordy: ServerConfig) -> None:
    with running(narrow, replace(wordy, timeout=5)) as server, ask_and_read_nothing(server, wordy):
        wait_for(lambda: narrow.load().num_answering == 1)
        wait_for(lambda: figure(server, "open_requests") == 0)
        assert figure(server, 'requests_total{outcome="length"}') == 0  # its end has not been sent
        assert is_idle(narrow)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_ended(narrow: Batcher, long: ServerConfig, stream: bool) -> None:
    with running(narrow, replace(long, timeout=0.3)) as server:
        reply = server.post({**ENDLESS, "stream": stream})
        wait_for(lambda: is_idle(narrow))
        if stream:
            *_, last, rest = reply.body.decode().split("\n\n")
            assert (reply.status, rest) == (200, "")
            error = json.loads(last.removeprefix("data: "))["error"]
        else:
            assert (reply.status, reply.headers["x-should-retry"]) == (504, "false")
            error = reply.error
        assert (error["code"], error["message"]) == ("timeout", "not answered within 0.3 s; ask for fewer tokens")
        assert figure(server, 'requests_total{outcome="timeout"}') == 1


def test_a_body_is_not_held_while_it_is_answered(narrow: Batcher, long: ServerConfig, pictures: list[Path]) -> None:
    image = base64.b64encode(pictures[0].read_bytes() + bytes(3_000_000)).decode()  # what follows a PNG is not read
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    body = post({**ENDLESS, "stream": True, "messages": [{"role": "user", "content": [part]}]})
    with running(narrow, replace(long, max_body_bytes=2**23)) as server, server.connect() as connection:
        tracemalloc.start()
        try:
            connection.sendall(body)
            read_until(connection, b'"delta": {"content": "')  # not the opening, which says a role
            held = [trace for trace in tracemalloc.take_snapshot().traces if trace.size > 3_000_000]
        finally:
            tracemalloc.stop()
        assert narrow.load().num_answering == 1
        assert held == []


def test_threads_end_with_the_server(assistant: Assistant, config: ServerConfig) -> None:
    before = threading.active_count()
    batcher = Batcher(assistant)
    with running(batcher, config) as server, ThreadPoolExecutor(8) as pool:
        assert {reply.status for reply in pool.map(server.post, [question()] * 16)} == {200}
    batcher.close()
    wait_for(lambda: threading.active_count() == before)


def test_what_is_left_out_of_a_long_conversation_is_told(llava_dir: Path, config: ServerConfig) -> None:
    import llava_lite

    forgetful = llava_lite.load(llava_dir)
    forgetful.drop_oldest = True
    turns = [{"role": role, "content": "word " * 300} for _ in range(4) for role in ("user", "assistant")]
    body = question(messages=[*turns, {"role": "user", "content": "Well?"}])
    batcher = Batcher(forgetful)
    with running(batcher, config) as server:
        whole, stream = server.post(body), server.post({**body, "stream": True})
    batcher.close()
    dropped = whole.json["dropped_turns"]
    assert dropped in (2, 4, 6, 8)
    assert whole.headers["x-dropped-turns"] == str(dropped)
    assert f'"dropped_turns": {dropped}' in stream.body.decode()


@pytest.mark.slow  # starts two processes that import torch
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_verb_serves_and_ends_when_told(llava_dir: Path, ending: int) -> None:
    server = start_verb(llava_dir, LLAVA_LITE_API_KEY="s3cret")
    try:
        line = next(line for line in server.stderr if "http://" in line)
        found = re.match(r"tiny at http://127\.0\.0\.1:(\d+)/v1, a page to chat at http://127\.0\.0\.1:\1/: ", line)
        assert found, line
        assert "8 answers at a time, 32 more may wait; images from data: URIs, 16 a request" in line
        assert "an API key is asked for" in line and "s3cret" not in line
        address = Address(int(found[1]))
        wait_for(address.listens)
        assert address.post(question()).status == 401
        with openai.OpenAI(base_url=address.url, api_key="s3cret", max_retries=0) as client:
            stream = client.chat.completions.create(**question(max_tokens=500), stream=True)
            next(iter(stream))
            server.send_signal(ending)
            assert list(stream)[-1].choices[0].finish_reason == "length"  # what is under way may end
        assert server.wait(timeout=30) == 0
        assert server.stderr.read().strip().endswith("stopped")
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_a_place_that_is_taken_is_told_before_a_model_is_loaded(server: Address) -> None:
    with pytest.raises(ServeError, match=rf"127\.0\.0\.1 port {server.port}: cannot be listened to .*; choose another"):
        listen("127.0.0.1", server.port)
    with pytest.raises(ServeError, match="cannot be listened to"):
        listen("no.such.host.invalid", 0)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava_lite.serve.server.find_spec", lambda name: None)
    with pytest.raises(ServeError, match=r"serving needs fastapi, .*; pip install 'llava-lite\[serve\]'"):
        listen("127.0.0.1", 0)


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_LITE_API_KEY", "of the environment")
    (tmp_path / "key").write_text("of a file\n")
    assert read_api_key(tmp_path / "key") == "of a file"
    assert read_api_key(None) == "of the environment"
    monkeypatch.delenv("LLAVA_LITE_API_KEY")
    assert read_api_key(None) is None
    (tmp_path / "key").write_text(" \n")
    for path, words in ((tmp_path / "key", "empty"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ServeError, match=words):
            read_api_key(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"timeout": -1.0, "max_body_bytes": 0}, "max_body_bytes=0, timeout=-1.0"),
        ({"allow_private": True}, "allow fetching too"),
        ({"files_dir": Path("no/such/folder")}, "not a folder"),
        ({"api_key": ""}, "printable ASCII"),
        ({"api_key": "ü"}, "printable ASCII"),
    ],
)
def test_what_an_operator_gets_wrong_is_told(fields: dict, words: str) -> None:
    with pytest.raises(ServeError, match=words):
        ServerConfig(**fields)
