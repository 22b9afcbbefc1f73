"""The trainable bridge from the tower's features to the language model's embeddings."""

from __future__ import annotations

import re

from torch import nn


class ProjectorError(ValueError):
    """A projector type that is not known."""


def make_projector(kind: str, vision_size: int, text_size: int) -> nn.Sequential:
    """Build a projector [N, P, Dv] -> [N, P, D], with PyTorch's default initialisation as the original.

    kind: `linear` (LLaVA 1.0) or `mlp<N>x_gelu` (1.5: `mlp2x_gelu`), N linear layers with exact GELU between.
    The linear layers have the state-dict names of the original: 0, 2, 4, ...
    """
    if kind == "linear":
        return nn.Sequential(nn.Linear(vision_size, text_size))
    match = re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)
    if not match:
        raise ProjectorError(f"unknown projector {kind!r}; known: linear, mlp<N>x_gelu (LLaVA-1.5: mlp2x_gelu)")
    layers: list[nn.Module] = [nn.Linear(vision_size, text_size)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), nn.Linear(text_size, text_size)]
    return nn.Sequential(*layers)
