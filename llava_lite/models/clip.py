"""CLIP: an image tower and a text tower that learn to agree (stage zero). Its folder is a ready vision tower."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from transformers import CLIPModel

from llava_lite.flops import Cost
from llava_lite.models.cost import clip_cost
from llava_lite.models.loss import Loss, contrastive_loss
from llava_lite.models.pretrained import load_part


class Clip(nn.Module):
    """transformers' CLIPModel as a trainable."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model

    def parts(self) -> dict[str, nn.Module]:
        """Both towers learn as one part."""
        return {"clip": self.model}

    def cost(self, tile_size: int) -> Cost:
        """FLOPs of a training pass with what trains now, on tiles of `tile_size` pixels a side."""
        return clip_cost(self.model, tile_size)

    def guess_loss(self, num_targets: int) -> float:
        """Return the mean loss of one that holds all pairings of so many images and captions equally likely."""
        return math.log(num_targets)

    def forward(
        self,
        *,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        positives: torch.Tensor,
    ) -> Loss:
        """Return the contrastive loss of B pairs.

        pixel_values: float [B, 3, H, W]; input_ids, attention_mask: long [B, T]; positives: bool [B, B], which image
        (row) shows what which caption (column) says.
        """
        output = self.model(
            pixel_values=pixel_values.to(self.model.dtype), input_ids=input_ids, attention_mask=attention_mask
        )
        return contrastive_loss(output.logits_per_image.float(), positives)


def load_clip(name_or_dir: str, *, dtype: torch.dtype) -> Clip:
    """Load a whole CLIP folder or hub id. Raises PartError."""
    return Clip(cast(CLIPModel, load_part(CLIPModel, name_or_dir, dtype=dtype)))
