"""LLaVA: a vision tower, a projector and a language model. The data side says where each patch goes; this obeys."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import Cache, PreTrainedModel

from llava_lite.flops import Cost
from llava_lite.models import adapter, attention
from llava_lite.models.adapter import Lora, Quantize
from llava_lite.models.cost import llava_cost
from llava_lite.models.loss import IGNORE, Loss, token_loss
from llava_lite.models.projector import Projector
from llava_lite.models.vision_tower import VisionTower

Part = Literal["vision_tower", "projector", "language_model"]


class Llava(nn.Module):
    """Join the parts. A text-only language model is a Llava without tower and projector.

    image_token_id: the id that holds a visual token's place.
    quantize: how the language model's blocks were loaded; None: as they are. Only an adapter beside them can learn.
    lora: the adapter beside the language model, once `add_lora` has put one there.
    """

    def __init__(
        self,
        *,
        vision_tower: VisionTower | None,
        projector: Projector | None,
        language_model: PreTrainedModel,
        image_token_id: int,
        quantize: Quantize | None = None,
    ) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.projector = projector
        self.language_model = language_model
        self.image_token_id = image_token_id
        self.quantize = quantize
        self.lora: Lora | None = None
        attention.install(language_model)

    @property
    def device(self) -> torch.device:
        return self.language_model.device

    def parts(self) -> dict[str, nn.Module]:
        """The parts there are, by name."""
        return dict(self.named_children())

    def train_only(self, parts: Collection[Part], *, vision_layers: int | None = None) -> None:
        """Train these parts and freeze the others; of a language model with an adapter, the adapter alone.

        vision_layers: of the tower, only the last so many; None: all. Raises PartError if it has fewer.
        """
        for name, part in self.parts().items():
            part.train(name in parts)
            if name == "language_model" and self.lora is not None:
                adapter.train_adapter(self.language_model, name in parts)
            else:
                part.requires_grad_(name in parts)
        if self.vision_tower is not None and "vision_tower" in parts:
            self.vision_tower.train_layers(vision_layers)

    def cost(self, tile_size: int) -> Cost:
        """FLOPs of a training pass with what trains now, on tiles of `tile_size` pixels a side."""
        return llava_cost(self.vision_tower, self.projector, self.language_model, tile_size)

    def guess_loss(self, num_targets: int) -> float:
        """Return the mean loss of one that holds all tokens equally likely, for any number of targets."""
        return math.log(self.language_model.config.vocab_size)

    def add_lora(self, lora: Lora) -> None:
        """Put an adapter that adds nothing yet beside the language model. Raises AdapterError."""
        self.lora = adapter.attach(self.language_model, lora)

    def read_lora(self, folder: Path) -> None:
        """Put the adapter of a checkpoint beside the language model. Raises AdapterError, PartError."""
        self.lora = adapter.read_adapter(folder, self.language_model)

    def merge_lora(self) -> None:
        """Make adapter and language model one, which is then not quantised."""
        adapter.merge(self.language_model)
        self.lora = self.quantize = None

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        patch_index: torch.Tensor,
        patch_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Look up words and put each visual token's projected patch, or the newline, in its place.

        input_ids: long [B, T]; pixel_values: float [N, 3, H, W]; patch_index: long [K] in the order of the places, rows
        of the N * P' patches, -1 the newline; or [K, 4] with patch_weight: float [K, 4] -> [B, T, D].
        Raises RuntimeError if there are not K places, or no newline to put.

        Gemma scales its words' embeddings (by sqrt(D), inside the lookup) before anything is put beside them; patches
        enter as the projector makes them, not scaled, as in transformers' Llava class: the projector learns the scale.
        """
        embeds = self.language_model.get_input_embeddings()(input_ids)
        places = input_ids == self.image_token_id
        num_places = int(places.sum())
        if num_places != len(patch_index):
            raise RuntimeError(f"{num_places} places for visual tokens, but {len(patch_index)} patches to put there")
        if self.vision_tower is None or self.projector is None or len(pixel_values) == 0:
            return embeds
        frozen = not any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = self.vision_tower(pixel_values)
        table = self.projector(features)
        if self.projector.image_newline is None and num_places and patch_index.min() < 0:
            raise RuntimeError("rows of patches end with a newline, but this projector has no image_newline")
        if num_places == 0:  # a blank tile of zero weight: every rank runs the same parts
            return embeds + 0 * table.sum()
        return embeds.masked_scatter(places.unsqueeze(-1), _gather(table, patch_index, patch_weight).to(embeds.dtype))

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        position_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        patch_index: torch.Tensor,
        patch_weight: torch.Tensor | None = None,
    ) -> Loss:
        """Return the loss over the supervised targets of a batch; see `data.collate.Batch` for the shapes."""
        keep = (labels != IGNORE).any(0).nonzero().flatten()  # columns that predict something, in any row
        logits = self.logits(
            input_ids=input_ids,
            position_ids=position_ids,
            pixel_values=pixel_values,
            patch_index=patch_index,
            patch_weight=patch_weight,
            keep=keep,
        )
        return token_loss(logits, labels[:, keep])

    def logits(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        patch_index: torch.Tensor,
        patch_weight: torch.Tensor | None = None,
        keep: torch.Tensor | int = 0,
    ) -> torch.Tensor:
        """Return the logits of the columns `keep` (long [U]; 0: all), without mask and cache: [B, U, V].

        One row may hold several documents with restarting positions; several rows hold one each, padded right.
        """
        documents = attention.document_bounds(position_ids) if len(input_ids) == 1 else None
        output = self.language_model(
            inputs_embeds=self.embed(input_ids, pixel_values, patch_index, patch_weight),
            position_ids=position_ids,
            use_cache=False,
            logits_to_keep=keep,
            documents=documents,
        )
        return output.logits

    @torch.no_grad()
    def extend(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        cache: Cache,
        pixel_values: torch.Tensor | None = None,
        patch_index: torch.Tensor | None = None,
        patch_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Go on behind what is cached, which grows by it, and return the logits after the last column: [B, V].

        input_ids, position_ids: long [B, T]; attention_mask: long [B, cached + T], 0 where padding stands, on the left;
        the rest as `embed` takes it, None where no image is among the new tokens
        """
        if pixel_values is None or patch_index is None:
            embeds = self.language_model.get_input_embeddings()(input_ids)
        else:
            embeds = self.embed(input_ids, pixel_values, patch_index, patch_weight)
        output = self.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def _gather(table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return rows of a table [R, D], or weighted sums of four each, summed in fp32: [K, D]."""
    if weight is None:
        return table[index]
    terms = (table[index[:, tap]] * weight[:, tap, None].float() for tap in range(4))
    return sum(terms, torch.zeros((), device=table.device))
