"""RealWorldQA: letters where they are most trusted, open answers to the letter, both datasets."""

from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import asked, load, mark_of, png, shade, write_parquet

CHOICE = (
    "Which way does the lane go?\n\nA. Left\nB. Straight on\nC. Right\n"
    "Please answer directly with only the letter of the correct option and nothing else."
)
OPEN = "How many cars are there? Please answer directly with a single word or number."


def write(data: Path, folder: str = "RealWorldQA/data") -> Path:
    rows = [
        {"question": f"{CHOICE}\n", "answer": "B", "image": png(1)},
        {"question": OPEN, "answer": " Two ", "image": png(2)},
    ]
    write_parquet(data / folder / "test-00000-of-00002.parquet", rows)
    return data


@pytest.mark.parametrize("folder", ["RealWorldQA/data", "RealworldQA/data", "data"])
def test_a_question_is_asked_as_it_is(tmp_path: Path, folder: str) -> None:
    choice, open_question = load("realworldqa").questions(write(tmp_path, folder))
    assert asked(choice) == (CHOICE, 1) and asked(open_question) == (OPEN, 1)
    assert (choice.kind, choice.correct, choice.options) == ("letter", ("B",), ("Left", "Straight on", "Right"))
    assert (open_question.kind, open_question.correct, open_question.options) == ("open", ("Two",), ())
    assert [shade(q.conversation.images[0].source) for q in (choice, open_question)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("B", "B", "B"),
        ("b", None, "B"),
        ("B. Straight on", "B", "B"),
        ("It goes to B", "B", None),  # at the end
        ("The answer is B for now", "B", None),
        ("The answer is A, not B", "B", "A"),  # of several the last
        ("A (B) C", "A", None),  # the beginning before the end, and both before brackets
        ("so A: or (B) it", "B", None),
        ("so A. or B: it", "A", None),  # a period before a colon
        ("so A) or B it", "A", None),  # a bracket before a space
        ("DOGS", "D", None),  # anywhere
        ("选A吧", "A", None),
        ("straight on", None, "B"),
        ("", None, None),
        ("left", None, "A"),
    ],
)
def test_letters_are_read_as_lmms_eval_does_and_strictly_where_they_are_stated(
    tmp_path: Path, text: str, official: str | None, strict: str | None
) -> None:
    realworldqa = load("realworldqa")
    question = realworldqa.questions(write(tmp_path))[0]
    for scoring, letter in ((False, official), (True, strict)):
        mark = mark_of(realworldqa, question, text, strict=scoring)
        assert (mark.parsed, mark.credit) == (letter, float(letter == "B"))


@pytest.mark.parametrize(("text", "credit"), [("two", 1), (" TWO.. ", 1), ("2", 0), ("two cars", 0), ("", 0)])
def test_an_open_answer_is_right_to_the_letter(tmp_path: Path, text: str, credit: float) -> None:
    realworldqa = load("realworldqa")
    question = realworldqa.questions(write(tmp_path))[1]
    assert [mark_of(realworldqa, question, text, strict=strict).credit for strict in (False, True)] == [credit] * 2


def test_accuracy_is_over_all_and_by_kind(tmp_path: Path) -> None:
    realworldqa = load("realworldqa")
    questions = realworldqa.questions(write(tmp_path))
    scores = realworldqa.score(questions, [Answer(0, "A"), Answer(1, "two")])
    assert scores.figures == {"accuracy": 0.5}
    assert {kind: figures["accuracy"] for kind, figures in scores.kinds.items()} == {"letter": 0.0, "open": 1.0}


def test_missing_files_are_named_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"RealWorldQA/data/test-\*.parquet is missing; get it from the dataset"):
        load("realworldqa").questions(tmp_path)
