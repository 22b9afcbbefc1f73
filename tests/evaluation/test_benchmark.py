"""Questions: what their files may lack."""

from pathlib import Path
from typing import Any

import pytest

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.files import EvaluationError


def test_a_question_without_its_picture_is_refused() -> None:
    with pytest.raises(EvaluationError, match="question 7: its picture is missing"):
        Question(7, Conversation().ask("What is it?", [Path("a.png"), None]), ("dog",))


@pytest.mark.parametrize("field", ["correct", "groups", "options"])
@pytest.mark.parametrize("wrong", [None, 5, ["dog"]])
def test_what_is_no_text_where_a_text_should_be_is_refused(field: str, wrong: Any) -> None:
    fields: dict[str, Any] = {"correct": ("dog",), field: ("dog", wrong)}
    with pytest.raises(EvaluationError, match=r"question 7: .* stands where a text should"):
        Question(7, Conversation().ask("What is it?"), **fields)
