"""A chat as a file: a record of messages as OpenAI writes them, or Markdown to be read."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from llava_lite.conversation.message import Conversation, Image


class TranscriptError(ValueError):
    """A chat that cannot be saved there."""


def save(conversation: Conversation, path: Path, *, model: str, overwrite: bool = False) -> None:
    """Write a conversation whose images are paths: Markdown where the name ends in .md, else JSON.

    The JSON is a list of one record, which can be inspected and trained on as it is. Paths of images are relative to
    the file's folder where they lie in it, else absolute. Raises TranscriptError.
    """
    if os.path.exists(path) and not overwrite:
        raise TranscriptError(f"{path}: there is such a file; /save! overwrites it")
    write = as_markdown if path.suffix == ".md" else as_json
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(write(conversation, path.parent, model=model).encode("utf-8", errors="replace"))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise TranscriptError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def as_json(conversation: Conversation, folder: Path, *, model: str) -> str:
    """Write a list of one record; a user's turn with images is a list of parts."""
    messages: list[dict[str, object]] = []
    if conversation.system is not None:
        messages.append({"role": "system", "content": conversation.system})
    for message in conversation.messages:
        parts = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": _address(part, folder)}}
            for part in message.content
        ]
        messages.append({"role": message.role, "content": parts if message.images else message.text})
    return json.dumps([{"model": model, "messages": messages}], indent=2, ensure_ascii=False) + "\n"


def as_markdown(conversation: Conversation, folder: Path, *, model: str) -> str:
    """Write headings, images and words."""
    lines = [f"# {model}"]
    if conversation.system is not None:
        lines += ["## system", conversation.system]
    for message in conversation.messages:
        lines.append(f"## {message.role}")
        for part in message.content:
            lines.append(part if isinstance(part, str) else f"![]({quote(_address(part, folder))})")
    return "\n\n".join(lines) + "\n"


def _address(image: Image, folder: Path) -> str:
    path = os.path.abspath(str(image.source))
    below = os.path.relpath(path, folder)
    return path if below.startswith("..") else Path(below).as_posix()
