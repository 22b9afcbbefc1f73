"""AI2D: two sets of pictures that must not be mistaken for each other, and answers as lmms-eval reads them."""

from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import asked, load, mark_of, png, shade, write_parquet

ROWS = [
    {"question": "What eats the leaf?", "options": ["a fox", "the bug", "none"], "answer": "1"},
    {"question": "Which is C?", "options": ["stem", "root"], "answer": "0"},
]


def write(data: Path, folder: str, first_shade: int = 0, **changes: str) -> Path:
    rows = [{**row, "image": png(first_shade + number), **changes} for number, row in enumerate(ROWS)]
    write_parquet(data / folder / "test-00000-of-00001.parquet", rows)
    return data


def test_a_question_has_lines_of_options(tmp_path: Path) -> None:
    first, second = load("ai2d").questions(write(tmp_path, "ai2d/data"))
    assert asked(first) == (
        "What eats the leaf?\nA. a fox\nB. the bug\nC. none\n"
        "Answer with the option's letter from the given choices directly.",
        1,
    )
    assert [(q.id, q.correct, q.options) for q in (first, second)] == [
        (0, ("B",), ("a fox", "the bug", "none")),
        (1, ("A",), ("stem", "root")),
    ]


def test_each_variant_finds_its_own_pictures(tmp_path: Path) -> None:
    write(tmp_path, "ai2d/data", 10)
    write(tmp_path, "ai2d-no-mask", 20)
    for variant, expected in (("mask", 10), ("no_mask", 20)):
        questions = load("ai2d", variant).questions(tmp_path)
        assert shade(questions[0].conversation.images[0].source) == expected
    assert load("ai2d", "no_mask").name == "ai2d-no_mask"
    assert len(load("ai2d", "no_mask").questions(tmp_path / "ai2d-no-mask")) == 2
    with pytest.raises(EvaluationError, match=r"ai2d-no-mask/data/test-\*.parquet is missing"):
        load("ai2d", "no_mask").questions(tmp_path / "ai2d")


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("B", "B", "B"),
        ("b", "B", "B"),
        ("(B)", "B", "B"),
        ("B.", "B", "B"),
        ("B. the bug", "B", "B"),
        ("\nB.\n", "B", "B"),
        ("B) the bug", None, "B"),
        ("The answer is B.", None, "B"),
        ("the bug", None, "B"),
        ("A bug", None, None),
        (" B", None, "B"),  # lmms-eval compares white space, too
        ("D", None, None),
        ("D. a fox", None, None),
        ("", None, None),
    ],
)
def test_letters_are_read_as_lmms_eval_does_and_strictly_in_sentences(
    tmp_path: Path, text: str, official: str | None, strict: str | None
) -> None:
    ai2d = load("ai2d")
    question = ai2d.questions(write(tmp_path, "ai2d"))[0]
    for scoring, letter in ((False, official), (True, strict)):
        mark = mark_of(ai2d, question, text, strict=scoring)
        assert (mark.parsed, mark.credit) == (letter, float(letter == "B"))


def test_accuracy_is_the_share_of_right_letters(tmp_path: Path) -> None:
    ai2d = load("ai2d")
    questions = ai2d.questions(write(tmp_path, "ai2d"))
    assert ai2d.score(questions, [Answer(0, "B"), Answer(1, "B")]).figures == {"accuracy": 0.5}


def test_an_answer_beyond_the_options_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"row 1: answer '2' is no place among its options"):
        load("ai2d").questions(write(tmp_path, "ai2d", answer="2"))
