"""Lengths to bins: every item once, no bin over its capacity, the same everywhere."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from llava_lite.data.packing import group, pack

Packer = Callable[[Sequence[int], int], list[list[int]]]


def random_lengths(seed: int) -> tuple[list[int], int]:
    rng = random.Random(seed)
    capacity = rng.randint(1, 50)
    return [rng.randint(1, capacity) for _ in range(rng.randint(0, 60))], capacity


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("packer", [pack, group])
def test_every_item_is_in_exactly_one_bin(packer: Packer, seed: int) -> None:
    lengths, capacity = random_lengths(seed)
    bins = packer(lengths, capacity)
    assert sorted(item for items in bins for item in items) == list(range(len(lengths)))
    assert all(bins)


@pytest.mark.parametrize("seed", range(40))
def test_no_row_holds_more_than_its_capacity(seed: int) -> None:
    lengths, capacity = random_lengths(seed)
    assert all(sum(lengths[i] for i in items) <= capacity for items in pack(lengths, capacity))


@pytest.mark.parametrize("seed", range(40))
def test_no_padded_batch_is_larger_than_its_capacity(seed: int) -> None:
    lengths, capacity = random_lengths(seed)
    assert all(len(items) * max(lengths[i] for i in items) <= capacity for items in group(lengths, capacity))


@pytest.mark.parametrize("seed", range(40))
def test_no_two_rows_would_fit_in_one(seed: int) -> None:
    lengths, capacity = random_lengths(seed)
    totals = sorted(sum(lengths[i] for i in items) for items in pack(lengths, capacity))
    assert all(a + b > capacity for a, b in pairwise(totals))


def test_an_item_goes_where_it_leaves_the_least_space() -> None:
    assert pack([5, 4, 3, 3, 1], 8) == [[0, 2], [1, 3, 4]]
    assert pack([1, 6, 7, 2, 1], 8) == [[2, 0], [1, 3], [4]]


def test_padded_batches_are_cut_where_the_next_item_does_not_fit() -> None:
    assert group([5, 4, 3, 3, 1], 8) == [[0], [1, 2], [3, 4]]
    assert group([3, 4, 4, 3, 1], 12) == [[1, 2, 0], [3, 4]]


@pytest.mark.parametrize("packer", [pack, group])
def test_equal_lengths_keep_their_order(packer: Packer) -> None:
    assert packer([2, 2, 2, 2, 2], 4) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("packer", [pack, group])
def test_an_item_larger_than_a_bin_is_an_error(packer: Packer) -> None:
    assert packer([8], 8) == [[0]]
    with pytest.raises(ValueError, match="item 1 has length 9, more than the capacity of 8"):
        packer([3, 9, 2], 8)
