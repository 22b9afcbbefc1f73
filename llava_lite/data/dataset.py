"""Visual instruction data: checked when opened, images read when a step needs them, each step a pure plan."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.progress import track

from llava_lite import distributed
from llava_lite.config import Strict
from llava_lite.conversation.message import ConversationError
from llava_lite.data.collate import collate
from llava_lite.data.loader import Step
from llava_lite.data.packing import group, pack
from llava_lite.data.sample import Sample, SampleError, read_records, read_sample
from llava_lite.data.sampler import Order
from llava_lite.images.loading import ImageError
from llava_lite.processor import IGNORE, Example, Processor, ProcessorError


class DataConfig(Strict):
    """Where the records are."""

    path: Path
    """A JSON list or .jsonl file in LLaVA's format."""
    image_dir: Path | None = None
    """The folder below which the records' images lie; by default the data file's own."""


class InstructionDataset:
    """Records of one file, each checked on opening: roles, answers, image counts, and that its image files exist."""

    def __init__(self, config: DataConfig, processor: Processor) -> None:
        self.path = config.path
        self.image_dir = config.image_dir or config.path.parent
        self.processor = processor
        self.records = read_records(config.path)
        self.lengths: list[int] = []
        console = Console(stderr=True, quiet=not distributed.is_main())
        for number in track(range(len(self)), f"checking {self.path.name}", console=console, transient=True):
            self.lengths.append(self._check(self.sample(number)))

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, number: int) -> Sample:
        """Read one record."""
        return read_sample(self.records[number], source=self.path.name, number=number, image_dir=self.image_dir)

    def example(self, number: int) -> Example:
        """Encode one record, opening its images. Raises SampleError that names it."""
        sample = self.sample(number)
        try:
            return self.processor.encode(sample.conversation)
        except (ImageError, ConversationError, ProcessorError) as error:
            raise SampleError(f"{sample.name}: {error}") from None

    def _check(self, sample: Sample) -> int:
        """Return the sample's length in tokens, or raise SampleError."""
        for image in sample.conversation.images:
            if not os.path.isfile(str(image.source)):  # unlike Path.is_file, False for every name that cannot be
                raise SampleError(f"{sample.name}: no image file {image.source}; check data.image_dir={self.image_dir}")
        if sample.conversation.images and self.processor.transform is None:
            raise SampleError(f"{sample.name}: has an image, but the model has no vision tower; set model.vision_tower")
        try:
            length, num_learnt = self.processor.length(sample.conversation)
        except (ConversationError, ProcessorError) as error:
            raise SampleError(f"{sample.name}: {error}") from None
        if num_learnt == 0:
            raise SampleError(f"{sample.name}: its answers have no token to learn; write them out")
        return length


class InstructionSteps:
    """The steps of a run: which samples, packed into rows of at most `row_tokens`, dealt to ranks."""

    def __init__(self, dataset: InstructionDataset, order: Order, *, row_tokens: int, packing: bool) -> None:
        self.dataset = dataset
        self.order = order
        self.row_tokens = row_tokens
        self.packing = packing
        longest = max(range(len(dataset)), key=lambda i: dataset.lengths[i])
        if dataset.lengths[longest] > row_tokens:
            raise SampleError(
                f"{dataset.sample(longest).name}: {dataset.lengths[longest]} tokens do not fit a row; "
                f"raise batch.tokens (now {row_tokens}) or shorten the record"
            )

    @property
    def num_steps(self) -> int:
        return self.order.num_steps

    def rows(self, number: int) -> list[list[int]]:
        """Plan a step: the samples of each row (packed) or of each padded batch; the same on every rank."""
        samples = self.order.step(number)
        lengths = [self.dataset.lengths[i] for i in samples]
        rows = (pack if self.packing else group)(lengths, self.row_tokens)
        return [[samples[i] for i in row] for row in rows]

    def make(self, number: int) -> Step:
        """Read this rank's rows of a step. Each rank gets as many; one that has fewer gets an empty row."""
        rows = self.rows(number)
        rank, world_size = distributed.rank(), distributed.world_size()
        rows += [[] for _ in range(-len(rows) % world_size)]
        return self._read(rows[rank::world_size])

    def _read(self, rows: Sequence[Sequence[int]]) -> Step:
        processor = self.dataset.processor
        batches: list[Mapping[str, torch.Tensor]] = []
        tokens = Counter(text=0, image=0, learnt=0)
        for row in rows:
            examples = [self.dataset.example(i) for i in row]
            batch = collate(
                examples,
                num_patches=processor.num_patches,
                packed=self.packing,
                tile_size=processor.transform.size if processor.transform else 0,
            )
            batches.append(cast("Mapping[str, torch.Tensor]", batch))  # a TypedDict is one, but mypy does not say so
            num_image = sum(len(example.patch_index) for example in examples)
            tokens["image"] += num_image
            tokens["text"] += sum(len(example.input_ids) for example in examples) - num_image
            tokens["learnt"] += int((batch["labels"] != IGNORE).sum())
        return Step(
            batches=batches,
            num_targets=tokens["learnt"],
            num_samples=sum(map(len, rows)),
            tokens=tokens,
            ids=[self.dataset.sample(i).id for row in rows for i in row],
        )
