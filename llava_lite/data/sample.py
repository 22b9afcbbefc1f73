"""One record, as LLaVA or OpenAI write it, to a checked conversation. An error names record, file and field.

    LLaVA    {"id", "image": path or list, "conversations": [{"from": "human" | "gpt" | "system", "value": text}]}
    OpenAI   {"id", "messages": [{"role": "user" | "assistant" | "system", "content": text or list of parts}]}

Every other field is left alone. Both spellings of a turn's keys are read in both.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from llava_lite.conversation.message import Conversation, ConversationError, Image, Message, Role
from llava_lite.data.records import SampleError
from llava_lite.images.loading import FileSlice

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
_MARK = "<image>"


@dataclass(frozen=True)
class Sample:
    """One checked record: where it came from, what was said, and what reading it left out on purpose (`notes`)."""

    id: str
    source: str
    conversation: Conversation
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return sample_name(self.id, self.source)


def sample_name(sample_id: str, source: str) -> str:
    """Return what messages call a sample, on one line."""
    return f"sample {sample_id if sample_id.isprintable() else repr(sample_id)} ({source})"


def record_id(record: dict, number: int) -> str:
    """Return the record's id, or its place in the file, counted from 0, if it has none."""
    own = record.get("id")
    return str(number if own is None else own)


def read_sample(record: dict, *, source: str, number: int, image_dir: Path) -> Sample:
    """Check a record and read it as a conversation.

    `image` (or `images`) is a path below image_dir, a data: URI or what the container holds, or a list of these: one
    for each `<image>` in the human turns. A record without is text only; with `"image": []` an `<image>` is a word like
    any other. Parts of a `content` list carry their own images (`image_url`, `image`) or take the record's in order.
    Raises SampleError.
    """
    sample_id = record_id(record, number)
    try:
        conversation, notes = _read_conversation(record, image_dir)
    except ConversationError as error:
        raise SampleError(f"{sample_name(sample_id, source)}: {error}") from None
    return Sample(sample_id, source, conversation, notes)


def place_image(path: str, image_dir: Path) -> Path:
    """Return where a record's image lies. Raises ConversationError for a path that leads out of the image folder."""
    if path.startswith("/") or ".." in path:  # only then look closely: this is asked once for each image of the data
        place = PurePosixPath(path)
        folder = os.path.normpath(image_dir.absolute())
        inside = place.is_relative_to(folder) if place.is_absolute() else True
        if ".." in place.parts or not inside:
            raise ConversationError(f"image {path!r} leads out of the image folder; give a path below data.image_dir")
    return image_dir / path


def _read_conversation(record: dict, image_dir: Path) -> tuple[Conversation, tuple[str, ...]]:
    turns = _find_turns(record)
    images = _read_images(record, image_dir)
    spelled = images == []
    pending = _Pending(images or [])
    messages: list[Message] = []
    system, notes = None, list[str]()
    for number, turn in enumerate(turns, start=1):
        role, content = _read_turn(turn, number)
        if role == "system":
            if number > 1:
                raise ConversationError(f"turn {number}: a system text stands first or not at all")
            system = "".join(_texts(content, number))
        elif role == "assistant":
            text = content if isinstance(content, str) else "".join(_texts(content, number))
            if not messages:
                notes.append("the opening answer, which answers nothing, was left out")
            elif not text.strip():
                raise ConversationError(f"turn {number} (gpt) is empty; a record without an answer teaches nothing")
            else:
                _check_order(messages, "assistant", number)
                messages.append(Message("assistant", (text,)))
        else:
            _check_order(messages, "user", number)
            if isinstance(content, str) and (spelled or _MARK not in content):
                messages.append(Message("user", (content,)))
            else:
                messages.append(Message("user", tuple(_user_parts(content, number, pending, image_dir))))
    if pending.num_taken != len(pending.images):
        _complain_of_counts(len(pending.images), pending.num_taken)
    if not messages:
        raise ConversationError("no human turn; a record asks and answers")
    if messages[-1].role == "user":
        raise ConversationError(f"turn {len(turns)} (human) has no answer; add one or drop the turn")
    return Conversation(tuple(messages), system), tuple(notes)


def _check_order(messages: list[Message], role: Role, number: int) -> None:
    if messages and messages[-1].role == role:
        due = "assistant" if role == "user" else "user"
        raise ConversationError(f"turn {number} is the {role}'s where the {due}'s is due")


