"""Open a model from what a person writes on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llava_lite.generation.chat_model import GenerationError, ScoringModel
from llava_lite.generation.remote import RemoteChat

if TYPE_CHECKING:
    from llava_lite.generation.assistant import Assistant
    from llava_lite.models.adapter import Quantize

_HELD: Mapping[str, Quantize] = {"4bit": "4bit", "8bit": "8bit"}


def open_model(where: str, *, quantize: str | None = None, drop_oldest: bool = False) -> ScoringModel:
    """Open a checkpoint folder, a hub id, or an OpenAI-compatible endpoint: http(s)://HOST:PORT[/v1][#MODEL].

    quantize, drop_oldest: as `open_checkpoint`; an endpoint's model is held as its server was told.
    Raises as `open_checkpoint` and `RemoteChat` do.
    """
    if where.partition("://")[0].lower() in ("http", "https"):
        if quantize is not None or drop_oldest:
            raise GenerationError("quantize and drop_oldest go with a checkpoint; an endpoint's server is told of them")
        base_url, _, model = where.partition("#")
        return RemoteChat(base_url, model or None)
    return open_checkpoint(where, quantize=quantize, drop_oldest=drop_oldest)


def open_checkpoint(where: str, *, quantize: str | None = None, drop_oldest: bool = False) -> Assistant:
    """Open a checkpoint folder or a hub id.

    quantize: hold the language model's blocks in 4bit or 8bit; by default as the checkpoint says
    drop_oldest: see `Assistant`

    Raises GenerationError for another `quantize`, and as `load` does.
    """
    if quantize is not None and quantize not in _HELD:
        raise GenerationError(f"no quantize {quantize!r}; there are: {', '.join(_HELD)}")
    from llava_lite.generation.assistant import load  # torch takes seconds, which an endpoint does not need

    assistant = load(where, quantize=None if quantize is None else _HELD[quantize])
    assistant.drop_oldest = drop_oldest
    return assistant
