"""The table of faults: what can be wrong with visual instruction data, how bad it is, and what to do about it.

error:   training would refuse the record or learn something wrong from it
warning: training takes it, but it is probably not what you want

Numbers never change their meaning: 1xx files, 2xx records, 3xx words, 4xx images, 5xx lengths (with a model),
6xx what only shows across records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
Note = tuple[str, str]  # the name of a fault, and what is wrong in this very record


@dataclass(frozen=True)
class Fault:
    """One kind of fault; `remedy` completes the sentence "to mend it, ..."."""

    number: int
    name: str
    severity: Severity
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault found: in which source, in which record (None: in the file as a whole), and what exactly."""

    kind: str
    source: str
    number: int | None
    id: str
    detail: str

    @property
    def is_error(self) -> bool:
        return FAULTS[self.kind].severity == "error"


def _table(severity: Severity, *rows: tuple[int, str, str]) -> dict[str, Fault]:
    return {name: Fault(number, name, severity, remedy) for number, name, remedy in rows}


_ERRORS = _table(
    "error",
    (101, "empty-file", "write records into it, or leave the file out"),
    (102, "truncated-file", "copy or download it again"),
    (103, "broken-json", "write it with a JSON library; mend the place named"),
    (104, "not-a-list", "write a list of records, or one a line and name it .jsonl"),
    (105, "not-utf8", "save it as UTF-8"),
    (106, "broken-archive", "copy or download the parquet, arrow or tar file again"),
    (107, "not-an-object", "write each record as an object with its fields"),
    (108, "reader-failed", "mend your reader for this record"),
    (201, "no-turns", "give it `conversations` (or `messages`), or name a reader"),
    (202, "turns-not-a-list", "write the turns as a list"),
    (203, "both-formats", "leave either `conversations` or `messages`"),
    (204, "video", "give frames as images, or drop the record"),
    (205, "turn-not-an-object", 'write a turn as {"from": ..., "value": ...}'),
    (206, "unknown-role", "use human and gpt (or user and assistant), or system"),
    (207, "missing-text", "give the turn a `value` (or `content`)"),
    (208, "text-not-a-string", "write the text as a string"),
    (209, "unknown-part", "write parts as text or image_url"),
    (210, "roles-not-alternating", "let question and answer take turns; join or drop turns"),
    (211, "no-answer", "add the last answer, or drop the question"),
    (213, "no-question", "begin with a human turn"),
    (214, "system-not-first", "put the system turn first"),
    (216, "empty-answer", "write the answer, or drop the turns"),
    (217, "blank-answer", "write the answer, or drop the turns"),
    (219, "image-without-placeholder", "add <image> to a human turn, or remove the image"),
    (220, "placeholder-without-image", 'add the image, remove <image>, or write "image": [] if the word is meant'),
    (221, "placeholder-in-answer", "move <image> into a human turn"),
    (222, "misspelled-placeholder", "write it exactly as <image>"),
    (223, "image-field", "write `image` as a path or a list of paths"),
    (224, "empty-image-path", "write the path, or leave `image` out for text only"),
    (225, "image-address", "download the image and give its path"),
    (226, "path-outside", "give a path below the images folder"),
    (229, "refused", "see the reason"),
    (303, "lone-surrogate", "remove the half character; it was cut out of an emoji"),
    (401, "missing-image", "put the file there, or drop the record"),
    (402, "misnamed-image", "write the name that exists"),
    (403, "backslash-path", "write / between folders"),
    (404, "unreadable-image", "let your user read the file"),
    (405, "empty-image", "copy or download it again"),
    (406, "truncated-image", "copy or download it again"),
    (407, "broken-image", "replace the file, or drop the record"),
    (408, "not-an-image", "replace the file, or drop the record"),
    (409, "web-page-as-image", "download again: an error page was saved in its place"),
    (410, "unsupported-format", "convert it to JPEG or PNG"),
    (411, "image-too-large", "save it smaller"),
    (412, "image-too-narrow", "cut it, or drop the record"),
    (413, "image-too-many-bytes", "save it smaller"),
    (414, "float-image", "save it with 8 bits a channel"),
    (415, "bad-data-uri", "write data:image/png;base64,..."),
    (501, "too-long", "shorten it, raise batch.tokens, or set data.too_long"),
    (502, "label-free", "shorten what stands before the first answer"),
    (503, "no-vision-tower", "take a model with a vision tower, or drop the images"),
    (504, "template-refuses", "choose another template, or mend the record"),
    (601, "eval-overlap", "drop it: the evaluation asks the same"),
)
_WARNINGS = _table(
    "warning",
    (212, "begins-with-answer", "nothing: training leaves this answer out; or drop the turn"),
    (215, "empty-question", "write the question"),
    (218, "answer-repeats-question", "write the answer"),
    (227, "absolute-path", "give a path below the images folder, for other machines"),
    (228, "missing-id", "give it an id; messages name it"),
    (230, "image-twice", "remove one, unless two equal pictures are meant"),
    (301, "replacement-character", "decode the source as what it is; letters are lost"),
    (302, "mojibake", "read the source as UTF-8, not as Latin-1"),
    (304, "control-character", "remove it"),
    (305, "byte-order-mark", "remove it"),
    (306, "special-token", "remove it; here it is learnt as plain text"),
    (307, "html-entity", "unescape the text (html.unescape)"),
    (308, "html-tag", "take the tags out"),
    (309, "template-text", "keep the words alone; the template adds the rest"),
    (310, "escaped-text", "decode it; \\n is two characters here, no new line"),
    (311, "repetition", "drop it; the answer runs in a loop"),
    (312, "box-out-of-range", "write boxes as shares of the picture, 0 to 1"),
    (313, "box-reversed", "write [x1, y1, x2, y2] with x1 < x2 and y1 < y2"),
    (314, "refusal", "drop it; it teaches the model that it cannot see"),
    (315, "answer-ignores-format", "shorten the answer, or drop the instruction"),
    (416, "suffix-disagrees", "nothing: the content counts; other programs may stumble"),
    (417, "transparent-image", "nothing: colours below the transparency show; or flatten it"),
    (418, "cmyk-image", "convert to sRGB; colours are converted without a profile"),
    (419, "deep-image", "nothing: its greys are scaled to 8 bits; or save it with 8"),
    (420, "rotated-image", "nothing: shown as stored, as LLaVA does; or turn the pixels"),
    (421, "animated-image", "nothing: the first frame is shown"),
    (422, "tiny-image", "drop it; there is nothing to see"),
    (423, "blank-image", "drop it; it has one colour only"),
    (602, "eval-image", "drop it if the evaluation should see new images only"),
    (603, "eval-image-missing", "say where: --images, or beside the evaluation's file"),
    (604, "duplicate-id", "give each its own id"),
    (605, "duplicate-record", "drop it, or say `repeat` in a mixture if it is meant"),
    (606, "copied-answer", "check it: another image has this long answer word for word"),
    (607, "duplicate-image", "nothing if meant: two names for one picture"),
    (608, "constant-answers", "add other answers; a model learns to say this without looking"),
    (609, "tiny-source", "check that the file is whole"),
)
FAULTS: dict[str, Fault] = {**_ERRORS, **_WARNINGS}
