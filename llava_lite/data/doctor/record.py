"""The structure of one raw record: every fault of its fields, roles and placeholders, where reading stops at the first.

What this accepts, `data.sample.read_sample` accepts too, and the other way round; the tests hold them together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from llava_lite.conversation.message import ConversationError
from llava_lite.conversation.template import IMAGE_MARK
from llava_lite.data.doctor.faults import Note
from llava_lite.data.sample import ROLES, place_image
from llava_lite.images.loading import FileSlice

_NEARLY = re.compile(
    r"<\s*/?\s*im(?:ag|g)e?s?[ _-]*(?:\d+|here|placeholder)?\s*/?\s*>|<\|image(?:_pad)?\|>|\[image\]", re.IGNORECASE
)


class Turn(NamedTuple):
    """role: user, assistant or system; text: its words, without the placeholders; number: counted from 1."""

    role: str
    text: str
    number: int
    num_images: int


@dataclass
class Reading:
    """A record as far as it can be read: what is wrong with it, its turns, and the images that can be looked for."""

    notes: list[Note] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    images: list[object] = field(default_factory=list)

    def say(self, kind: str, detail: str) -> None:
        self.notes.append((kind, detail))


def inspect_record(record: dict, image_dir: Path) -> Reading:
    """Read a record, whatever is wrong with it."""
    reading = Reading()
    num_own = _read_own_images(record, image_dir, reading)
    turns = _find_turns(record, reading)
    spelled = any(record.get(name) == [] for name in ("image", "images"))
    num_marks, near = 0, ""
    known = len(reading.notes)
    for number, turn in enumerate(turns, start=1):
        marks, found = _read_turn(turn, number, spelled, image_dir, reading)
        num_marks, near = num_marks + marks, near or found
    if len(reading.notes) > known or not turns:
        return reading  # without all turns, neither their order nor their placeholders can be judged
    _check_order(reading)
    _check_answers(reading, spelled)
    if num_own is not None:
        _check_counts(num_own, num_marks, near, reading)
    return reading


def _find_turns(record: dict, reading: Reading) -> list:
    if record.get("video") is not None:
        reading.say("video", f"has a `video`: {str(record['video'])[:60]}")
        return []
    found = [name for name in ("conversations", "messages") if record.get(name) is not None]
    if len(found) == 2:
        reading.say("both-formats", "has both `conversations` and `messages`")
        return []
    if not found or record[found[0]] == []:
        reading.say("no-turns", f"fields: {', '.join(map(str, record)) or 'none'}"[:80])
        return []
    turns = record[found[0]]
    if not isinstance(turns, list):
        reading.say("turns-not-a-list", f"`{found[0]}` is {type(turns).__name__}")
        return []
    return turns


def _read_own_images(record: dict, image_dir: Path, reading: Reading) -> int | None:
    """Read `image` or `images`; return how many there are, or None where that cannot be said."""
    found = [name for name in ("image", "images") if record.get(name) is not None]
    if len(found) == 2:
        reading.say("image-field", "has both `image` and `images`")
        return None
    if not found:
        return 0
    value = record[found[0]]
    sources = value if isinstance(value, list) else [value]
    wrong = [source for source in sources if not isinstance(source, str | bytes | FileSlice)]
    if wrong:
        reading.say("image-field", f"`{found[0]}` holds {type(wrong[0]).__name__}")
        return None
    if not all(sources):
        reading.say("empty-image-path", f"`{found[0]}` is empty")
        return None
    for source in sources:
        _take_image(source, image_dir, reading)
    if len({source for source in sources if isinstance(source, str)}) < sum(isinstance(s, str) for s in sources):
        reading.say("image-twice", f"`{found[0]}` names the same picture twice")
    return len(sources)


def _take_image(source: object, image_dir: Path, reading: Reading) -> None:
    if not isinstance(source, str) or source.startswith("data:"):
        reading.images.append(source)
        return
    path = source
    if source.startswith("file:"):
        path = unquote(urlsplit(source).path)
    elif "://" in source:
        reading.say("image-address", source[:120])
        return
    try:
        reading.images.append(place_image(path, image_dir))
    except ConversationError:
        reading.say("path-outside", source[:120])
        return
    if path.startswith("/"):
        reading.say("absolute-path", source[:120])


def _read_turn(turn: object, number: int, spelled: bool, image_dir: Path, reading: Reading) -> tuple[int, str]:
    """Read one turn; return how many of the record's images it takes, and what is nearly a placeholder in it."""
    if not isinstance(turn, dict):
        reading.say("turn-not-an-object", f"turn {number} is {type(turn).__name__}")
        return 0, ""
    name = turn.get("from", turn.get("role"))
    if str(name) not in ROLES:
        reading.say("unknown-role", f"turn {number}: {name!r}")
        return 0, ""
    role = ROLES[str(name)]
    content = turn.get("value", turn.get("content"))
    if content is None:
        reading.say("missing-text", f"turn {number} ({name}) has no text")
        return 0, ""
    if isinstance(content, list):
        return _read_parts(content, role, number, image_dir, reading)
    if not isinstance(content, str):
        reading.say("text-not-a-string", f"turn {number} ({name}) is {type(content).__name__}")
        return 0, ""
    if role != "user" or spelled:
        reading.turns.append(Turn(role, content, number, 0))
        return 0, ""
    words = content.split(IMAGE_MARK)
    near = _NEARLY.search(" ".join(words))
    reading.turns.append(Turn(role, "".join(words), number, len(words) - 1))
    return len(words) - 1, near[0] if near else ""


