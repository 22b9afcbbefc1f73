"""Vision encoders behind one class: tiles in, one feature per patch out. Layers above the selected one are not kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PretrainedConfig, PreTrainedModel

from llava_lite.models.pretrained import PartError, load_part, read_part_config


@dataclass(frozen=True)
class TowerFamily:
    """model_class: the vision half alone; num_prefix_tokens: class tokens before the patches; leave: what else its
    folders hold, as a pattern of weight names."""

    model_class: type[PreTrainedModel]
    config_class: type[PretrainedConfig]
    num_prefix_tokens: int
    leave: str


_CLIP = TowerFamily(
    CLIPVisionModel,
    CLIPVisionConfig,
    num_prefix_tokens=1,
    leave=r"text_model\.|logit_scale$|(text|visual)_projection\.|(vision_model\.)?embeddings\.position_ids$",
)
# By exact `model_type`: a full CLIP folder (as published) or its vision half.
TOWERS: dict[str, TowerFamily] = {"clip": _CLIP, "clip_vision_model": _CLIP}


class VisionTower(nn.Module):
    """A vision encoder up to the selected layer, without its final normalisation, class tokens dropped."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @property
    def family(self) -> TowerFamily:
        return TOWERS[self.model.config.model_type]

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    def num_patches(self, tile_size: int) -> int:
        """Return the patches, P, of a tile of `tile_size` pixels. Raises PartError if the tower takes no such tile."""
        config = self.model.config
        if tile_size != config.image_size:
            raise PartError(f"the vision tower takes tiles of {config.image_size} pixels, not of {tile_size}")
        return int(config.image_size // config.patch_size) ** 2

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values: float [N, 3, H, W] -> features [N, P, Dv]."""
        hidden = self.model(pixel_values.to(self.model.dtype)).last_hidden_state
        return hidden[:, self.family.num_prefix_tokens :]


def load_vision_tower(name_or_dir: str, *, feature_layer: int, dtype: torch.dtype) -> VisionTower:
    """Load a tower that stops at `feature_layer` (-2: LLaVA's, the output of the last block but one).

    Raises PartError for an unknown `model_type`, a layer that is not there, missing or unexpected weights.
    """
    config = read_part_config(name_or_dir)
    if config.model_type not in TOWERS:
        raise PartError(f"{name_or_dir}: unknown vision tower {config.model_type!r}; known: {', '.join(TOWERS)}")
    family = TOWERS[config.model_type]
    vision = config if isinstance(config, family.config_class) else config.vision_config
    num_layers = int(vision.num_hidden_layers)
    kept = num_layers + 1 + feature_layer if feature_layer < 0 else feature_layer
    if not 1 <= kept <= num_layers:
        raise PartError(f"{name_or_dir}: has no layer {feature_layer}; it has {num_layers} blocks")
    above = "|".join(str(i) for i in range(kept, num_layers)) or "none"
    leave = rf"{family.leave}|(vision_model\.)?encoder\.layers\.({above})\."
    return VisionTower(load_part(family.model_class, name_or_dir, dtype=dtype, may_leave=leave, num_hidden_layers=kept))
