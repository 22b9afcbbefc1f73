"""Examples to one batch. Packed: several Examples in one row, positions restarting. Padded: one Example a row.

packed   [ a a a a b b c c c ]  positions 0 1 2 3 0 1 0 1 2
padded   [ a a a a ]            positions 0 1 2 3
         [ b b . . ]                      0 1 2 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from torch.nn.utils.rnn import pad_sequence

from llava_lite.example import IGNORE, Example, join_patches


class Batch(TypedDict):
    """What `Llava.forward` takes.

    input_ids, labels, position_ids: long [B, T]; labels[t] is what position t predicts (already shifted)
    pixel_values: float32 [N, 3, H, W]; patch_index: long [K], rows of the N * P' projected patches, -1 the newline
    patch_weight: float32 [K, 4], only where visual tokens lie between patches; patch_index is then [K, 4]
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    pixel_values: torch.Tensor
    patch_index: torch.Tensor
    patch_weight: NotRequired[torch.Tensor]


def collate(examples: Sequence[Example], *, num_patches: int, packed: bool, tile_size: int) -> Batch:
    """Join Examples; no Example at all gives a batch that teaches nothing, for a rank with nothing left to do.

    num_patches: projected patches of a tile, P'. A batch without images carries one blank tile (tile_size > 0), so that
    all ranks run the same parts of the model; a model without a tower has tile_size 0 and gets none.
    """
    ids = [example.input_ids for example in examples] or [torch.zeros(1, dtype=torch.long)]
    labels = [_shift(example.labels) for example in examples] or [torch.full((1,), IGNORE)]
    positions = [torch.arange(len(row)) for row in ids]
    tiles = [example.pixel_values for example in examples if len(example.pixel_values)]
    patch_index, patch_weight = join_patches(examples, num_patches)
    blank = torch.zeros(1 if tile_size else 0, 3, tile_size, tile_size)
    if packed:
        input_ids, targets, position_ids = (torch.cat(rows).unsqueeze(0) for rows in (ids, labels, positions))
    else:
        input_ids, targets = pad_sequence(ids, batch_first=True), pad_sequence(labels, True, IGNORE)
        position_ids = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    batch = Batch(
        input_ids=input_ids,
        labels=targets,
        position_ids=position_ids,
        pixel_values=torch.cat(tiles) if tiles else blank,
        patch_index=patch_index,
    )
    return batch if patch_weight is None else {**batch, "patch_weight": patch_weight}


def _shift(labels: torch.Tensor) -> torch.Tensor:
    """Move each label to the position that predicts it; per Example, so that none is predicted from a neighbour."""
    return torch.cat([labels[1:], labels.new_full((1,), IGNORE)])
