"""Examples to one batch. Packed: several Examples in one row, positions restarting. Padded: one Example a row.

packed   [ a a a a b b c c c ]  positions 0 1 2 3 0 1 0 1 2
padded   [ a a a a ]            positions 0 1 2 3
         [ b b . . ]                      0 1 2 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch.nn.utils.rnn import pad_sequence

from llava_lite.processor import IGNORE, Example


class Batch(TypedDict):
    """What `Llava.forward` takes.

    input_ids, labels, position_ids: long [B, T]; labels[t] is what position t predicts (already shifted)
    pixel_values: float32 [N, 3, H, W]; patch_index: long [K], rows of the N * P projected patches
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    pixel_values: torch.Tensor
    patch_index: torch.Tensor


def collate(examples: Sequence[Example], *, num_patches: int, packed: bool, tile_size: int) -> Batch:
    """Join Examples; no Example at all gives a batch that teaches nothing, for a rank with nothing left to do.

    num_patches: visual tokens of a tile, P. A batch without images carries one blank tile (tile_size > 0), so that all
    ranks run the same parts of the model; a model without a tower has tile_size 0 and gets none.
    """
    ids = [example.input_ids for example in examples] or [torch.zeros(1, dtype=torch.long)]
    labels = [_shift(example.labels) for example in examples] or [torch.full((1,), IGNORE)]
    positions = [torch.arange(len(row)) for row in ids]
    tiles = [example.pixel_values for example in examples if len(example.pixel_values)]
    starts = torch.tensor([0, *(len(example.pixel_values) for example in examples)]).cumsum(0) * num_patches
    index = [e.patch_index + start for e, start in zip(examples, starts[:-1], strict=True)]
    blank = torch.zeros(1 if tile_size else 0, 3, tile_size, tile_size)
    if packed:
        input_ids, targets, position_ids = (torch.cat(rows).unsqueeze(0) for rows in (ids, labels, positions))
    else:
        input_ids, targets = pad_sequence(ids, batch_first=True), pad_sequence(labels, True, IGNORE)
        position_ids = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    return Batch(
        input_ids=input_ids,
        labels=targets,
        position_ids=position_ids,
        pixel_values=torch.cat(tiles) if tiles else blank,
        patch_index=torch.cat(index) if index else torch.zeros(0, dtype=torch.long),
    )


def _shift(labels: torch.Tensor) -> torch.Tensor:
    """Move each label to the position that predicts it; per Example, so that none is predicted from a neighbour."""
    return torch.cat([labels[1:], labels.new_full((1,), IGNORE)])