def _read_parts(content: list, role: str, number: int, image_dir: Path, reading: Reading) -> tuple[int, str]:
    """Read a turn that is a list of parts, as OpenAI writes it."""
    texts, num_marks, num_images = [], 0, 0
    for part in content:
        if isinstance(part, str) and role != "user":
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(part.get("text"), str) and (kind == "text" or role != "user"):
            texts.append(part["text"])
        elif kind in ("image_url", "image") and role == "user":
            source = part.get(kind)
            source = source.get("url") if isinstance(source, dict) else source
            num_images += 1
            if source is None and kind == "image":
                num_marks += 1
            elif isinstance(source, str | bytes | FileSlice) and source:
                _take_image(source, image_dir, reading)
            else:
                reading.say("empty-image-path", f"turn {number}: an {kind} part without its address")
        else:
            what = f"{kind} part" if kind else type(part).__name__
            reading.say("unknown-part", f"turn {number} ({role}) holds a part that is no text: {what}")
    reading.turns.append(Turn(role, "".join(texts), number, num_images))
    return num_marks, ""


def _check_order(reading: Reading) -> None:
    turns = reading.turns
    late = [turn for turn in turns if turn.role == "system" and turn.number > 1]
    if late:
        reading.say("system-not-first", f"turn {late[0].number} is the system's")
        return
    said = [turn for turn in turns if turn.role != "system"]
    first = next((place for place, turn in enumerate(said) if turn.role == "user"), None)
    if first is None:
        reading.say("no-question", "no human turn")
        return
    if first:
        reading.say("begins-with-answer", f"turn {said[0].number} answers nothing: {short(said[0].text)}")
    for before, turn in zip(said[first:], said[first + 1 :], strict=False):
        if before.role == turn.role:
            reading.say("roles-not-alternating", f"turns {before.number} and {turn.number} are both the {turn.role}'s")
            return
    if said[-1].role == "user":
        reading.say("no-answer", f"turn {said[-1].number} has no answer: {short(said[-1].text)}")


def _check_answers(reading: Reading, spelled: bool) -> None:
    asked = False
    for turn in reading.turns:
        asked = asked or turn.role == "user"
        if turn.role != "assistant":
            continue
        if asked and not turn.text:
            reading.say("empty-answer", f"turn {turn.number}")
        elif asked and not turn.text.strip():
            reading.say("blank-answer", f"turn {turn.number}: {turn.text!r}"[:80])
        if IMAGE_MARK in turn.text and not spelled:
            reading.say("placeholder-in-answer", f"turn {turn.number}: {short(turn.text)}")


def _check_counts(num_images: int, num_marks: int, near: str, reading: Reading) -> None:
    told = f"{num_images} image{'' if num_images == 1 else 's'}, {num_marks} {IMAGE_MARK}"
    if num_images > num_marks and near:
        reading.say("misspelled-placeholder", f"{told}, but there is {near}")
    elif num_images > num_marks:
        reading.say("image-without-placeholder", told)
    elif num_images < num_marks:
        reading.say("placeholder-without-image", told)


def questions(turns: list[Turn]) -> Iterator[str]:
    """Yield what was asked, spelled so that two spellings of a question are equal."""
    for turn in turns:
        if turn.role == "user":
            yield " ".join(turn.text.split()).lower()


def short(text: str, width: int = 50) -> str:
    """Return a text in one line of at most `width` letters."""
    line = " ".join(text.split())
    return repr(line if len(line) <= width else f"{line[: width - 3]}...")
