"""Steps of batches, made by worker processes ahead of time, in an order that does not depend on how many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from llava_lite.config import Strict
from llava_lite.data.sample import SampleError


class LoaderConfig(Strict):
    """How batches are prepared."""

    workers: int = 2
    """Processes that read images and tokenise; 0: in the main process. The batches are the same for any number."""


@dataclass(frozen=True)
class Step:
    """What one rank does in one optimiser step, and what there is to count in it.

    num_targets: what the loss is summed over; tokens: how many there are of each sort; ids: the records, for messages
    """

    batches: Sequence[Mapping[str, torch.Tensor]]
    num_targets: int
    num_samples: int
    tokens: Mapping[str, int]
    ids: Sequence[str]


class StepSource(Protocol):
    """Makes any step on demand; steps are counted from 0."""

    @property
    def num_steps(self) -> int: ...

    def make(self, number: int) -> Step: ...


def read_steps(source: StepSource, start: int, config: LoaderConfig) -> Iterator[Step]:
    """Yield the steps from `start` to the end. A record's error is raised as it is, without a worker's traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism
    loader = DataLoader(
        _Steps(source),
        batch_size=None,
        sampler=range(start, source.num_steps),
        num_workers=config.workers,
        prefetch_factor=2 if config.workers else None,
        generator=torch.Generator(),  # else it draws a seed from the global one, and a resumed run is another
    )
    for item in loader:
        if isinstance(item, SampleError):
            raise item
        yield item


class _Steps(Dataset):
    def __init__(self, source: StepSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Step | SampleError:
        try:
            return self.source.make(number)
        except SampleError as error:
            return error
