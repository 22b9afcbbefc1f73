"""Steps of batches, made by worker processes ahead of time, in an order that does not depend on how many there are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from llava_lite import distributed
from llava_lite.config import Strict
from llava_lite.data.records import SampleError


class LoaderConfig(Strict):
    """How batches are prepared."""

    workers: int = Field(default=2, ge=0)
    """Processes that read images and tokenise; 0: in the main process. The batches are the same for any number."""


@dataclass(frozen=True)
class Failure:
    """A sample that could not be read while training, by its name, and what happened."""

    name: str
    why: str


@dataclass(frozen=True)
class Step:
    """What one rank does in one optimiser step, and what there is to count in it.

    num_targets: what the loss is summed over; tokens: how many there are of each sort; ids: the records, for messages;
    documents: the length of each sample; num_tiles, tile_size: of the images, without blank tiles, and their pixels;
    failed: samples that could not be read and were replaced
    """

    batches: Sequence[Mapping[str, torch.Tensor]]
    num_targets: int
    num_samples: int
    tokens: Mapping[str, int]
    ids: Sequence[str]
    documents: Sequence[int]
    num_tiles: int
    tile_size: int
    failed: Sequence[Failure] = ()


class StepSource(Protocol):
    """Makes any step on demand; steps are counted from 0."""

    @property
    def num_steps(self) -> int: ...

    def make(self, number: int) -> Step: ...


def read_steps(
    source: StepSource, start: int, config: LoaderConfig, failures: FailureLog | None = None
) -> Iterator[Step]:
    """Yield the steps from `start` to the end. A record's error is raised as it is, without a worker's traceback.

    failures: where replaced samples are listed, and their number is watched.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism
    if failures:
        failures.open(start)
    loader = DataLoader(
        _Steps(source),
        batch_size=None,
        sampler=range(start, source.num_steps),
        num_workers=config.workers,
        prefetch_factor=2 if config.workers else None,
        generator=torch.Generator(),  # else it draws a seed from the global one, and a resumed run is another
    )
    for number, item in enumerate(loader, start=start):
        if isinstance(item, SampleError):
            raise item
        if failures:
            failures.add(number, item.failed)
        yield item


class FailureLog:
    """Lists the samples that fail while training in `failed.jsonl`, and ends the run when they become too many.

    max_failed: how many different samples may, over all ranks and epochs
    """

    def __init__(self, folder: Path, max_failed: float) -> None:
        self.path = folder / "failed.jsonl"
        self.max_failed = max_failed
        self.names: set[str] = set()

    def open(self, start: int) -> None:
        """Keep what is listed of the steps before `start`: a resumed run does the others again."""
        if distributed.is_main() and self.path.is_file():
            listed = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
            kept = [line for line in listed if line["step"] <= start]
            self.names = {line["sample"] for line in kept}
            self._write(kept, "w")

    def add(self, step: int, failed: Sequence[Failure]) -> None:
        """Note what failed on any rank in a step, counted from 0. Raises SampleError when it is one too many."""
        everywhere = [failure for rank in distributed.gather(list(failed)) for failure in rank]
        if not everywhere:
            return
        self.names |= {failure.name for failure in everywhere}
        if distributed.is_main():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write([{"step": step + 1, "sample": f.name, "why": f.why} for f in everywhere], "a")
        if any(distributed.gather(len(self.names) > self.max_failed)):  # the main process knows of those before
            raise SampleError(
                f"more than {self.max_failed:g} samples failed while training, all that data.max_bad allows; "
                f"the last: {everywhere[-1].why}; all of them: {self.path}"
            )

    def _write(self, lines: Sequence[dict], mode: str) -> None:
        with self.path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


class _Steps(Dataset):
    def __init__(self, source: StepSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Step | SampleError:
        try:
            return self.source.make(number)
        except SampleError as error:
            return error
