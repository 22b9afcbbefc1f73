"""The trainable bridge from the tower's features to the language model's embeddings."""

from __future__ import annotations

import re

import torch
from torch import nn


class ProjectorError(ValueError):
    """A projector type that is not known, or that does not fit its tower."""


class Projector(nn.Sequential):
    """Layers [N, P, Dv] -> [N, P', D], and what a row of patches ends with where an image mode asks for it.

    kind:          its name in configurations
    image_newline: float [D], learnt with the projector; None for modes whose rows just follow each other
    """

    def __init__(self, kind: str, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.kind = kind
        self.register_parameter("image_newline", None)

    def add_newline(self, text_size: int) -> None:
        """Give it an `image_newline`, drawn as the original draws it: normal, of deviation 1 / sqrt(D)."""
        like = next(self.parameters())
        drawn = torch.randn(text_size, dtype=torch.float32) / text_size**0.5
        self.image_newline = nn.Parameter(drawn.to(dtype=like.dtype, device=like.device))

    def num_patches(self, num_patches: int) -> int:
        """Return how many visual tokens, P', it makes of a tile's P patches."""
        return num_patches


def make_projector(kind: str, vision_size: int, text_size: int) -> Projector:
    """Build a projector [N, P, Dv] -> [N, P, D], with PyTorch's default initialisation as the original.

    kind: `linear` (LLaVA 1.0) or `mlp<N>x_gelu` (1.5: `mlp2x_gelu`), N linear layers with exact GELU between.
    The linear layers have the state-dict names of the original: 0, 2, 4, ...
    """
    if kind == "linear":
        return Projector(kind, nn.Linear(vision_size, text_size))
    match = re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)
    if not match:
        raise ProjectorError(f"unknown projector {kind!r}; known: linear, mlp<N>x_gelu (LLaVA-1.5: mlp2x_gelu)")
    layers: list[nn.Module] = [nn.Linear(vision_size, text_size)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), nn.Linear(text_size, text_size)]
    return Projector(kind, *layers)
