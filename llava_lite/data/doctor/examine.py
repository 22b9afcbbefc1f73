"""Look at all records of some data, and at every image file once; tell every fault found, in the order of the records.

First the records, by all processors: structure, words, lengths. Then each image that any of them shows. Then what only
shows across records. What is kept of a record is one row of numbers, so memory stays flat.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.conversation.template import IMAGE_MARK
from llava_lite.data.chunks import cut, map_chunks
from llava_lite.data.doctor.compare import ROW, compare_records, find_in
from llava_lite.data.doctor.faults import FAULTS, Finding, Note
from llava_lite.data.doctor.held_out import HeldOut
from llava_lite.data.doctor.picture import Look, key_of, look_at
from llava_lite.data.doctor.record import Reading, inspect_record, questions
from llava_lite.data.doctor.words import inspect_words
from llava_lite.data.mixture import DataConfig, Source, SourceConfig, list_sources
from llava_lite.data.records import SampleError
from llava_lite.data.sample import read_sample, record_id
from llava_lite.images.loading import FileSlice, ImageError
from llava_lite.processor import Processor, ProcessorError

_SHOWN = np.dtype([("source", "i2"), ("number", "i8"), ("slot", "i2"), ("key", "u8")])
_FEW_RECORDS = 10
_MANY_ANSWERS = 50
_CONSTANT = 0.95


@dataclass(frozen=True)
class Rules:
    """What records are measured against.

    processor:  None: lengths are in characters, and nothing can be too long
    max_length: in tokens
    full:       whether all images are decoded
    """

    processor: Processor | None = None
    max_length: int = 4096
    full: bool = False


@dataclass
class Report:
    """All that was found.

    rows: one for each record that was read, fields as `ROW`; sources: their names, also of those that did not open
    """

    sources: list[str]
    rules: Rules
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, ROW))
    findings: list[Finding] = field(default_factory=list)
    num_images: int = 0
    seconds: float = 0.0

    def bad(self, strict: bool) -> list[Finding]:
        """Return what is wrong; strict: warnings as well."""
        return [finding for finding in self.findings if strict or finding.is_error]


@dataclass
class _Chunk:
    """What one call of a worker found: notes are (record, id, kind, detail)."""

    rows: np.ndarray
    shown: np.ndarray
    notes: list[tuple[int, str, str, str]]
    answers: Counter[str]


def examine(config: DataConfig, rules: Rules, evals: Sequence[Path] = ()) -> tuple[Report, dict[int, Source]]:
    """Look at all that a run with this config would take. evals: data whose images and questions should not be in it.

    Returns the report, and the sources that opened, by their place among all. Raises SampleError or ConfigError where
    there is nothing to look at: no such file, no such split, no such reader.
    """
    start = time.monotonic()
    held_out = HeldOut.read(evals, config.image_dir)
    report = Report([], rules)
    report.findings += held_out.findings
    sources: dict[int, Source] = {}
    rows, shown = [np.zeros(0, ROW)], [np.zeros(0, _SHOWN)]
    for number, source_config in enumerate(list_sources(config)):
        source = _open(source_config, report)
        if source is None:
            continue
        records = np.unique(source.taken(config.seed * 1_000_003 + number))
        found = _read_source(source, number, records, rules, held_out, report)
        rows.append(found.rows)
        shown.append(found.shown)
        sources[number] = source
    report.rows = np.concatenate(rows)
    _look_at_images(np.concatenate(shown), sources, report, held_out)
    report.findings += compare_records(report.rows, sources)
    order = {source: place for place, source in enumerate(report.sources)}
    report.findings.sort(key=lambda f: (order.get(f.source, -1), -1 if f.number is None else f.number))
    report.seconds = time.monotonic() - start
    return report, sources


def _open(config: SourceConfig, report: Report) -> Source | None:
    """Open a source, or tell what is wrong with its file. Raises SampleError where there is none."""
    try:
        source = Source(config.model_copy(update={"reader": None}))
    except SampleError as error:
        kind = _name_broken_file(config.path, error)
        if kind is None:
            raise
        report.sources.append(config.path.name)
        report.findings.append(Finding(kind, config.path.name, None, "", str(error).removeprefix(f"{config.path}: ")))
        return None
    if config.reader:  # one that is not there is no fault of the data
        source = Source(config)
    name = source.name
    while name in report.sources:  # two files of one name: say which
        name = f"{source.config.path.parent.name}/{name}" if "/" not in name else f"{name}'"
    source.name = name
    report.sources.append(name)
    return source


def _name_broken_file(path: Path, error: SampleError) -> str | None:
    """Say what is wrong with a data file that does not open; None if the file is not at fault."""
    if not path.exists():
        return None
    if path.is_dir() or path.suffix in (".tar", ".parquet", ".arrow"):
        return "broken-archive" if error.__context__ else None  # something went wrong inside: not a wrong split
    with path.open("rb") as file:
        head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read().rstrip()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "not-utf8"
    if not head or head.replace(b" ", b"") == b"[]":
        return "empty-file"
    if head.startswith(b"{"):
        return "not-a-list"
    return "truncated-file" if head.startswith(b"[") and not tail.endswith(b"]") else "broken-json"


def _read_source(
    source: Source, place: int, records: np.ndarray, rules: Rules, held_out: HeldOut, report: Report
) -> _Chunk:
    """Read the records of a source; its findings go into the report."""
    check = partial(_read_chunk, source, place, rules, held_out.talks)
    chunks = list(map_chunks(check, cut(records), f"reading {source.name}"))
    rows = np.concatenate([chunk.rows for chunk in chunks])
    answers: Counter[str] = Counter()
    for chunk in chunks:
        answers.update(chunk.answers)
    notes = [note for chunk in chunks for note in chunk.notes]
    if not rows["id"].any():  # a source without ids is one whose records are named by their number
        notes = [note for note in notes if note[2] != "missing-id"]
    report.findings += [Finding(kind, source.name, number, name, detail) for number, name, kind, detail in notes]
    report.findings += _judge_source(source.name, rows, answers)
    return _Chunk(rows, np.concatenate([chunk.shown for chunk in chunks]), [], answers)


def _judge_source(name: str, rows: np.ndarray, answers: Counter[str]) -> Iterator[Finding]:
    if len(rows) < _FEW_RECORDS:
        yield Finding("tiny-source", name, None, "", f"{len(rows)} records")
    total = int(rows["turns"].sum())
    for answer, count in answers.most_common(1):
        if total >= _MANY_ANSWERS and count >= _CONSTANT * total:
            yield Finding("constant-answers", name, None, "", f"{count} of {total} answers are {answer!r}")


def _read_chunk(source: Source, place: int, rules: Rules, talks: frozenset[int], records: Iterable[int]) -> _Chunk:
    rows, shown, notes = [], [], []
    answers: Counter[str] = Counter()
    special = _special_words(rules.processor)
    for number in map(int, records):
        try:
            record = source.record(number)
        except SampleError as error:
            notes.append((number, str(number), _name_broken_record(error), _last_part(error)))
            rows.append((place, number, *[0] * 8))
            continue
        name = record_id(record, number)
        reading = inspect_record(record, source.image_dir)
        own = list(reading.notes)
        own += inspect_words(reading.turns, shows_image=bool(reading.images), special=special)
        if record.get("id") is None:
            own.append(("missing-id", "has no id"))
        length, learnt = 0, 0
        if not any(FAULTS[kind].severity == "error" for kind, _ in own):
            length, learnt, problem = _measure(record, reading, source, number, rules)
            own += problem
        talk = key_of(*(f"{turn.role}\n{turn.text}" for turn in reading.turns)) if reading.turns else 0
        if talks and not reading.images and key_of(*questions(reading.turns)) in talks:
            own.append(("eval-overlap", "an evaluation asks the same, without an image"))
        keys = [image_key(image) for image in reading.images]
        shown += [(place, number, slot, key) for slot, key in enumerate(keys)]
        said = [turn.text for turn in reading.turns if turn.role == "assistant"]
        answers.update(text[:40] for text in said)
        id_key = key_of(name) if record.get("id") is not None else 0
        shown_key = key_of(*map(str, keys)) if keys else 0
        sizes = (sum(map(len, said)), sum(turn.role == "user" for turn in reading.turns), len(keys))
        rows.append((place, number, length, learnt, *sizes, id_key, talk, shown_key))
        notes += [(number, name, kind, detail) for kind, detail in own]
    top = Counter(dict(answers.most_common(3)))  # one that is nearly always said is among these in every chunk
    return _Chunk(np.array(rows, ROW), np.array(shown, _SHOWN), notes, top)


def _special_words(processor: Processor | None) -> re.Pattern[str] | None:
    """What spells one of the tokenizer's special tokens; `<image>` is judged by where it stands."""
    if processor is None:
        return None
    words = sorted({*processor.tokenizer.all_special_tokens} - {IMAGE_MARK, "<s>"}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")


def _name_broken_record(error: SampleError) -> str:
    """Say why a container could not hand a record out: by what went wrong underneath."""
    if error.__cause__ is not None:
        return "reader-failed"
    if isinstance(error.__context__, UnicodeDecodeError):
        return "not-utf8"
    return "not-an-object" if error.__context__ is None else "broken-json"


def _last_part(error: SampleError) -> str:
    return str(error).partition(": ")[2] or str(error)


def _measure(record: dict, reading: Reading, source: Source, number: int, rules: Rules) -> tuple[int, int, list[Note]]:
    """Return a record's length and how much of it is learnt, and what stands against it."""
    try:
        sample = read_sample(record, source=source.name, number=number, image_dir=source.image_dir)
    except SampleError as error:
        return 0, 0, [("refused", _last_part(error))]
    if rules.processor is None:
        learnt = sum(len(turn.text) for turn in reading.turns if turn.role == "assistant")
        return sum(len(turn.text) for turn in reading.turns), learnt, []
    if reading.images and rules.processor.transform is None:
        return 0, 0, [("no-vision-tower", f"{len(reading.images)} images")]
    return _count_tokens(sample.conversation, rules.processor, rules.max_length)


def _count_tokens(conversation: Conversation, processor: Processor, max_length: int) -> tuple[int, int, list[Note]]:
    try:
        length, learnt = processor.length(conversation)
        if length <= max_length:
            return length, learnt, []
        left = processor.length(conversation, max_length)[1]
    except ImageError:
        return 0, 0, []  # is told when its images are looked at
    except (ConversationError, ProcessorError) as error:
        return 0, 0, [("template-refuses", str(error))]
    if left == 0:
        return length, learnt, [("label-free", f"{length} tokens, and no answer within the first {max_length}")]
    return length, learnt, [("too-long", f"{length} tokens, at most {max_length}")]


def image_key(source: object) -> int:
    """Return a number for an image without opening it: for its place, or its content where the record holds it."""
    if isinstance(source, FileSlice):
        return key_of(str(source.path), str(source.offset))
    return key_of(source) if isinstance(source, bytes) else key_of(str(source))


def _look_at_images(shown: np.ndarray, sources: dict[int, Source], report: Report, held_out: HeldOut) -> None:
    """Look at every image once, and tell each record that shows it."""
    _, first, inverse = np.unique(shown["key"], return_index=True, return_inverse=True)
    first_of = np.sort(first)  # in the order of the records: the disk likes it
    place_of = np.empty(len(first), dtype=np.int64)
    place_of[np.argsort(first, kind="stable")] = np.arange(len(first))
    image_of = place_of[inverse]  # which image an entry of `shown` shows
    check = partial(_look_at_chunk, sources, report.rules.full, frozenset(held_out.sizes))
    looks = [look for chunk in map_chunks(check, cut(shown[first_of]), "looking at images") for look in chunk]
    report.num_images = len(looks)
    digests = np.array([look.digest for look in looks], dtype=np.uint64)
    seen: dict[int, int] = {}
    entries = np.argsort(image_of, kind="stable")
    bounds = np.searchsorted(image_of[entries], np.arange(len(looks) + 1))
    for number, (look, digest) in enumerate(zip(looks, digests.tolist(), strict=True)):
        earlier = seen.setdefault(digest, number) if digest else number
        twin = report.rules.full and earlier != number and look.named
        if not look.notes and not twin and digest not in held_out.images:
            continue
        for entry in shown[entries[bounds[number] : bounds[number + 1]]]:
            report.findings += _tell(entry, look, digest, sources, held_out)
        if twin:
            here, there = shown[first_of[number]], shown[first_of[earlier]]
            detail = f"{_image_name(here, sources)} has the content of {_image_name(there, sources)}"
            report.findings.append(find_in("duplicate-image", here, sources, detail))


def _look_at_chunk(sources: dict[int, Source], full: bool, sizes: frozenset[int], chunk: np.ndarray) -> list[Look]:
    looks = []
    for entry in chunk:
        source = sources[entry["source"]]
        image = inspect_record(source.record(int(entry["number"])), source.image_dir).images[entry["slot"]]
        looks.append(look_at(image, name_image(image, int(entry["slot"]), source), full=full, hash_sizes=sizes))
    return looks


def name_image(image: object, slot: int, source: Source) -> str:
    if not isinstance(image, Path):
        return f"image {slot + 1}"
    return str(image.relative_to(source.image_dir)) if image.is_relative_to(source.image_dir) else str(image)


def _image_name(entry: np.void, sources: dict[int, Source]) -> str:
    source = sources[entry["source"]]
    images = inspect_record(source.record(int(entry["number"])), source.image_dir).images
    return name_image(images[entry["slot"]], int(entry["slot"]), source)


def _tell(entry: np.void, look: Look, digest: int, sources: dict[int, Source], held_out: HeldOut) -> Iterator[Finding]:
    """Tell a record what was seen of an image it shows."""
    for kind, detail in look.notes:
        yield find_in(kind, entry, sources, detail)
    if digest in held_out.images:
        source = sources[entry["source"]]
        reading = inspect_record(source.record(int(entry["number"])), source.image_dir)
        same = held_out.images[digest] & {key_of(asked) for asked in questions(reading.turns)}
        kind = "eval-overlap" if same else "eval-image"
        what = "image and question" if same else "image"
        yield find_in(kind, entry, sources, f"an evaluation has this {what}: {_image_name(entry, sources)}")


def dump_record(record: dict) -> str:
    """Write a record as JSON; an image that the container holds becomes a data: URI."""
    return json.dumps(record, ensure_ascii=False, default=_write_image)


def _write_image(value: object) -> str:
    import base64

    if isinstance(value, FileSlice):
        with value.path.open("rb") as file:
            file.seek(value.offset)
            value = file.read(value.size)
    if not isinstance(value, bytes):
        raise SampleError(f"a record holds {type(value).__name__}, which JSON cannot; leave that field out")
    return f"data:;base64,{base64.b64encode(value).decode()}"