class _Pending:
    """The record's images that wait for their places, and how many places there were."""

    def __init__(self, images: Sequence[Image]) -> None:
        self.images = images
        self.num_taken = 0
        self._left = iter(images)

    def take(self) -> Iterator[Image]:
        self.num_taken += 1
        return islice(self._left, 1)


def _find_turns(record: dict) -> list:
    if record.get("video") is not None:
        raise ConversationError("has a `video`, which is not read; give its frames as images, or drop the record")
    found = [name for name in ("conversations", "messages") if record.get(name) is not None]
    if len(found) == 2:
        raise ConversationError("has both `conversations` and `messages`; leave one")
    turns = record[found[0]] if found else None
    if not isinstance(turns, list) or not turns:
        raise ConversationError(
            "no `conversations` and no `messages`; write a list of turns, or give the source a `reader`"
        )
    return turns


def _read_images(record: dict, image_dir: Path) -> list[Image] | None:
    """Return the record's own images; None where it does not speak of any."""
    found = [name for name in ("image", "images") if record.get(name) is not None]
    if not found:
        return None
    value = record[found[0]]
    sources = value if isinstance(value, list) else [value]
    if len(found) == 2 or not all(isinstance(source, str | bytes | FileSlice) and source for source in sources):
        raise ConversationError("`image` is neither a path nor a list of paths; leave it out for text only")
    return [_place(source, image_dir) for source in sources]


def _place(source: object, image_dir: Path) -> Image:
    if not isinstance(source, str) or source.startswith("data:"):
        return Image(source)
    if source.startswith("file:"):
        source = unquote(_path_of(source))
    elif "://" in source:
        raise ConversationError(f"image {source!r}: addresses are not fetched; download it and give its path")
    return Image(place_image(source, image_dir))


def _path_of(address: str) -> str:
    try:
        return urlsplit(address).path
    except ValueError as error:
        raise ConversationError(f"image {address!r}: not an address ({error}); give a path below the folder") from None


def _read_turn(turn: object, number: int) -> tuple[str, object]:
    """Return a turn's role and content."""
    if not isinstance(turn, dict):
        raise ConversationError(f"turn {number} is not an object but {type(turn).__name__}")
    name = turn.get("from") or turn.get("role")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise ConversationError(f"turn {number}: unknown role {name!r}; known: {', '.join(ROLES)}")
    content = turn.get("value")
    if content is None:
        content = turn.get("content")
    if not isinstance(content, (str, list)):
        raise ConversationError(f"turn {number} has no text; write it as `value` (or `content`)")
    return role, content


def _texts(content: object, number: int) -> Iterator[str]:
    """The words of a turn that can hold nothing else."""
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise ConversationError(f"turn {number}: only text may stand here; images belong to human turns")
        yield text


def _user_parts(content: object, number: int, pending: _Pending, image_dir: Path) -> Iterator[str | Image]:
    if isinstance(content, str):
        first, *rest = content.split(_MARK)
        yield first
        for words in rest:
            yield from pending.take()
            yield words
        return
    assert isinstance(content, list)
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        elif kind in ("image_url", "image"):
            yield from _image_part(part, kind, number, pending, image_dir)
        else:
            raise ConversationError(f"turn {number}: a part is neither text nor image_url but {kind or part!r}")


def _image_part(part: dict, kind: str, number: int, pending: _Pending, image_dir: Path) -> Iterator[Image]:
    given = [part[name] for name in (kind, "path", "url") if part.get(name) is not None]
    source = given[0].get("url") if given and isinstance(given[0], dict) else next(iter(given), None)
    if not given and kind == "image":  # {"type": "image"}: the record's next one
        yield from pending.take()
    elif isinstance(source, str | bytes | FileSlice) and source:
        yield _place(source, image_dir)
    else:
        raise ConversationError(f"turn {number}: an {kind} part without its address; write a path or data: URI")


def _complain_of_counts(num_images: int, num_marks: int) -> None:
    if num_images > num_marks:
        remedy = f"remove an image, or add {_MARK} to a human turn"
    elif num_images:
        remedy = f"add an image, or remove a {_MARK}"
    else:
        remedy = 'add `image`, or write "image": [] if the word itself is meant'
    raise ConversationError(f"{num_images} images but {num_marks} {_MARK}; {remedy}")
