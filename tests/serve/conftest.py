"""One tiny real model behind one real server for all tests of this room."""

import base64
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import llava_lite
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.batching import Batcher
from llava_lite.serve.config import ServerConfig
from tests.serve.running import Address, running


@pytest.fixture(scope="session")
def assistant(llava_dir: Path) -> Assistant:
    return llava_lite.load(llava_dir)


@pytest.fixture(scope="session")
def shared(llava_dir: Path) -> Iterator[Batcher]:
    batcher = Batcher(llava_lite.load(llava_dir), max_answering=4, max_waiting=8)
    yield batcher
    batcher.close()


@pytest.fixture(scope="session")
def config(world: Path) -> ServerConfig:
    return ServerConfig(
        model_name="tiny", max_new_tokens=64, max_images=3, max_messages=9, max_body_bytes=200_000, files_dir=world
    )


@pytest.fixture(scope="session")
def server(shared: Batcher, config: ServerConfig) -> Iterator[Address]:
    with running(shared, config) as address:
        yield address


@pytest.fixture(scope="session")
def client(server: Address) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def pictures(world: Path) -> list[Path]:
    return sorted((world / "images").glob("*.png"))


@pytest.fixture(scope="session")
def uris(pictures: list[Path]) -> list[str]:
    """The pictures as data: URIs."""
    return ["data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for path in pictures]
