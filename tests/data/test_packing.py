"""Lengths to bins: every item once, no bin over its capacity, the same everywhere."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_lite.data.packing import group, pack

Packer = Callable[[Sequence[int], int], list[list[int]]]


packers = pytest.mark.parametrize("packer", [pack, group])
bins = st.integers(1, 50).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=60), st.just(capacity))
)


@packers
@given(given_bins=bins)
def test_every_item_is_in_exactly_one_bin(packer: Packer, given_bins: tuple[list[int], int]) -> None:
    lengths, capacity = given_bins
    packed = packer(lengths, capacity)
    assert sorted(item for items in packed for item in items) == list(range(len(lengths)))
    assert all(packed)


@given(given_bins=bins)
def test_no_row_holds_more_than_its_capacity(given_bins: tuple[list[int], int]) -> None:
    lengths, capacity = given_bins
    assert all(sum(lengths[i] for i in items) <= capacity for items in pack(lengths, capacity))


@given(given_bins=bins)
def test_no_padded_batch_is_larger_than_its_capacity(given_bins: tuple[list[int], int]) -> None:
    lengths, capacity = given_bins
    assert all(len(items) * max(lengths[i] for i in items) <= capacity for items in group(lengths, capacity))


@given(given_bins=bins)
def test_no_two_rows_would_fit_in_one(given_bins: tuple[list[int], int]) -> None:
    lengths, capacity = given_bins
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
