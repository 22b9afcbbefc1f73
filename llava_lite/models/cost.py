"""What a pass through a model costs, read off its modules: their sizes, what of them learns, and what stands before it.

Works on any module of these shapes: on the meta device, sharded (a layer knows its sizes), quantised, with adapters.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import CLIPModel, PretrainedConfig, PreTrainedModel

from llava_lite.flops import Cost, attention_flops, linear_flops
from llava_lite.models.projector import Projector
from llava_lite.models.vision_tower import VisionTower, count_patches

_ATTENTION = re.compile(r"layers?\.(\d+)\.(?:.*\.)?(?:self_attn|attention)\.")


class _Walk:
    """Meets the layers in the order in which they run; remembers whether a gradient flows back to one met before."""

    def __init__(self) -> None:
        self.flows = False

    def through(self, module: nn.Module, *, besides: Collection[nn.Module] = ()) -> _Layers:
        """Meet the layers of a module, some of them left for later."""
        linear = convolution = 0
        attention: dict[int, bool] = {}
        for name, layer in module.named_modules():
            if next(layer.children(), None) is not None or layer in besides:
                continue
            if isinstance(layer, nn.Linear):
                size = layer.in_features * layer.out_features  # a quantised or sharded weight holds fewer numbers
                linear += linear_flops(size, flows=self.flows, trains=layer.weight.requires_grad)
            elif isinstance(layer, nn.Conv2d):
                size = layer.weight.numel()
                convolution += linear_flops(size, flows=self.flows, trains=layer.weight.requires_grad)
            self.flows |= any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
            if block := _ATTENTION.search(f"{name}."):
                attention[int(block[1])] = self.flows  # after the last layer before its scores, or the one after them
        return _Layers(linear, convolution, list(attention.values()))


@dataclass(frozen=True)
class _Layers:
    """FLOPs of linear layers and of convolutions for one row; whether a gradient flows through each attention."""

    linear: int
    convolution: int
    attention: list[bool]


def llava_cost(
    vision_tower: VisionTower | None, projector: Projector | None, language_model: PreTrainedModel, tile_size: int
) -> Cost:
    """Cost of a Llava on tiles of `tile_size` pixels a side."""
    walk = _Walk()
    per_tile = 0
    if vision_tower is not None and projector is not None:
        config = vision_tower.model.config
        num_patches = count_patches(config, tile_size)
        num_rows = num_patches + vision_tower.family.num_prefix_tokens
        per_tile += _tower_cost(walk.through(vision_tower), config, num_patches, num_rows)
        per_tile += projector.num_patches(num_patches) * walk.through(projector).linear
    head = list(language_model.get_output_embeddings().modules())
    body = walk.through(language_model, besides=head)
    per_target = sum(walk.through(layer).linear for layer in head if next(layer.children(), None) is None)
    config = language_model.config
    per_pair: dict[int | None, int] = {}
    for window, flows in zip(_windows(config), body.attention, strict=True):
        per_pair[window] = per_pair.get(window, 0) + attention_flops(_width(config), flows=flows)
    return Cost(per_tile, body.linear, per_target, per_pair)


def clip_cost(model: CLIPModel, tile_size: int) -> Cost:
    """Cost of CLIP, whose tiles are pictures, whose documents are captions, and whose targets are pairs of them."""
    config: Any = model.config
    vision, text = _Walk(), _Walk()
    num_patches = count_patches(config.vision_config, tile_size)
    per_tile = _tower_cost(vision.through(model.vision_model), config.vision_config, num_patches, num_patches + 1)
    per_tile += vision.through(model.visual_projection).linear
    layers = text.through(model.text_model)
    per_pair = sum(attention_flops(_width(config.text_config), flows=flows) for flows in layers.attention)
    return Cost(per_tile, layers.linear, text.through(model.text_projection).linear, {None: per_pair})


def _tower_cost(layers: _Layers, config: PretrainedConfig, num_patches: int, num_rows: int) -> int:
    attention = sum(attention_flops(_width(config), flows=flows) for flows in layers.attention)
    return num_patches * layers.convolution + num_rows * layers.linear + num_rows**2 * attention


def _width(config: PretrainedConfig) -> int:
    """Heads times the size of a head, which most configs do not name."""
    size = config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads
    return int(config.num_attention_heads * size)


def _windows(config: PretrainedConfig) -> list[int | None]:
    """How many tokens one sees at most in each block: families without `layer_types` treat all blocks alike."""
    settings = config.to_dict()
    kinds = settings.get("layer_types") or ["sliding_attention"] * config.num_hidden_layers
    return [settings.get("sliding_window") if kind == "sliding_attention" else None for kind in kinds]
