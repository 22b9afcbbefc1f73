"""Vision encoders behind one class: tiles in, one feature per patch out. Layers above the selected one are not kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from llava_lite.models.pretrained import PartError, load_part, read_part_config


@dataclass(frozen=True)
class TowerFamily:
    """What we must know of a family of towers.

    model_class:       the vision half alone
    features:          (model, pixel_values) -> the last block's output, before any final normalisation
    num_prefix_tokens: class tokens before the patches
    any_size:          whether its positions are interpolated, so that it takes tiles of any whole number of patches
    layers:            what the names of its blocks begin with
    leave:             what else its folders hold, as a pattern of weight names
    changes:           config values that leave out what we do not use; None: as if its config.json did not say it
    """

    model_class: type[PreTrainedModel]
    config_class: type[PretrainedConfig]
    features: Callable[[Any, torch.Tensor], torch.Tensor]
    num_prefix_tokens: int
    layers: str
    leave: str
    any_size: bool = False
    changes: dict[str, Any] = field(default_factory=dict)


_CLIP = TowerFamily(
    CLIPVisionModel,
    CLIPVisionConfig,
    features=lambda model, pixel_values: model(pixel_values).last_hidden_state,  # its final norm is for the pooled one
    num_prefix_tokens=1,
    layers=r"(vision_model\.)?encoder\.layers\.",
    leave=r"text_model\.|logit_scale$|(text|visual)_projection\.|(vision_model\.)?embeddings\.position_ids$",
)
# LLaVA-NeXT's rule for SigLIP, the last block dropped and no final norm, is layer -2.
_SIGLIP = TowerFamily(
    SiglipVisionModel,
    SiglipVisionConfig,
    features=lambda model, pixel_values: (
        model.encoder(inputs_embeds=model.embeddings(pixel_values)).last_hidden_state  # all but norm and pooling
    ),
    num_prefix_tokens=0,
    layers=r"(vision_model\.)?encoder\.layers\.",
    leave=r"text_model\.|logit_(scale|bias)$|(vision_model\.)?(head\.|embeddings\.position_ids$)",
    changes={"vision_use_head": False},
)
_DINOV2 = TowerFamily(
    Dinov2Model,
    Dinov2Config,
    features=lambda model, pixel_values: model.encoder(model.embeddings(pixel_values)).last_hidden_state,
    num_prefix_tokens=1,
    layers=r"encoder\.layer\.",
    leave=r"(?!)",
    any_size=True,
    # which blocks it shows as a backbone: they are named after all it had
    changes={"out_features": None, "out_indices": None, "stage_names": None},
)
# By exact `model_type`: a full CLIP or SigLIP folder (as published; SigLIP 2 of fixed size says `siglip` too) or its
# vision half, and DINOv2.
TOWERS: dict[str, TowerFamily] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": _DINOV2,
}
_NAFLEX = (
    "a SigLIP 2 of flexible size (NaFlex), which takes lists of patches with a mask, not square tiles; "
    "use the SigLIP 2 of fixed size (its name ends with a size, its config.json says model_type siglip)"
)
_UNUSED = r"(vision_model\.)?(post_)?layernorm\.|embeddings\.mask_token$"  # kept, but no feature comes from it
_REFUSED = {"siglip2": _NAFLEX, "siglip2_vision_model": _NAFLEX}


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

    def train_layers(self, last: int | None) -> None:
        """Let the tower learn: its last so many layers, or, with None, all that its features come from.

        Raises PartError for none, or for more than it has.
        """
        layers = [module for module in self.modules() if isinstance(module, GradientCheckpointingLayer)]
        if last is not None and not 1 <= last <= len(layers):
            raise PartError(
                f"vision_layers={last}: the tower runs {len(layers)} layers; choose from these, or leave it out"
            )
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(last is None and not re.match(_UNUSED, name))
        for layer in layers[-last:] if last is not None else ():
            layer.requires_grad_(True)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values: float [N, 3, H, W] -> features [N, P, Dv]."""
        hidden = self.family.features(self.model, pixel_values.to(self.model.dtype))
        return hidden[:, self.family.num_prefix_tokens :]


def read_tower_config(name_or_dir: str) -> PretrainedConfig:
    """Read the config of a tower, or of the vision half of a folder that has more. Raises PartError."""
    config = read_part_config(name_or_dir)
    if config.model_type in _REFUSED:
        raise PartError(f"{name_or_dir}: {_REFUSED[config.model_type]}")
    if config.model_type not in TOWERS:
        raise PartError(f"{name_or_dir}: unknown vision tower {config.model_type!r}; known: {', '.join(TOWERS)}")
    return config if isinstance(config, TOWERS[config.model_type].config_class) else config.vision_config


def count_patches(config: PretrainedConfig, tile_size: int) -> int:
    """Return the patches, P, of a tile of `tile_size` pixels. Raises PartError if the tower takes no such tile."""
    any_size = TOWERS[config.model_type].any_size
    if any_size and tile_size % config.patch_size:
        raise PartError(f"the vision tower takes tiles of a multiple of {config.patch_size} pixels, not of {tile_size}")
    if not any_size and tile_size != config.image_size:
        raise PartError(f"the vision tower takes tiles of {config.image_size} pixels, not of {tile_size}")
    return int(tile_size // config.patch_size) ** 2


def load_vision_tower(
    name_or_dir: str, *, feature_layer: int, dtype: torch.dtype, weights: dict[str, torch.Tensor] | None = None
) -> VisionTower:
    """Load a tower that stops at `feature_layer` (-2: LLaVA's, the output of the last block but one).

    weights: those of the whole tower where they are read already; `name_or_dir` then says what they are.
    Raises PartError for an unknown `model_type`, a layer that is not there, missing or unexpected weights.
    """
    vision = read_tower_config(name_or_dir)
    family = TOWERS[vision.model_type]
    shorter = cut_config(vision, feature_layer, name_or_dir)
    leave = left_out(vision, shorter)
    model = load_part(family.model_class, name_or_dir, dtype=dtype, may_leave=leave, config=shorter, weights=weights)
    return VisionTower(model)


def left_out(vision: PretrainedConfig, shorter: PretrainedConfig) -> str:
    """Return a pattern of the weights in a tower's files that it has not once it is cut."""
    family = TOWERS[vision.model_type]
    above = "|".join(str(i) for i in range(shorter.num_hidden_layers, vision.num_hidden_layers)) or "none"
    return rf"{family.leave}|{family.layers}({above})\."


def cut_config(vision: PretrainedConfig, feature_layer: int, where: object) -> PretrainedConfig:
    """Return the config of a tower that stops at `feature_layer`. Raises PartError for a layer that is not there."""
    family = TOWERS[vision.model_type]
    num_layers = int(vision.num_hidden_layers)
    kept = num_layers + 1 + feature_layer if feature_layer < 0 else feature_layer
    if not 1 <= kept <= num_layers:
        raise PartError(f"{where}: has no layer {feature_layer}; it has {num_layers} blocks")
    settings = {**vision.to_dict(), **family.changes, "num_hidden_layers": kept}
    return family.config_class(**{name: value for name, value in settings.items() if value is not None})
