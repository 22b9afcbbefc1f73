"""What is kept of the forward pass for the backward pass, and what is computed again instead."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

Checkpointing = Literal["none", "full"] | int


def transformer_layers(module: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers of towers and language models, in order: they hold most weights and run one after another."""
    return [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]


def checkpoint_layers(module: nn.Module, which: Checkpointing) -> None:
    """Let the layers through which gradients flow forget what they computed, and compute it again when it is needed.

    which: none, full (every layer), or K: every K-th, for a K-th of the memory that full saves at a K-th of its cost.
    """
    if which == "none":
        return
    every = 1 if which == "full" else int(which)
    for number, layer in enumerate(transformer_layers(module)):
        if number % every == 0:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
            layer.training = True  # transformers asks for it; a frozen layer's insides stay as they are in evaluation
