"""The words of a record: damage, leftovers of other programs, and answers that teach the wrong thing.

Each kind is told once a record, with the turn it was first seen in. What people write about (code, HTML, equations) is
no fault: markup is looked for outside of code only, and tags, boxes and refusals only where an image is shown.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from llava_lite.data.doctor.faults import Note
from llava_lite.data.doctor.record import Turn, short

# UTF-8 read as Latin-1 or Windows-1252: a first byte of two or three, and what the next byte looks like
_MOJIBAKE = re.compile("Ã[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽœžŸ™š›]|Â[\u0080-\u00bf]|â€|ï¿½|ï»¿")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPECIAL = re.compile(
    r"</s>|<unk>|<pad>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|<\|(?:im_(?:start|end)|endoftext|eot_id|(?:begin|end)_of_text|user|assistant|system|end)\|>"
)
_TEMPLATE = re.compile(
    r"\b(?:USER|ASSISTANT): |###\s?(?:Human|Assistant|Instruction|Response):|^(?:Human|Assistant): ", re.MULTILINE
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
_TAG = re.compile(r"</?(?:p|br|div|span|b|i|u|a|em|strong|font|table|t[rdh]|ul|ol|li|h[1-6])(?:\s[^<>]*)?/?>", re.I)
_ESCAPED = re.compile(r"\\[nt](?![a-z])|\\u[0-9a-fA-F]{4}")
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_REFUSAL = re.compile(
    r"\bas an ai\b[^.]{0,80}\b(?:can ?not|can't|unable|don't)\b"
    r"|\b(?:i(?: am|'m)? (?:can ?not|can't|unable to)) (?:see|view|access)"
    r" (?:the |any |this |your )?(?:image|picture|photo)"
    r"|\bi (?:don't|do not) see (?:an|any) (?:image|picture|photo)",
    re.IGNORECASE,
)
_BRIEF = re.compile(r"single word or phrase|option's letter from the given choices", re.IGNORECASE)
_MANY_WORDS = 15


def inspect_words(turns: list[Turn], *, shows_image: bool, special: re.Pattern[str] | None = None) -> Iterator[Note]:
    """Yield what is wrong with the words of a record's turns. special: what spells the model's own special tokens."""
    told: set[str] = set()
    for turn in turns:
        for kind, what in _inspect_turn(turn, shows_image, special):
            if kind not in told:
                told.add(kind)
                yield kind, f"turn {turn.number}: {what}"
    for kind, what in _inspect_pairs(turns):
        if kind not in told:
            told.add(kind)
            yield kind, what


def _inspect_turn(turn: Turn, shows_image: bool, special: re.Pattern[str] | None) -> Iterator[Note]:
    text = turn.text
    if not text.isascii():
        yield from _inspect_letters(text)
    if found := _CONTROL.search(text):
        yield "control-character", f"{found[0]!r} in {_around(text, found)}"
    if found := _SPECIAL.search(text) or (special.search(text) if special else None):
        yield "special-token", f"{found[0]} in {_around(text, found)}"
    if ":" in text and (found := _TEMPLATE.search(text)):
        yield "template-text", f"{found[0].strip()} in {_around(text, found)}"
    yield from _inspect_markup(text, shows_image)
    if shows_image and "[" in text:
        yield from _inspect_boxes(text)
    if turn.role == "assistant":
        if shows_image and (found := _REFUSAL.search(text)):
            yield "refusal", _around(text, found)
        if _loops(text):
            yield "repetition", short(text)


def _inspect_letters(text: str) -> Iterator[Note]:
    if "\ufffd" in text:
        yield "replacement-character", f"\ufffd in {_around(text, re.search(chr(0xFFFD), text))}"
    if "\ufeff" in text:
        yield "byte-order-mark", "an invisible U+FEFF"
    if found := _SURROGATE.search(text):
        yield "lone-surrogate", f"U+{ord(found[0]):04X} after {text[max(0, found.start() - 20) : found.start()]!r}"
    if found := _MOJIBAKE.search(text):
        yield "mojibake", f"{found[0]} in {_around(text, found)}"


def _inspect_markup(text: str, shows_image: bool) -> Iterator[Note]:
    if "&" in text or (shows_image and "<" in text):
        prose = _CODE.sub(" ", text)
        if found := _ENTITY.search(prose):
            yield "html-entity", f"{found[0]} in {_around(prose, found)}"
        if shows_image and (found := _TAG.search(prose)):
            yield "html-tag", f"{found[0]} in {_around(prose, found)}"
    if shows_image and "\\" in text and (found := _ESCAPED.search(_CODE.sub(" ", text))):
        yield "escaped-text", f"{found[0]} in {short(text)}"


def _inspect_boxes(text: str) -> Iterator[Note]:
    for found in _BOX.finditer(text):
        x1, y1, x2, y2 = map(float, found.groups())
        if min(x1, y1, x2, y2) < 0 or max(x1, y1, x2, y2) > 1:
            yield "box-out-of-range", found[0]
        elif x1 > x2 or y1 > y2:
            yield "box-reversed", found[0]


def _inspect_pairs(turns: list[Turn]) -> Iterator[Note]:
    asked = ""
    for turn in turns:
        if turn.role == "user":
            asked = turn.text
            if not asked.strip() and not turn.num_images:
                yield "empty-question", f"turn {turn.number}"
        elif turn.role == "assistant" and asked:
            if len(asked.strip()) >= 8 and turn.text.strip() == asked.strip():
                yield "answer-repeats-question", f"turn {turn.number}: {short(asked)}"
            if _BRIEF.search(asked) and turn.text.count(" ") >= _MANY_WORDS:
                yield "answer-ignores-format", f"turn {turn.number}: asked to be brief: {short(turn.text)}"


def _loops(text: str) -> bool:
    """Whether a text says the same over and over: it then shrinks to next to nothing. Prose shrinks by half."""
    if len(text) < 60:
        return False
    data = text.encode("utf-8", "replace")
    return len(zlib.compress(data, 1)) < 20 + len(data) // 12


def _around(text: str, found: re.Match[str] | None) -> str:
    assert found is not None
    return short(text[max(0, found.start() - 15) : found.end() + 15], 60)
