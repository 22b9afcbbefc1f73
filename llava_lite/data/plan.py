"""Check every record before the first step, and measure what has to be measured.

A record that is sure to fit (its characters and its largest images already do) is not tokenised now: a step knows its
own samples' lengths in time. So a run over 665,000 records begins at once; where rows are packed across steps, all
are measured. Both are done by all processors, and remembered by content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from zipfile import BadZipFile

import numpy as np

from llava_lite import distributed
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.data.chunks import cut, is_small, map_chunks
from llava_lite.data.mixture import Mixture, Source
from llava_lite.data.records import SampleError
from llava_lite.data.sample import Sample
from llava_lite.images.loading import ImageError
from llava_lite.processor import Processor, ProcessorError

_FORMAT = 1  # of the remembered files; raise it when what is measured changes
_SPOTS = 256


@dataclass(frozen=True)
class Plan:
    """What is known of each entry of a mixture.

    lengths: int32 [n], tokens; negative where the length is only known to be at most that many; 0: cannot be used
    bad:     why entries cannot be used
    notes:   what reading left out of entries on purpose
    """

    lengths: np.ndarray
    bad: dict[int, str]
    notes: dict[int, str]


def make_plan(mixture: Mixture, processor: Processor, *, limit: int, exact: bool) -> Plan:
    """Check every entry. exact: measure all lengths, not only those that may exceed `limit`.

    Of several processes on a machine one does the work, and the others read what it remembered.
    """
    plan = Plan(np.zeros(len(mixture), dtype=np.int32), {}, {})
    for number, source in enumerate(mixture.sources):
        entries = np.flatnonzero(mixture.source_of == number)
        records, place = np.unique(mixture.record_of[entries], return_inverse=True)
        found = _survey(source, records, processor, limit, exact, mixture.config.cache_dir.expanduser())
        plan.lengths[entries] = found.lengths[place]
        for told, words in ((plan.bad, found.bad), (plan.notes, found.notes)):
            if words:
                told.update(
                    (int(entry), words[p]) for entry, p in zip(entries, place.tolist(), strict=True) if p in words
                )
    return plan


def measure(sample: Sample, processor: Processor, max_length: int | None = None) -> int:
    """Return a sample's length in tokens, cut off at max_length.

    Raises SampleError if it cannot be written, or if nothing to learn is left of it.
    """
    try:
        if max_length is None:
            return processor.num_tokens(sample.conversation)  # it ends with an answer, so it has something to learn
        length, num_learnt = processor.length(sample.conversation, max_length)
    except (ConversationError, ImageError, ProcessorError) as error:
        raise SampleError(f"{sample.name}: {error}") from None
    if num_learnt == 0:
        raise SampleError(f"{sample.name}: its first {max_length} tokens hold none to learn")
    return length


def near_file(path: Path) -> Path | None:
    """Return the file that a path that is not there was probably meant to be: another suffix, or other capitals."""
    if not path.parent.is_dir():
        return None
    folder = _files_by_stem(path.parent, path.parent.stat().st_mtime_ns)
    near = [path.with_name(name) for name in folder.get(path.stem.lower(), ())]
    return min(near, key=lambda other: (other.name.lower() != path.name.lower(), other.name), default=None)


@lru_cache(maxsize=4)
def _files_by_stem(folder: Path, mtime_ns: int) -> dict[str, list[str]]:
    """Names of a folder's files by their lower-case stem: a folder of many files is listed once for all it lacks."""
    names: dict[str, list[str]] = {}
    for entry in os.scandir(folder):
        if entry.is_file():
            names.setdefault(Path(entry.name).stem.lower(), []).append(entry.name)
    return names


