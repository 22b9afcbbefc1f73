"""The trainable bridge from the tower's features to the language model's embeddings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import nn


class ProjectorError(ValueError):
    """A projector type that is not known, or that does not fit its tower."""


class Projector(nn.Sequential):
    """Tiles' patches to the table that visual tokens are taken from: layers [N, P, Dv] -> [N, P', D], and a newline.

    kind:          its name in configurations
    reduce:        what is done with each S x S square of patches first; it has no weights
    stride:        S, its side; 1: every patch is a visual token, P' = P, else P' = P / S^2
    image_newline: float [D], what rows of patches end with, learnt with the projector; None for modes whose rows
                   just follow each other
    """

    def __init__(self, kind: str, *layers: nn.Module, reduce: Reduce | None = None, stride: int = 1) -> None:
        super().__init__(*layers)
        self.kind = kind
        self.reduce = reduce
        self.stride = stride
        self.register_parameter("image_newline", None)

    def add_newline(self, text_size: int) -> None:
        """Give it an `image_newline`, drawn as the original draws it: normal, of deviation 1 / sqrt(D)."""
        like = next(self.parameters())
        drawn = torch.randn(text_size, dtype=torch.float32) / text_size**0.5
        self.image_newline = nn.Parameter(drawn.to(dtype=like.dtype, device=like.device))

    def num_patches(self, num_patches: int) -> int:
        """Return how many visual tokens, P', it makes of a tile's P patches.

        Raises ProjectorError if the tile's grid does not fall into squares of its stride.
        """
        side = math.isqrt(num_patches)
        if self.stride > 1 and (side * side != num_patches or side % self.stride):
            fits = [s for s in range(2, side + 1) if side % s == 0]
            raise ProjectorError(
                f"projector {self.kind!r}: a grid of {num_patches} patches, {side} a side, does not fall into squares "
                f"of {self.stride}; what fits: {', '.join(map(str, fits))}"
            )
        return num_patches // self.stride**2

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """features: [N, P, Dv] -> [N * P', D], tile by tile in raster order; the newline, if any, is one more row.

        All parameters are used in here, so that an engine which shares them out knows when to gather them.
        """
        if self.reduce is not None:
            features = self.reduce(_squares(features, self.stride))
        table = super().forward(features).flatten(0, 1)
        return table if self.image_newline is None else torch.cat([table, self.image_newline.unsqueeze(0)])


Reduce = Callable[[torch.Tensor], torch.Tensor]
# [N, P', S^2, Dv] -> [N, P', S^2 * Dv] or [N, P', Dv]
_REDUCE: dict[str, Reduce] = {"shuffle": lambda squares: squares.flatten(2), "pool": lambda squares: squares.mean(2)}
_KIND = re.compile(r"((?P<reduce>shuffle|pool)(?P<stride>[2-9])_)?mlp(?P<depth>[1-9]\d*)x_gelu")


def make_projector(kind: str, vision_size: int, text_size: int) -> Projector:
    """Build a projector [N, P, Dv] -> [N, P', D], with PyTorch's default initialisation as the original.

    linear                  LLaVA 1.0
    mlp<N>x_gelu            1.5 (`mlp2x_gelu`): N linear layers with exact GELU between
    shuffle<S>_mlp<N>x_gelu pixel shuffle, then the MLP: S x S patches side by side become the channels of one
    pool<S>_mlp<N>x_gelu    the mean of S x S patches, then the MLP

    The linear layers have the state-dict names of the original, whatever is done before them: 0, 2, 4, ...
    """
    if kind == "linear":
        return Projector(kind, nn.Linear(vision_size, text_size))
    match = _KIND.fullmatch(kind)
    if not match:
        raise ProjectorError(
            f"unknown projector {kind!r}; known: linear, mlp<N>x_gelu (LLaVA-1.5: mlp2x_gelu), "
            "shuffle<S>_mlp<N>x_gelu and pool<S>_mlp<N>x_gelu (S from 2 to 9)"
        )
    reduce, stride = match["reduce"], int(match["stride"] or 1)
    in_size = vision_size * stride**2 if reduce == "shuffle" else vision_size
    layers: list[nn.Module] = [nn.Linear(in_size, text_size)]
    for _ in range(int(match["depth"]) - 1):
        layers += [nn.GELU(), nn.Linear(text_size, text_size)]
    return Projector(kind, *layers, reduce=_REDUCE[reduce] if reduce else None, stride=stride)


def _squares(features: torch.Tensor, stride: int) -> torch.Tensor:
    """Gather each stride x stride square of a square grid: [N, P, Dv] -> [N, P', S^2, Dv], all in raster order."""
    num_tiles, num_patches, size = features.shape
    side = math.isqrt(num_patches) // stride
    grid = features.reshape(num_tiles, side, stride, side, stride, size)
    return grid.transpose(2, 3).reshape(num_tiles, side * side, stride**2, size)
