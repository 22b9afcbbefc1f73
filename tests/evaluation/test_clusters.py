"""Clusters of questions are counted once, and are right as a whole or not at all."""

import pytest

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.clusters import count_clusters

QUESTIONS = [Question(id, Conversation().ask("?"), ("yes",), cluster=id[0]) for id in ("a1", "b1", "a2", "b2")]
RIGHT = {"a1": True, "a2": True, "b1": True, "b2": False}


def test_a_cluster_is_counted_with_its_first_question_in_any_order() -> None:
    assert count_clusters(QUESTIONS, RIGHT, lambda question: 2) == {
        "a1": (1, 1),
        "b1": (1, 0),
        "a2": (0, 0),
        "b2": (0, 0),
    }
    back = count_clusters(QUESTIONS[::-1], RIGHT, lambda question: 2)
    assert back == {"a2": (1, 1), "b2": (1, 0), "a1": (0, 0), "b1": (0, 0)}


@pytest.mark.parametrize("left_out", ["a1", "a2"])
def test_a_part_of_a_cluster_is_counted_and_never_right(left_out: str) -> None:
    rest = [question for question in QUESTIONS if question.id != left_out]
    counted = count_clusters(rest, RIGHT, lambda question: 2)
    assert [sum(column) for column in zip(*counted.values(), strict=True)] == [2, 0]