def _survey(
    source: Source, records: np.ndarray, processor: Processor, limit: int, exact: bool, cache_dir: Path
) -> Plan:
    """Check the records of one source; the keys of the result count along `records`."""
    memory = cache_dir / f"{_key(source, records, processor)}.npz" if not is_small(len(records)) else None
    if memory and int(os.environ.get("LOCAL_RANK", "0")):
        distributed.barrier()  # the first process of this machine is at work on it
    plan = _remember(memory, len(records))
    known = plan.lengths
    if known.any() and _has_changed(source, processor, records[known != 0]):
        known[:] = 0
    todo = np.flatnonzero((known == 0) | ((known < 0) & (exact | (-known > limit))))
    check = partial(_check_chunk, source, processor, limit, exact)
    chunks = cut(todo)
    done = map_chunks(check, [records[chunk] for chunk in chunks], f"checking {source.name}", alone=True)
    for chunk, (lengths, bad, notes) in zip(chunks, done, strict=True):
        known[chunk] = lengths
        plan.bad.update((int(chunk[at]), why) for at, why in bad)
        plan.notes.update((int(chunk[at]), what) for at, what in notes)
    if memory and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        if len(chunks):
            _memorise(memory, plan)
        distributed.barrier()
    return plan


def _has_changed(source: Source, processor: Processor, good: np.ndarray) -> bool:
    """Whether images that an earlier run saw are gone, as far as records here and there can tell: a folder that is not
    mounted, most of all."""
    places = np.linspace(0, len(good) - 1, min(len(good), _SPOTS)).astype(int)
    _, bad, _ = _check_chunk(source, processor, 2**31 - 1, False, good[places])
    return bool(bad)


def _memorise(memory: Path, plan: Plan) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=memory.parent, suffix=".draft", delete=False) as file:
            np.savez(file, lengths=plan.lengths, notes=np.array(json.dumps(plan.notes)))
        Path(file.name).replace(memory)
    except OSError as error:
        raise SampleError(
            f"data.cache_dir={memory.parent}: cannot be written ({error.strerror}); set another"
        ) from None


def _remember(memory: Path | None, num_records: int) -> Plan:
    """Read what an earlier run measured. What was bad is looked at again: it may have been mended."""
    nothing = Plan(np.zeros(num_records, dtype=np.int32), {}, {})
    if memory is None or not memory.is_file():
        return nothing
    try:
        with np.load(memory) as file:
            lengths, notes = file["lengths"], json.loads(str(file["notes"]))
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):  # cut off while it was written: measured anew
        return nothing
    if lengths.shape != (num_records,):
        return nothing
    return Plan(lengths, {}, {int(place): note for place, note in notes.items()})


def _key(source: Source, records: np.ndarray, processor: Processor) -> str:
    digest = hashlib.sha256(records.tobytes())
    for part in (_FORMAT, source.content_hash, source.image_dir.absolute(), processor.fingerprint):
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()


def _check_chunk(source: Source, processor: Processor, limit: int, exact: bool, records: Iterable[int]) -> tuple:
    """Return lengths, and (place, why bad), (place, what was left out) of the records of a chunk."""
    lengths, bad, notes = [], [], []
    for place, number in enumerate(records):
        try:
            sample = source.sample(int(number))
            lengths.append(_check(sample, source, processor, limit, exact))
            notes += [(place, f"{sample.name}: {note}") for note in sample.notes]
        except SampleError as error:
            lengths.append(0)
            bad.append((place, str(error)))
    return np.array(lengths, dtype=np.int32), bad, notes


def _check(sample: Sample, source: Source, processor: Processor, limit: int, exact: bool) -> int:
    """Return a sample's length as `Plan.lengths` has it. Raises SampleError."""
    images = sample.conversation.images
    for image in images:
        path = image.source
        if isinstance(path, Path) and not os.path.isfile(path):  # unlike Path.is_file, False for names that cannot be
            near = near_file(path)
            remedy = f"there is {near.name}" if near else f"check data.image_dir={source.image_dir}"
            raise SampleError(f"{sample.name}: no image file {path}; {remedy}")
    if images and processor.transform is None:
        raise SampleError(f"{sample.name}: has an image, but the model has no vision tower; set model.vision_tower")
    if not exact and (bound := _bound(sample.conversation, processor)) <= limit:
        return -bound
    return measure(sample, processor)


def _bound(conversation: Conversation, processor: Processor) -> int:
    try:
        return processor.bound(conversation)
    except (ConversationError, ImageError, ProcessorError):
        return 2**31 - 1  # `measure` says what is wrong with it
