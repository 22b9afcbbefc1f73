"""The steps of a run: which samples each learns from, and in which rows. A pure plan; only `make` opens images.

A step is a number of samples (`batch.samples`), packed into as few rows as they need, or a number of full rows
(`batch.rows`), packed across the whole epoch. Either way a step is the same on every rank and with any number of
workers, so nothing of it has to be stored to resume.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import torch

from llava_lite import distributed
from llava_lite.data.collate import collate
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.loader import Failure, Step
from llava_lite.data.packing import group, pack, pack_epoch
from llava_lite.data.records import SampleError
from llava_lite.data.sampler import Order, permutation
from llava_lite.example import IGNORE, Example

_TRIES = 100


class RowPlan(Protocol):
    """Says which samples stand in which row; the same on every rank."""

    @property
    def num_steps(self) -> int: ...

    def rows(self, step: int) -> list[list[int]]:
        """Return the samples of each row (packed) or of each padded batch of a step, counted from 0."""
        ...


class SampleRows:
    """A step is the order's next samples, in as few rows as they need."""

    def __init__(self, dataset: InstructionDataset, order: Order, *, row_tokens: int, packing: bool) -> None:
        self.dataset = dataset
        self.order = order
        self.row_tokens = row_tokens
        self.packing = packing

    @property
    def num_steps(self) -> int:
        return self.order.num_steps

    def rows(self, step: int) -> list[list[int]]:
        samples = self.order.step(step)
        lengths = [self.dataset.length(i) for i in samples]
        rows = (pack if self.packing else group)(lengths, self.row_tokens)
        return [[samples[i] for i in row] for row in rows]


class FullRows:
    """A step is the next `per_step` rows of an epoch's packing; a row that an epoch leaves part empty stays so."""

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        per_step: int,
        row_tokens: int,
        seed: int,
        epochs: float = 1.0,
        max_steps: int | None = None,
    ) -> None:
        self.per_step = per_step
        self.packed: list[np.ndarray] = []
        left = math.inf if max_steps is not None else epochs
        epoch = 0
        while left > 0 and (max_steps is None or len(self.packed) < max_steps * per_step):
            order = permutation(len(lengths), seed, epoch).numpy()[: round(min(left, 1) * len(lengths))]
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            self.packed += pack_epoch(lengths, order, row_tokens, generator)
            left, epoch = left - 1, epoch + 1
        self.num_steps = math.ceil(len(self.packed) / per_step) if max_steps is None else max_steps

    def rows(self, step: int) -> list[list[int]]:
        return [row.tolist() for row in self.packed[step * self.per_step : (step + 1) * self.per_step]]


def plan_steps(
    dataset: InstructionDataset,
    *,
    samples: int,
    rows: int | None,
    row_tokens: int,
    packing: bool,
    seed: int,
    epochs: float,
    max_steps: int | None,
) -> InstructionSteps:
    """Plan a run: steps of `samples`, or, where it is given, of `rows` full rows of `row_tokens`.

    Raises SampleError where that makes no step.
    """
    plan: RowPlan
    if rows is None:
        order = Order(len(dataset), samples, seed, epochs, max_steps)
        plan = SampleRows(dataset, order, row_tokens=row_tokens, packing=packing)
    else:
        plan = FullRows(
            dataset.lengths, per_step=rows, row_tokens=row_tokens, seed=seed, epochs=epochs, max_steps=max_steps
        )
    if plan.num_steps == 0:
        raise SampleError(f"epochs={epochs:g} of {len(dataset)} samples make no step; raise epochs")
    return InstructionSteps(dataset, plan, packing=packing)


class InstructionSteps:
    """Reads the rows of a plan, dealt to the ranks in turn."""

    def __init__(self, dataset: InstructionDataset, plan: RowPlan, *, packing: bool) -> None:
        self.dataset = dataset
        self.plan = plan
        self.packing = packing

    @property
    def num_steps(self) -> int:
        return self.plan.num_steps

    def make(self, number: int) -> Step:
        """Read this rank's rows of a step. Each rank gets as many; one that has fewer gets an empty row."""
        rows = self.plan.rows(number)
        rank, world_size = distributed.rank(), distributed.world_size()
        rows += [[] for _ in range(-len(rows) % world_size)]
        return self._read(rows[rank::world_size])

    def _read(self, rows: Sequence[Sequence[int]]) -> Step:
        processor = self.dataset.processor
        batches: list[Mapping[str, torch.Tensor]] = []
        tokens = Counter(text=0, image=0, learnt=0)
        ids: list[str] = []
        documents: list[int] = []
        num_tiles = 0
        tile_size = processor.transform.size if processor.transform else 0
        failed: list[Failure] = []
        for row in rows:
            examples = []
            for number in row:
                sample_id, example = self._example(number, failed)
                ids.append(sample_id)
                examples.append(example)
            batch = collate(
                examples,
                num_patches=processor.num_patches,
                packed=self.packing,
                tile_size=tile_size,
            )
            batches.append(cast("Mapping[str, torch.Tensor]", batch))  # a TypedDict is one, but mypy does not say so
            documents += [len(example.input_ids) for example in examples]
            num_tiles += sum(len(example.pixel_values) for example in examples)
            num_image = sum(len(example.patch_index) for example in examples)
            tokens["image"] += num_image
            tokens["text"] += sum(len(example.input_ids) for example in examples) - num_image
            tokens["learnt"] += int((batch["labels"] != IGNORE).sum())
        return Step(
            batches=batches,
            num_targets=tokens["learnt"],
            num_samples=len(ids),
            tokens=tokens,
            ids=ids,
            documents=documents,
            num_tiles=num_tiles,
            tile_size=tile_size,
            failed=failed,
        )

    def _example(self, number: int, failed: list[Failure]) -> tuple[str, Example]:
        """Encode a sample, or, where the config lets it be replaced, the next of the data that is no longer."""
        try:
            return self.dataset.example(number)
        except SampleError as error:
            if self.dataset.config.on_bad_sample == "error":
                raise
            reason = str(error)
        room = self.dataset.length(number)
        for other in range(number + 1, number + 1 + _TRIES):
            other %= len(self.dataset)
            try:
                if self.dataset.length(other) <= room:
                    example = self.dataset.example(other)
                    failed.append(Failure(self.dataset.name(number), f"{reason}; replaced by {example[0]}"))
                    return example
            except SampleError:
                continue
        raise SampleError(f"{reason}; and none of the next {_TRIES} samples can replace it")
