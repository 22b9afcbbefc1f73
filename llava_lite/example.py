"""One conversation as tensors, and several of them as one batch's: what the door hands on, and what is made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from llava_lite.images.layout import NEWLINE

IGNORE = -100
"""The label of a token that is not learnt."""


@dataclass(frozen=True)
class Example:
    """One conversation as tensors.

    input_ids:    long [T]; each visual token is one `image_token_id`
    labels:       long [T], aligned with input_ids; IGNORE where nothing is learnt
    pixel_values: float32 [N, 3, H, W], the tiles of all images in order
    patch_index:  long [K], for each visual token its row in the table of the N * P' projected patches, or NEWLINE;
                  [K, 4] where visual tokens lie between patches
    patch_weight: float32 [K, 4], what each of the four rows counts; None with one row a token
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor
    patch_index: torch.Tensor
    patch_weight: torch.Tensor | None = None


def join_patches(examples: Sequence[Example], num_patches: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return one patch_index for the tiles of all Examples, and one patch_weight if any of them has one.

    num_patches: P' of a tile. Beside an Example whose tokens lie between four patches the others count their one row
    whole. Shapes as in `Example`.
    """
    sizes = [len(example.pixel_values) * num_patches for example in examples]
    if all(example.patch_weight is None for example in examples):
        return join_index([example.patch_index for example in examples], sizes), None
    index, weight = zip(*map(_four_taps, examples), strict=True)
    return join_index(index, sizes), torch.cat(weight)


def share_tiles(
    examples: Sequence[Example], num_patches: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return the tiles that Examples show, equal ones once and unseen ones not at all: [N, 3, H, W]; and for these one
    patch_index and one patch_weight, as `join_patches` does.
    """
    index, weight = join_patches(examples, num_patches)
    tiles = torch.cat([example.pixel_values for example in examples])
    shown = (index[index != NEWLINE] // num_patches).unique().tolist()
    places: dict[bytes, int] = {}
    place = torch.zeros(max(shown, default=0) + 1, dtype=torch.long)  # of each tile among those that are kept
    kept = list[int]()
    for tile in shown:
        digest = hash_tile(tiles[tile])
        if digest not in places:
            places[digest] = len(kept)
            kept.append(tile)
        place[tile] = places[digest]
    moved = place[(index // num_patches).clamp(min=0)] * num_patches + index % num_patches
    return tiles[kept], torch.where(index == NEWLINE, NEWLINE, moved), weight


def hash_tile(tile: torch.Tensor) -> bytes:
    """Tell tiles, float32 [3, H, W], apart by their pixels."""
    return hashlib.blake2b(tile.numpy().tobytes(), digest_size=16).digest()


def join_index(index: Sequence[torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
    """Join indices of tables that are laid one below the other; the newline stays the newline."""
    starts = [0, *accumulate(sizes)]
    parts = [torch.where(part == NEWLINE, part, part + start) for part, start in zip(index, starts, strict=False)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)


def _four_taps(example: Example) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an Example's patch_index and patch_weight, [K, 4] each."""
    if example.patch_weight is not None:
        return example.patch_index, example.patch_weight
    return example.patch_index.unsqueeze(1).expand(-1, 4), torch.tensor([1.0, 0, 0, 0]).expand(
        len(example.patch_index), 4
    )
