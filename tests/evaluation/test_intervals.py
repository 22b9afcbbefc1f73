"""Confidence intervals: as wide as the number of independent pictures says, and the same every time."""

from pathlib import Path

import pytest
from pixel_world import Pixels

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Mark, Question
from llava_lite.evaluation.intervals import Marked, cluster, intervals, marked


def asked(*, images: int, each: int) -> list[Question]:
    return [Question(i, Conversation().ask("?", [Path(f"{i // each}.png")]), ("",)) for i in range(images * each)]


def half_right(questions: list[Question]) -> list[Marked]:
    """All questions about every second image are right."""
    return marked(questions, {q.id: Mark(float(int(cluster(q).removesuffix(".png")) % 2), "") for q in questions})


def width(questions: list[Question]) -> float:
    low, high = intervals(Pixels(), half_right(questions))["accuracy"]
    assert low < 0.5 < high
    return high - low


def test_the_interval_of_a_mean_is_two_standard_errors_to_each_side() -> None:
    assert width(asked(images=400, each=1)) == pytest.approx(2 * 1.96 * 0.5 / 400**0.5, rel=0.1)


def test_questions_about_one_image_count_as_one_piece_of_luck() -> None:
    assert width(asked(images=100, each=4)) == pytest.approx(2 * width(asked(images=400, each=1)), rel=0.1)


def test_the_same_answers_have_the_same_interval() -> None:
    questions = asked(images=30, each=1)
    assert intervals(Pixels(), half_right(questions)) == intervals(Pixels(), half_right(questions))


def test_one_image_says_nothing_of_others() -> None:
    questions = asked(images=1, each=5)
    assert intervals(Pixels(), half_right(questions)) == {}


def test_what_is_asked_without_an_image_stands_alone() -> None:
    first, second = (Question(i, Conversation().ask("?"), ("",)) for i in (1, 2))
    assert cluster(first) != cluster(second)
