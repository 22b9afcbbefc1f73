"""Open a model from what a person writes on a command line."""

from __future__ import annotations

from llava_lite.generation.chat_model import ChatModel
from llava_lite.generation.remote import RemoteChat


def open_model(where: str) -> ChatModel:
    """Open a checkpoint folder, a hub id, or an OpenAI-compatible endpoint: http(s)://HOST:PORT[/v1][#MODEL].

    Raises as `load` and `RemoteChat` do.
    """
    if where.partition("://")[0].lower() in ("http", "https"):
        base_url, _, model = where.partition("#")
        return RemoteChat(base_url, model or None)
    from llava_lite.generation.assistant import load  # torch takes seconds, which an endpoint does not need

    return load(where)
