"""Full rows: every sample once an epoch, rows as full as best fit makes them, the same whenever they are planned."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_lite.data import packing
from llava_lite.data.packing import pack_epoch
from llava_lite.data.sampler import permutation
from llava_lite.data.steps import FullRows

lengths = st.lists(st.integers(1, 64), min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.int32))


def laid_out(plan: FullRows) -> list[list[int]]:
    return [row for step in range(plan.num_steps) for row in plan.rows(step)]


@given(lengths=lengths, per_step=st.integers(1, 5), seed=st.integers(0, 3), epochs=st.integers(1, 3))
def test_each_epoch_holds_every_sample_once_in_rows_that_fit(
    lengths: np.ndarray, per_step: int, seed: int, epochs: int
) -> None:
    plan = FullRows(lengths, per_step=per_step, row_tokens=64, seed=seed, epochs=epochs)
    rows = laid_out(plan)
    assert Counter(item for row in rows for item in row) == dict.fromkeys(range(len(lengths)), epochs)
    assert all(0 < lengths[row].sum() <= 64 for row in rows)
    assert all(len(plan.rows(step)) == per_step for step in range(plan.num_steps - 1))
    assert laid_out(FullRows(lengths, per_step=per_step, row_tokens=64, seed=seed, epochs=epochs)) == rows


@given(lengths=lengths, per_step=st.integers(1, 5), max_steps=st.integers(1, 40))
def test_max_steps_stops_earlier_or_later_in_the_same_rows(lengths: np.ndarray, per_step: int, max_steps: int) -> None:
    long = FullRows(lengths, per_step=per_step, row_tokens=64, seed=0, epochs=60)
    capped = FullRows(lengths, per_step=per_step, row_tokens=64, seed=0, epochs=1, max_steps=max_steps)
    assert capped.num_steps == max_steps
    for step in range(min(max_steps, long.num_steps - 1)):
        assert capped.rows(step) == long.rows(step)


def test_part_of_an_epoch_packs_its_first_samples() -> None:
    lengths = np.full(100, 10, dtype=np.int32)
    half = FullRows(lengths, per_step=1, row_tokens=30, seed=3, epochs=0.5)
    assert sorted(item for row in laid_out(half) for item in row) == sorted(permutation(100, 3, 0)[:50].tolist())


def test_each_seed_and_epoch_has_rows_of_its_own() -> None:
    lengths = np.arange(1, 51, dtype=np.int32)
    plan = FullRows(lengths, per_step=1, row_tokens=64, seed=0, epochs=2)
    half = plan.num_steps // 2
    assert laid_out(plan)[:half] != laid_out(plan)[half:]
    assert laid_out(FullRows(lengths, per_step=1, row_tokens=64, seed=1)) != laid_out(plan)[:half]


@settings(max_examples=30)
@given(lengths=lengths, window=st.integers(1, 90))
def test_windows_of_any_size_lose_nothing(lengths: np.ndarray, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW", window)
        order = permutation(len(lengths), 0, 0).numpy()
        rows = pack_epoch(lengths, order, 64, torch.Generator().manual_seed(0))
    assert sorted(item for row in rows for item in row.tolist()) == list(range(len(lengths)))


def test_rows_of_8192_are_97_percent_full_at_lengths_like_llavas() -> None:
    generator = np.random.default_rng(0)
    kinds = generator.choice(5, size=60_000, p=[0.237, 0.305, 0.238, 0.159, 0.061])
    text = generator.lognormal(np.log(np.array([270, 165, 400, 180, 1200])[kinds]) - 0.18, 0.6).clip(50, 2048)
    lengths = (text + 576 * (kinds != 4)).astype(np.int32)
    rows = pack_epoch(lengths, permutation(60_000, 0, 0).numpy(), 8192, torch.Generator().manual_seed(0))
    assert lengths.sum() / (8192 * len(rows)) > 0.97


def test_long_samples_do_not_come_first() -> None:
    lengths = np.concatenate([np.full(500, 60), np.full(500, 6)]).astype(np.int32)
    rows = pack_epoch(lengths, np.arange(1000), 64, torch.Generator().manual_seed(0))
    short = np.flatnonzero([lengths[row].max() == 6 for row in rows])
    assert 0.3 < short.mean() / len(rows) < 0.7
