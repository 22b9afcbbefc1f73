"""What was computed of conversations: rows of keys and values, and those kept until the next turn, so that neither
images nor words of earlier turns are read again.

Rows of several conversations are padded on the left; a mask, long [B, L], is 1 where a token stands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llava_lite.images.layout import NEWLINE
from llava_lite.processor import Example, hash_tile

Kept = tuple[DynamicCache, torch.Tensor]
"""Keys and values of rows, and their mask."""


class Conversations:
    """The last conversations, up to `max_tokens` tokens of them; those longest unused go first.

    A conversation is taken up only by one that goes on from it: all of its last prompt begins the new one. So what is
    asked once does not depend, not even in its last bits, on what was asked before.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._known: OrderedDict[int, tuple[np.ndarray, int, DynamicCache]] = OrderedDict()
        self._next = 0

    def find(self, prompt: np.ndarray) -> Kept | None:
        """Return a copy of what is known of the beginning of a prompt; its last token is always left to be read."""
        longest, best = 0, None
        for key, (known, num_prompt, _) in self._known.items():
            common = min(_num_common(prompt, known), len(prompt) - 1)
            if common >= min(num_prompt, len(prompt) - 1) and common > longest:
                longest, best = common, key
        if best is None:
            return None
        self._known.move_to_end(best)
        cache = self._known[best][2]
        mask = torch.ones(1, longest, dtype=torch.long, device=_states(cache, 0)[0].device)
        return take_rows(cache, mask, [0])

    def keep(self, prompt: np.ndarray, answer: Sequence[int], cache: DynamicCache) -> None:
        """Keep a prompt and the answer to it, as far as `cache` has them, in place of what they went on from."""
        known = np.concatenate([prompt, np.array(answer, dtype=np.int64)])[: cache.get_seq_length()]
        for key, (other, _, _) in list(self._known.items()):
            if _num_common(known, other) == len(other):
                del self._known[key]
        if len(known) <= self.max_tokens:
            self._known[self._next] = (known, len(prompt), cache)
            self._next += 1
        while sum(len(other) for other, _, _ in self._known.values()) > self.max_tokens:
            self._known.popitem(last=False)


def fingerprint(example: Example, *, image_token_id: int, num_patches: int) -> np.ndarray:
    """Return a number for each token, int64 [T], equal where two prompts show the model the same: its id, or for a
    visual token a hash of the patches that it is taken from.
    """
    values = example.input_ids.numpy().copy()
    digests = [int.from_bytes(hash_tile(tile)[:8], "little", signed=True) for tile in example.pixel_values]
    tiles = np.array([*digests, 0], dtype=np.int64)
    index = example.patch_index.numpy()
    patches = np.where(index == NEWLINE, NEWLINE, tiles[index // num_patches] + index % num_patches)
    if example.patch_weight is not None:
        weights = example.patch_weight.numpy().view(np.int32).astype(np.int64)
        patches = ((patches * 1_000_003 + weights) * np.array([1, 3, 5, 7])).sum(1)
    values[values == image_token_id] = patches
    return values


def lay_beside(parts: Sequence[Kept]) -> Kept:
    """Lay rows below each other, padded on the left to the longest."""
    if len(parts) == 1:
        return parts[0]
    width = max(mask.shape[1] for _, mask in parts)
    joined = DynamicCache()
    for layer in range(len(parts[0][0].layers)):
        keys, values = (
            torch.cat([F.pad(states, (0, 0, width - states.shape[2], 0)) for states in parts_of_one])
            for parts_of_one in zip(*[_states(cache, layer) for cache, _ in parts], strict=True)
        )
        joined.update(keys, values, layer)
    return joined, torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for _, mask in parts])


def take_rows(cache: DynamicCache, mask: torch.Tensor, rows: Sequence[int]) -> Kept:
    """Copy some rows without the padding that they share; of a mask shorter than the cache, only the first columns."""
    if not rows:
        return DynamicCache(), mask[:0, :0]
    width = mask.shape[1]
    mask = mask[list(rows)]
    padding = int(mask.any(0).int().argmax())
    taken = DynamicCache()
    for layer in range(len(cache.layers)):
        keys, values = _states(cache, layer)
        taken.update(keys[list(rows), :, padding:width], values[list(rows), :, padding:width], layer)
    return taken, mask[:, padding:]


def _states(cache: DynamicCache, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and values of a layer: [B, heads, L, size] each."""
    states = cache.layers[layer]
    assert isinstance(states, DynamicLayer) and states.keys is not None and states.values is not None
    return states.keys, states.values


def _num_common(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many first values two arrays share."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
