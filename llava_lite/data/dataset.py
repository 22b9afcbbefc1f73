"""Visual instruction data: checked before the run starts, images read when a step needs them, nothing lost silently."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from llava_lite import distributed
from llava_lite.conversation.message import ConversationError
from llava_lite.data.chunks import cut, map_chunks
from llava_lite.data.mixture import DataConfig, Mixture
from llava_lite.data.plan import make_plan, measure
from llava_lite.data.records import SampleError
from llava_lite.data.sample import Sample
from llava_lite.example import Example
from llava_lite.images.loading import ImageError
from llava_lite.processor import Processor, ProcessorError

LEFT_OUT = "left_out.jsonl"
LINEAGE = "lineage.json"


@dataclass(frozen=True)
class LeftOut:
    """Something of the data that is not learnt from, and why; `why` names the record."""

    what: Literal["bad record", "too long", "cut at the end", "opening answer"]
    why: str


def longest_sample(config: DataConfig, processor: Processor, *, row_tokens: int) -> int:
    """Return how many tokens a sample may have: what the config says, but no more than a row and the model hold."""
    limits = (config.max_length, row_tokens, processor.max_positions)
    return min(limit for limit in limits if limit is not None)


class InstructionDataset:
    """The samples of a mixture that can be learnt from, each of at most `max_length` tokens.

    row_tokens: what a row holds; exact: measure all lengths now, because rows are packed across steps. Raises
    SampleError where the config lets bad or too long records end the run.
    """

    def __init__(
        self,
        config: DataConfig,
        processor: Processor,
        *,
        row_tokens: int,
        exact: bool = False,
    ) -> None:
        self.config = config
        self.processor = processor
        self.max_length = longest_sample(config, processor, row_tokens=row_tokens)
        self.mixture = Mixture(config)
        plan = make_plan(self.mixture, processor, limit=self.max_length, exact=exact)
        self._lengths = plan.lengths
        self.left_out = [LeftOut("opening answer", note) for note in plan.notes.values()]
        self._leave_out("bad record", plan.bad, config.on_bad_sample, "mend them, or set data.on_bad_sample=skip")
        self._shorten(np.flatnonzero(plan.lengths > self.max_length))
        self._entries = np.flatnonzero(self._lengths)
        if not len(self._entries):
            raise SampleError(f"no usable sample among {len(self.mixture)} records; {self._first_losses()}")
        if self.left_out:
            counts = Counter(loss.what for loss in self.left_out)
            told = ", ".join(f"{count} {what}" for what, count in counts.items())
            distributed.logger.warning("data: %s of %s records; see %s", told, len(self.mixture), LEFT_OUT)

    def __len__(self) -> int:
        return len(self._entries)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all that decides which samples there are, in which order."""
        contents = [source.content_hash for source in self.mixture.sources]
        digest = hashlib.sha256(f"{contents} {self.max_length}".encode())
        for part in (self.mixture.source_of, self.mixture.record_of, self._entries):
            digest.update(part.tobytes())
        return digest.hexdigest()

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every sample: int32 [n]."""
        return np.array([self.length(number) for number in range(len(self))], dtype=np.int32)

    def length(self, number: int) -> int:
        """Return a sample's length in tokens, measured now if it was not yet."""
        known = int(self._lengths[self._entries[number]])
        if known > 0:
            return known
        try:
            return measure(self.sample(number), self.processor)
        except SampleError:
            if self.config.on_bad_sample == "error":
                raise
            return -known  # it will fail when it is read, and be replaced by one no longer than this

    def name(self, number: int) -> str:
        """Return what messages call a sample."""
        return self.mixture.name(int(self._entries[number]))

    def sample(self, number: int) -> Sample:
        """Read one sample's record."""
        return self.mixture.sample(int(self._entries[number]))

    def example(self, number: int) -> tuple[str, Example]:
        """Encode one sample, opening its images; return its id as well. Raises SampleError that names it."""
        sample = self.sample(number)
        try:
            example = self.processor.encode(sample.conversation, self.max_length)
        except (ImageError, ConversationError, ProcessorError) as error:
            raise SampleError(f"{sample.name}: {error}") from None
        planned = int(self._lengths[self._entries[number]])
        if 0 < planned != len(example.input_ids):
            raise SampleError(
                f"{sample.name}: {len(example.input_ids)} tokens where {planned} were planned: its image has changed; "
                f"delete {self.config.cache_dir}"
            )
        return sample.id, example

    def write_lineage(self, folder: Path) -> None:
        """Write what the run learns from (lineage.json) and what it leaves out (left_out.jsonl)."""
        if not distributed.is_main():
            return
        folder.mkdir(parents=True, exist_ok=True)
        lineage = {
            "samples": len(self),
            "max_length": self.max_length,
            "left_out": Counter(loss.what for loss in self.left_out),
            "seed": self.config.seed,
            "sources": self.mixture.lineage(),
        }
        (folder / LINEAGE).write_text(json.dumps(lineage, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        lines = [json.dumps(asdict(loss), ensure_ascii=False) + "\n" for loss in self.left_out]
        (folder / LEFT_OUT).write_text("".join(lines), encoding="utf-8")

    def _leave_out(
        self, what: Literal["bad record", "too long"], why: dict[int, str], policy: str, remedy: str
    ) -> None:
        """End the run over these entries, or leave them out."""
        if policy == "error" and why:
            first, more = next(iter(why.values())), len(why) - 1
            rest = f"; and {more} more such records: {remedy}; `llava-lite doctor` lists them" if more else ""
            raise SampleError(first + rest)
        if what == "bad record" and len(why) > self.config.max_bad * len(self.mixture):
            share = f"{len(why)} of {len(self.mixture)} records cannot be used"
            raise SampleError(
                f"{share}, more than data.max_bad={self.config.max_bad:g}; the first: {next(iter(why.values()))}"
            )
        self.left_out += [LeftOut(what, reason) for reason in why.values()]
        self._lengths[list(why)] = 0

    def _shorten(self, entries: np.ndarray) -> None:
        """Apply `too_long`."""
        remedy = "raise batch.tokens (or data.max_length), shorten the record, or set data.too_long=truncate or skip"
        long = {}
        for entry in map(int, entries):
            long[entry] = f"{self.mixture.name(entry)}: {self._lengths[entry]} tokens do not fit in {self.max_length}"
        if self.config.too_long == "error":
            self._leave_out("too long", {e: f"{why}; {remedy}" for e, why in long.items()}, "error", remedy)
        if self.config.too_long == "skip":
            self._leave_out("too long", long, "skip", remedy)
        if self.config.too_long == "truncate":
            self._truncate(long)

    def _truncate(self, long: dict[int, str]) -> None:
        """Cut these entries at the end; leave out those that would have nothing left to learn."""
        chunks = cut(np.array(list(long), dtype=np.int64), size=32)
        done = chain.from_iterable(map_chunks(self._cut_lengths, chunks, "cutting long samples"))
        for entry, (length, fault) in zip(long, done, strict=True):
            self._lengths[entry] = length
            self.left_out.append(LeftOut("too long", fault) if fault else LeftOut("cut at the end", long[entry]))

    def _cut_lengths(self, entries: np.ndarray) -> list[tuple[int, str]]:
        """Return for each entry its length when cut, or 0 and why nothing is left of it."""
        lengths = list[tuple[int, str]]()
        for entry in map(int, entries):
            try:
                lengths.append((measure(self.mixture.sample(entry), self.processor, self.max_length), ""))
            except SampleError as error:
                lengths.append((0, str(error)))
        return lengths

    def _first_losses(self) -> str:
        return "; ".join(loss.why for loss in self.left_out[:3])
