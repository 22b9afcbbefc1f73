"""Keys and values of rows that are padded on the left; a mask, long [B, L], is 1 where a token stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Cache
from transformers.cache_utils import DynamicLayer

Rows = tuple[Cache, torch.Tensor]
"""Keys and values of rows, and their mask."""


class RoomyLayer(DynamicLayer):
    """Keeps room behind its last token, so that the next one is written there: transformers' own copies all others."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values, [B, heads, T, size] each, and return all: [B, heads, L, size] each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = (key_states[:, :, :0], value_states[:, :, :0])
        before, after = self.get_seq_length(), self.get_seq_length() + key_states.shape[2]
        if after > self._room[0].shape[2]:
            more = after + max(64, after // 4)
            self._room = (_longer(self._room[0], before, more), _longer(self._room[1], before, more))
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, before:after] = states
        self.keys, self.values = (room[:, :, :after] for room in self._room)
        return self.keys, self.values


def _longer(room: torch.Tensor, used: int, length: int) -> torch.Tensor:
    batch, heads, _, size = room.shape
    longer = room.new_empty(batch, heads, length, size)
    longer[:, :, :used] = room[:, :, :used]
    return longer


def new_cache() -> Cache:
    """Return an empty cache that grows; all layers hold all tokens, also those that see only the last ones."""
    return Cache(layer_class_to_replicate=RoomyLayer)


def lay_beside(parts: Sequence[Rows]) -> Rows:
    """Lay rows below each other, padded on the left to the longest."""
    if len(parts) == 1:
        return parts[0]
    width = max(mask.shape[1] for _, mask in parts)
    joined = new_cache()
    for layer in range(len(parts[0][0].layers)):
        keys, values = (
            torch.cat([F.pad(states, (0, 0, width - states.shape[2], 0)) for states in parts_of_one])
            for parts_of_one in zip(*[states_of(cache, layer) for cache, _ in parts], strict=True)
        )
        joined.update(keys, values, layer)
    return joined, torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for _, mask in parts])


def take_rows(cache: Cache, mask: torch.Tensor, rows: Sequence[int]) -> Rows:
    """Copy some rows without the padding that they share; of a mask shorter than the cache, only the first columns."""
    if not rows:
        return new_cache(), mask[:0, :0]
    width = mask.shape[1]
    mask = mask[list(rows)]
    padding = int(mask.any(0).int().argmax())
    taken = new_cache()
    for layer in range(len(cache.layers)):
        keys, values = states_of(cache, layer)
        taken.update(keys[list(rows), :, padding:width], values[list(rows), :, padding:width], layer)
    return taken, mask[:, padding:]


def states_of(cache: Cache, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and values of a layer: [B, heads, L, size] each."""
    states = cache.layers[layer]
    assert isinstance(states, DynamicLayer) and states.keys is not None and states.values is not None
    return states.keys, states.values
