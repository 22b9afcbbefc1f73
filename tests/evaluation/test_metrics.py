"""Figures: golden counts, and ratios that have nothing below the line."""

import pytest

from llava_lite.evaluation.benchmark import Mark, add_up
from llava_lite.evaluation.metrics import Confusion, decision


def test_decisions_are_counted_with_yes_as_the_positive() -> None:
    said_and_correct = [(True, True)] * 4 + [(True, False)] * 3 + [(False, False)] * 2 + [(False, True)]
    marks = [Mark(0.0, "", decision(*pair)) for pair in said_and_correct]
    assert Confusion.of(add_up(marks)) == Confusion(tp=4, fp=3, tn=2, fn=1)


def test_ratios_equal_the_official_ones() -> None:
    """Counts and figures of LLaVA-1.5-13B on POPE random, from the official script."""
    counts = Confusion(tp=1182, fp=31, tn=1379, fn=318)
    assert counts.figures() == {
        "f1": 0.8713601179506082,
        "accuracy": 0.8800687285223368,
        "precision": 0.9744435284418796,
        "recall": 0.788,
        "yes_ratio": 0.4168384879725086,
        "tp": 1182,
        "fp": 31,
        "tn": 1379,
        "fn": 318,
    }


def test_the_yes_ratio_is_of_the_answers_given() -> None:
    assert Confusion(tp=1, fp=2, tn=1, fn=0).yes_ratio == 0.75


@pytest.mark.parametrize("counts", [Confusion(0, 0, 0, 0), Confusion(0, 0, 5, 0), Confusion(0, 0, 0, 5)])
def test_a_ratio_with_nothing_below_the_line_is_zero(counts: Confusion) -> None:
    assert (counts.precision, counts.recall, counts.f1) == (0.0, 0.0, 0.0)
