"""The arithmetic of a step's cost, and the table of devices."""

import pytest

from llava_lite.flops import DEVICES, Cost, linear_flops, num_pairs


def test_a_layer_costs_2n_and_2n_more_for_each_gradient() -> None:
    costs = [linear_flops(10, flows=flows, trains=trains) for flows in (False, True) for trains in (False, True)]
    assert costs == [20, 40, 40, 60]


@pytest.mark.parametrize("length", [1, 6, 7, 8, 30])
@pytest.mark.parametrize("window", [None, 1, 7])
def test_pairs_are_what_a_causal_mask_lets_through(length: int, window: int | None) -> None:
    seen = sum(1 for q in range(length) for k in range(q + 1) if window is None or q - k < window)
    assert num_pairs(length, window) == seen


def test_documents_cost_apart_and_not_as_the_row_they_share() -> None:
    cost = Cost(per_tile=1000, per_token=100, per_target=10, per_pair={None: 1})
    assert cost.flops([3, 2], num_targets=4, num_tiles=1) == 1000 + 500 + 40 + 6 + 3


def test_devices_have_dense_rates() -> None:
    assert DEVICES["NVIDIA A100-SXM4-80GB"].tflops == 312  # its sheet: 312, or 624 with sparsity
    assert DEVICES["NVIDIA H200"].tflops == pytest.approx(1979 / 2, abs=0.5)  # of which its sheet gives the sparse rate
    assert DEVICES["Tesla T4"].tflops is None  # no bf16 units
