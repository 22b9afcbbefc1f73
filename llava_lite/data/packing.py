"""Lengths to bins. Pure: the same lengths give the same bins everywhere."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import torch

WINDOW = 2**15


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items into as few bins as best-fit decreasing finds; no bin holds more than `capacity`.

    Returns the indices of each bin, largest item first; ties keep their order. Raises ValueError for an item that is
    larger than a bin.

        capacity 8, lengths 5 4 3 3 1  ->  [5 3] [4 3 1]
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (space left, bin), sorted
    for item in _largest_first(lengths, capacity):
        place = bisect_left(free, (lengths[item], -1))
        if place == len(free):
            free.append((capacity, len(bins)))  # in order: the other bins have less space than this item needs
            bins.append([])
        space, number = free.pop(place)
        bins[number].append(item)
        insort(free, (space - lengths[item], number))
    return bins


def group(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Cut items, sorted by length, into groups whose padded size (items x longest) fits `capacity`.

    Order and error are those of `pack`.

        capacity 8, lengths 5 4 3 3 1  ->  [5] [4 3] [3 1]
    """
    groups: list[list[int]] = []
    for item in _largest_first(lengths, capacity):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (len(groups[-1]) + 1) * longest <= capacity:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def pack_epoch(lengths: np.ndarray, order: np.ndarray, capacity: int, generator: torch.Generator) -> list[np.ndarray]:
    """Pack all samples of an epoch into rows, in shuffled order: a row is the int32 [k] samples in it.

    Best fit looks at WINDOW samples of the order at a time, which fills rows as well as looking at all, and leaves what
    stands in a row, and near it, to chance.
    """
    rows: list[np.ndarray] = []
    for start in range(0, len(order), WINDOW):
        window = order[start : start + WINDOW]
        bins = pack(lengths[window].tolist(), capacity)
        rows += [window[bins[i]].astype(np.int32) for i in torch.randperm(len(bins), generator=generator).tolist()]
    return rows


def _largest_first(lengths: Sequence[int], capacity: int) -> list[int]:
    items = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if items and lengths[items[0]] > capacity:
        raise ValueError(f"item {items[0]} has length {lengths[items[0]]}, more than the capacity of {capacity}")
    return items
