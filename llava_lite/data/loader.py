"""Steps of batches, made by worker processes ahead of time, in an order that does not depend on how many there are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from llava_lite import distributed
from llava_lite.config import Strict
from llava_lite.data.records import SampleError


class LoaderConfig(Strict):
    """How batches are prepared."""

    workers: int = 2
    """Processes that read images and tokenise; 0: in the main process. The batches are the same for any number."""


@dataclass(frozen=True)
class Step:
    """What one rank does in one optimiser step, and what there is to count in it.

    num_targets: what the loss is summed over; tokens: how many there are of each sort; ids: the records, for messages;
    failed: records that could not be read and were replaced, each with its reason
    """

    batches: Sequence[Mapping[str, torch.Tensor]]
    num_targets: int
    num_samples: int
    tokens: Mapping[str, int]
    ids: Sequence[str]
    failed: Sequence[str] = ()


class StepSource(Protocol):
    """Makes any step on demand; steps are counted from 0."""

    @property
    def num_steps(self) -> int: ...

    def make(self, number: int) -> Step: ...


def read_steps(
    source: StepSource, start: int, config: LoaderConfig, failures: FailureLog | None = None
) -> Iterator[Step]:
    """Yield the steps from `start` to the end. A record's error is raised as it is, without a worker's traceback.

    failures: where replaced records are listed, and their number is watched.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism
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
        if failures and item.failed:
            failures.add(number, item.failed)
        yield item


class FailureLog:
    """Lists the records that failed while training in `failed.jsonl`, and ends the run when there are too many.

    Each process has its own list and its share of `max_failed`, the number allowed over all.
    """

    def __init__(self, folder: Path, max_failed: float) -> None:
        rank = distributed.rank()
        self.path = folder / (f"failed.{rank}.jsonl" if rank else "failed.jsonl")
        self.max_failed = max_failed / distributed.world_size()
        self.num_failed = 0

    def add(self, step: int, failed: Sequence[str]) -> None:
        """Note what failed in a step, counted from 0. Raises SampleError when it is one too many."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step + 1, "why": why}, ensure_ascii=False) + "\n" for why in failed)
        self.num_failed += len(failed)
        if self.num_failed > self.max_failed:
            raise SampleError(
                f"{self.num_failed} records failed while training, more than data.max_bad allows; "
                f"the last: {failed[-1]}; all of them: {self.path}"
            )


class _Steps(Dataset):
    def __init__(self, source: StepSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Step | SampleError:
        try:
            return self.source.make(number)
        except SampleError as error:
            return error
