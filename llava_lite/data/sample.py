"""Records as LLaVA writes them, checked one by one. An error names the record, the file and the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from llava_lite.conversation.message import Conversation, ConversationError, Image, Message, Role

_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant"}
_MARK = "<image>"


class SampleError(ValueError):
    """A data file or record that cannot be used."""


@dataclass(frozen=True)
class Sample:
    """One checked record: where it came from, and what was said."""

    id: str
    source: str
    conversation: Conversation

    @property
    def name(self) -> str:
        return f"sample {self.id} ({self.source})"


def read_records(path: Path) -> list[dict]:
    """Read a JSON list or, by its suffix, a .jsonl file of records. Raises SampleError that says where it is broken."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = ", ".join(sorted(p.name for p in path.parent.glob("*.json*"))[:5]) if path.parent.is_dir() else ""
        raise SampleError(f"{path}: no such data file{f'; beside it: {beside}' if beside else ''}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SampleError(f"{path}: cannot be read ({error})") from None
    records = list(_read_lines(text, path)) if path.suffix == ".jsonl" else _read_list(text, path)
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise SampleError(f"{path}: record {number} is not an object but {type(record).__name__}")
    if not records:
        raise SampleError(f"{path}: holds no record")
    return records


def _read_list(text: str, path: Path) -> list:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; name it .jsonl if it has one record a line" if error.msg == "Extra data" else ""
        place = f"line {error.lineno}, column {error.colno}"
        raise SampleError(f"{path}: broken JSON at {place}: {error.msg}{hint}") from None
    if not isinstance(records, list):
        raise SampleError(f"{path}: holds a {type(records).__name__}; write a list of records")
    return records


def _read_lines(text: str, path: Path) -> Iterator[dict]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also cut at U+2028 inside a string
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise SampleError(f"{path}: broken JSON at line {number}, column {error.colno}: {error.msg}") from None


def read_sample(record: dict, *, source: str, number: int, image_dir: Path) -> Sample:
    """Check a record in LLaVA's format and read it as a conversation.

    `image` is a path or a list of paths below image_dir, one for each `<image>` in the human turns; a record without it
    is text only. With `"image": []` a human's `<image>` is a word like any other. Raises SampleError.
    """
    sample_id = record_id(record, number)
    try:
        images = _read_images(record, image_dir)
        turns = record.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise ConversationError("no `conversations`; a record holds a list of human and gpt turns")
        spelled = images == [] and "image" in record
        pending = iter(images)
        messages = [_read_turn(turn, i, pending, spelled) for i, turn in enumerate(turns)]
        if not spelled:
            _check_counts(len(images), sum(t["value"].count(_MARK) for t in turns if t["from"] == "human"))
        if messages[-1].role == "user":
            raise ConversationError(f"turn {len(messages)} (human) has no answer; add one or drop the turn")
        return Sample(sample_id, source, Conversation(tuple(messages)))
    except ConversationError as error:
        raise SampleError(f"sample {sample_id} ({source}): {error}") from None


def record_id(record: dict, number: int) -> str:
    """Return the record's id, or its place in the file, counted from 0, if it has none."""
    own = record.get("id")
    return str(number if own is None else own)


def place_image(path: str, image_dir: Path) -> Path:
    """Return where a record's image lies. Raises ConversationError for a path that leads out of the image folder."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ConversationError(f"image {path!r} leads out of the image folder; give a path below data.image_dir")
    return image_dir / path


def _read_images(record: dict, image_dir: Path) -> list[Image]:
    value = record.get("image", [])
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise ConversationError("`image` is neither a path nor a list of paths; leave it out for text only")
    return [Image(place_image(path, image_dir)) for path in paths]


def _check_counts(num_images: int, num_marks: int) -> None:
    if num_images > num_marks:
        remedy = f"remove an image, or add {_MARK} to a human turn"
    elif num_images:
        remedy = f"add an image, or remove a {_MARK}"
    else:
        remedy = 'add `image`, or write "image": [] if the word itself is meant'
    if num_images != num_marks:
        raise ConversationError(f"{num_images} images but {num_marks} {_MARK}; {remedy}")


def _read_turn(turn: object, index: int, pending: Iterator[Image], spelled: bool) -> Message:
    """Read one turn, taking from `pending` an image for each mark."""
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise ConversationError(f"turn {index + 1} has no text; write it as `value`")
    role, text = _ROLES.get(str(turn.get("from"))), turn["value"]
    if role is None:
        raise ConversationError(f"turn {index + 1}: unknown role {turn.get('from')!r}; known: human, gpt")
    if role == "assistant":
        if not text.strip():
            raise ConversationError(f"turn {index + 1} (gpt) is empty; a record without an answer teaches nothing")
        return Message("assistant", (text,))
    if spelled:
        return Message("user", (text,))
    first, *rest = text.split(_MARK)
    content: list[str | Image] = [first]
    for words in rest:
        content += [*islice(pending, 1), words]
    return Message("user", tuple(content))
