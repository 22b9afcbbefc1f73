"""Layers through torch.compile: each alone and in place, so that weights keep their names and engines their hooks.

What differs from layer to layer or from row to row must not be a part of the program, or it is compiled again for each:
attention (models/attention.py) is called as it is, and decoding, where a cache grows with each token, is not compiled.
"""

from __future__ import annotations

from functools import partial
from inspect import unwrap
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from llava_lite.training.memory import transformer_layers


def compile_layers(module: nn.Module, backend: str = "inductor") -> None:
    """Compile the layers of towers and language models, at their first rows and for all lengths of later ones."""
    for layer in transformer_layers(module):
        layer.forward = _Compiled(layer, backend)


class _Compiled:
    """A layer's forward, compiled; where it is checkpointed, what is computed again is compiled as well."""

    def __init__(self, layer: GradientCheckpointingLayer, backend: str) -> None:
        self.layer: Any = layer  # whose settings for checkpointing are untyped
        self.plain = MethodType(unwrap(type(layer).forward), layer)  # without checkpointing, which cannot be compiled
        self.compiled = torch.compile(self.plain, dynamic=True, backend=backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None:
            return self.plain(*args, **kwargs)
        if self.layer.gradient_checkpointing and self.layer.training:
            return self.layer._gradient_checkpointing_func(partial(self.compiled, **kwargs), *args)
        return self.compiled(*args, **kwargs)
