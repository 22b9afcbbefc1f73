"""Image-caption pairs for contrastive training.

A record is {"id", "image", "captions": [...]}: every caption that is true of the image, as COCO has five. A step draws
one for each image, and counts every image that has the drawn caption among its own as a positive for it, so that two
pictures of the same thing are not pushed apart.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from llava_lite.conversation.message import ConversationError
from llava_lite.data.loader import Step
from llava_lite.data.mixture import Source, SourceConfig
from llava_lite.data.records import SampleError
from llava_lite.data.sample import place_image, record_id
from llava_lite.data.sampler import Order
from llava_lite.images.loading import ImageError, load_image
from llava_lite.images.transform import ImageTransform


@dataclass(frozen=True)
class CaptionedImage:
    """One checked record; `name` is what messages call it."""

    id: str
    name: str
    path: Path
    captions: tuple[str, ...]


class CaptionDataset:
    """Records checked on opening: captions, and that the image file exists below the image folder."""

    def __init__(self, config: SourceConfig) -> None:
        source = Source(config)
        self.source = source.name
        self.content_hash = source.content_hash
        self.image_dir = source.image_dir
        self.records = [self._check(source.record(i), i) for i in range(len(source.records))]

    def __len__(self) -> int:
        return len(self.records)

    def _check(self, record: dict, number: int) -> CaptionedImage:
        sample_id = record_id(record, number)
        name = f"sample {sample_id} ({self.source})"
        image, captions = record.get("image"), record.get("captions")
        texts = captions if isinstance(captions, list) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise SampleError(f"{name}: no `captions`; give a list of texts, at least one")
        if not isinstance(image, str) or not image:
            raise SampleError(f"{name}: no `image`; give one path below data.image_dir")
        try:
            path = place_image(image, self.image_dir)
        except ConversationError as error:
            raise SampleError(f"{name}: {error}") from None
        if not os.path.isfile(path):
            raise SampleError(f"{name}: no image file {path}; check data.image_dir={self.image_dir}")
        return CaptionedImage(sample_id, name, path, tuple(texts))


class CaptionSteps:
    """The steps of a contrastive run. A step is one batch: its loss compares every pair with every other."""

    def __init__(
        self, dataset: CaptionDataset, order: Order, transform: ImageTransform, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.dataset = dataset
        self.order = order
        self.transform = transform
        self.tokenizer = tokenizer
        self._check_lengths()

    @property
    def num_steps(self) -> int:
        return self.order.num_steps

    def make(self, number: int) -> Step:
        """Read step `number`; which caption is drawn depends on the order's seed and the step alone."""
        records = [self.dataset.records[i] for i in self.order.step(number)]
        generator = torch.Generator().manual_seed(self.order.seed * 1_000_003 + number)
        drawn = [
            record.captions[int(torch.randint(len(record.captions), (), generator=generator))] for record in records
        ]
        text = self.tokenizer(drawn, padding=True, truncation=False, return_tensors="pt")
        batch = {
            "pixel_values": torch.cat([self._tiles(record) for record in records]),
            "input_ids": text["input_ids"],
            "attention_mask": text["attention_mask"],
            "positives": torch.tensor([[caption in record.captions for caption in drawn] for record in records]),
        }
        return Step(
            batches=[batch],
            num_targets=len(records),
            num_samples=len(records),
            tokens={"text": int(text["attention_mask"].sum()), "pairs": len(records)},
            ids=[record.id for record in records],
            documents=text["attention_mask"].sum(1).tolist(),
            num_tiles=len(records),
            tile_size=self.transform.size,
        )

    def _check_lengths(self) -> None:
        """Refuse a caption that the text tower has no position for, before the first step instead of in the middle."""
        for record in self.dataset.records:
            longest = max(map(len, self.tokenizer(list(record.captions), verbose=False)["input_ids"]))
            if longest > self.tokenizer.model_max_length:
                raise SampleError(
                    f"{record.name}: a caption of {longest} tokens, but the text tower reads at most "
                    f"{self.tokenizer.model_max_length}; shorten it"
                )

    def _tiles(self, record: CaptionedImage) -> torch.Tensor:
        try:
            return self.transform(load_image(record.path))
        except ImageError as error:
            raise SampleError(f"{record.name}: {error}") from None
