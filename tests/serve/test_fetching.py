"""Images by address: fetched where the operator allows it, within the request's limit, and refused in its own shape."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llava_lite.generation.batching import Batcher
from llava_lite.serve.config import ServerConfig
from tests.serve.running import is_idle, question, running, wait_for


@pytest.fixture
def site(pictures: list[Path]) -> Iterator[str]:
    """A web site of this machine that has the pictures."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *given: object) -> None: ...

    folder = str(pictures[0].parent)
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Quiet(*given, directory=folder))
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    thread.join()
    site.server_close()


def about(*urls: str) -> dict[str, object]:
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return question(messages=[{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}])


def test_an_address_gives_the_same_answer_as_its_data(
    shared: Batcher, config: ServerConfig, site: str, pictures: list[Path], uris: list[str]
) -> None:
    with running(shared, replace(config, allow_fetch=True, allow_private=True)) as server:
        fetched = server.post(about(f"{site}/{pictures[0].name}", uris[1]))
        sent = server.post(about(uris[0], uris[1]))
    assert fetched.status == 200, fetched
    assert fetched.json["choices"] == sent.json["choices"]


def test_what_cannot_be_fetched_is_the_clients_error(
    shared: Batcher, config: ServerConfig, site: str, pictures: list[Path]
) -> None:
    picture = f"{site}/{pictures[0].name}"
    with running(shared, replace(config, allow_fetch=True)) as server:
        assert server.post(about(picture)).error["code"] == "invalid_image"  # of this machine, which is not public
    size = pictures[0].stat().st_size
    narrow = replace(config, allow_fetch=True, allow_private=True, max_body_bytes=size * 3 // 2)
    with running(shared, narrow) as server:
        assert server.post(about(picture)).status == 200
        for urls in ([f"{site}/none.png"], [f"{site}/"], ["http://no.such.host.invalid/a.png"], [picture, picture]):
            refused = server.post(about(*urls))
            assert (refused.status, refused.error["code"]) == (400, "invalid_image"), urls
            assert refused.error["param"] == "messages"
    wait_for(lambda: is_idle(shared))
