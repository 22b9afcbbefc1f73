"""What was computed for a conversation, kept until its next turn: neither its images nor its words are read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from transformers import Cache

from llava_lite.example import Example, hash_tile
from llava_lite.generation.cache import Rows, states_of, take_rows
from llava_lite.images.layout import NEWLINE


class Conversations:
    """The last conversations, up to `max_tokens` tokens of them; those longest unused go first.

    A conversation is taken up only by one that goes on from it: all of its last prompt begins the new one. So what is
    asked once does not depend, not even in its last bits, on what was asked before.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._known: OrderedDict[int, tuple[np.ndarray, int, Cache]] = OrderedDict()
        self._next = 0

    def find(self, prompt: np.ndarray) -> Rows | None:
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
        mask = torch.ones(1, longest, dtype=torch.long, device=states_of(cache, 0)[0].device)
        return take_rows(cache, mask, [0])

    def keep(self, prompt: np.ndarray, answer: Sequence[int], cache: Cache) -> None:
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

    def clear(self) -> None:
        """Keep nothing of what was kept so far."""
        self._known.clear()


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


def _num_common(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many first values two arrays share."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
