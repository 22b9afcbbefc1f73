"""Figures: golden counts, and ratios that have nothing below the line."""

import pytest

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.metrics import Confusion, accuracy, accuracy_scores


def test_decisions_are_counted_with_yes_as_the_positive() -> None:
    said_and_correct = [(True, True)] * 4 + [(True, False)] * 3 + [(False, False)] * 2 + [(False, True)]
    assert Confusion.count(said_and_correct) == Confusion(tp=4, fp=3, tn=2, fn=1)


def test_ratios_equal_the_official_ones() -> None:
    """Counts and figures of LLaVA-1.5-13B on POPE random, from the official script."""
    counts = Confusion(tp=1182, fp=31, tn=1379, fn=318)
    assert counts.figures() == {
        "f1": 0.8713601179506082,
        "accuracy": 0.8800687285223368,
        "precision": 0.9744435284418796,
        "recall": 0.788,
        "yes_ratio": 0.4168384879725086,
        "n": 2910,
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


def test_accuracy_averages_credit_over_all_and_by_kind() -> None:
    questions = [Question(i, Conversation().ask("?"), ("",), kind) for i, kind in enumerate("aab")]
    pairs = [(question, "") for question in questions]
    scores = accuracy_scores(pairs, {0: 1.0, 1: 0.5, 2: 0.0}, total=4)
    assert scores.figures == {"accuracy": 0.5}
    assert scores.kinds == {"a": {"accuracy": 0.75, "n": 2}, "b": {"accuracy": 0.0, "n": 1}}
    assert (scores.n, scores.total, scores.complete) == (3, 4, False)
    assert accuracy([]) == 0.0
