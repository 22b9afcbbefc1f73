"""OCRBench: answers that contain the correct one, the sum of a thousand, official results, both layouts."""

from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import asked, load, mark_of, png, shade, write_json, write_parquet, write_png

WORD, FORMULA, PAGE = (
    "Regular Text Recognition",
    "Handwritten Mathematical Expression Recognition",
    "Doc-oriented VQA",
)
# dataset, id, image, question, answers, type
ROWS: list[tuple[str, int, str, str, Any, str]] = [
    ("IIIT5K", 2843, "IIIT5K/1.png", "what is written in the image?", "CENTRE", WORD),
    ("HME100k", 3, "HME100k/2.png", "Please write the formula.", ["x ^ 2 + Y", "x\n= 2"], FORMULA),
    ("docVQA", 3, "docVQA/3.png", "What is the\nyear? ", ["19\n98", "1998"], PAGE),
    ("docVQA", 3, "docVQA/3.png", "Who signed?", ["J. Doe"], PAGE),
]


def write_official(data: Path, place: str = "ocrbench") -> Path:
    names = ("dataset_name", "id", "image_path", "question", "answers", "type")
    write_json(data / place / "OCRBench.json", [dict(zip(names, row, strict=True)) for row in ROWS])
    for number, row in enumerate(ROWS[:3]):
        write_png(data / "ocrbench" / "OCRBench_Images" / row[2], number)
    return data


def write_table(data: Path) -> Path:
    rows = [
        {
            "dataset": dataset,
            "question": question,
            "question_type": kind,
            "answer": [answers] if isinstance(answers, str) else answers,
            "image": png(min(number, 2)),
        }
        for number, (dataset, _, _, question, answers, kind) in enumerate(ROWS)
    ]
    write_parquet(data / "OCRBench" / "data" / "test-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize("place", ["ocrbench", "ocrbench/json_files", "parquet"])
def test_both_layouts_ask_the_same(tmp_path: Path, place: str) -> None:
    if place == "ocrbench/json_files":
        write_official(tmp_path, "OCRBench/json_files")
        (tmp_path / "ocrbench" / "OCRBench_Images").rename(tmp_path / "OCRBench" / "OCRBench_Images")
    else:
        write_table(tmp_path) if place == "parquet" else write_official(tmp_path)
    questions = load("ocrbench").questions(tmp_path)
    assert [asked(question) for question in questions[1:3]] == [
        ("Please write the formula.", 1),
        ("What is the\nyear?", 1),
    ]
    assert [q.correct for q in questions] == [
        ("CENTRE",),
        ("x ^ 2 + Y", "x\n= 2"),
        ("19\n98", "1998"),
        ("J. Doe",),
    ]
    assert [q.groups for q in questions] == [("Text Recognition",), (), (), ()]
    assert [shade(q.conversation.images[0].source) for q in questions] == [0, 1, 2, 2]
    official = ["IIIT5K/2843", "HME100k/3", "docVQA/3", "docVQA/3#2"]
    assert [q.id for q in questions] == ([0, 1, 2, 3] if place == "parquet" else official)


@pytest.mark.parametrize(
    ("number", "text", "credit"),
    [
        (0, "It says Centre.", 1),
        (0, "centr e", 0),
        (0, "CENTRES", 1),  # what is said may go on
        (0, "", 0),
        (1, "x^2+Y", 1),
        (1, "$x ^2\n + Y$", 1),
        (1, "x^2+y", 0),  # case counts in formulas
        (1, "x=2", 1),
        (2, "in 1998", 1),
        (2, "19 98", 1),
        (2, "19\n98", 1),
        (2, "219980", 1),
    ],
)
def test_an_answer_is_right_when_it_contains_a_correct_one(
    tmp_path: Path, number: int, text: str, credit: float
) -> None:
    ocrbench = load("ocrbench")
    assert mark_of(ocrbench, ocrbench.questions(write_table(tmp_path))[number], text).credit == credit


def test_the_score_is_the_number_of_right_answers(tmp_path: Path) -> None:
    ocrbench = load("ocrbench")
    questions = ocrbench.questions(write_table(tmp_path))
    answers = [Answer(q.id, text) for q, text in zip(questions, ["centre", "?", "1998", "j. doe"], strict=True)]
    scores = ocrbench.score(questions, answers)
    assert scores.figures == {"score": 3.0, "accuracy": 0.75}
    assert scores.kinds[PAGE] == {"score": 2.0, "accuracy": 1.0, "n": 2}
    assert scores.groups == {"Text Recognition": {"score": 1.0, "accuracy": 1.0, "n": 1}}
    assert ocrbench.score(questions, answers).figures == scores.figures  # nothing is kept between two scorings


def test_results_of_the_official_script_are_read(tmp_path: Path) -> None:
    ocrbench = load("ocrbench")
    questions = ocrbench.questions(write_official(tmp_path))
    names = ("dataset_name", "id", "image_path", "question", "answers", "type")
    results = [dict(zip(names, row, strict=True)) for row in ROWS]
    for row, said in zip(results[:3], ["centre", "x", "1998"], strict=True):
        row["predict"] = said
    write_json(tmp_path / "results.json", results)
    answers = ocrbench.read_answers(tmp_path / "results.json", questions)
    assert answers == [Answer("IIIT5K/2843", "centre"), Answer("HME100k/3", "x"), Answer("docVQA/3", "1998")]
    assert not ocrbench.score(questions, answers).complete
    write_json(tmp_path / "own.json", {"docVQA/3#2": "J. Doe"})
    assert ocrbench.read_answers(tmp_path / "own.json", questions) == [Answer("docVQA/3#2", "J. Doe")]


def test_missing_files_and_fields_are_named(tmp_path: Path) -> None:
    ocrbench = load("ocrbench")
    with pytest.raises(EvaluationError, match=r"ocrbench/OCRBench.json or .*parquet is missing; get it from github"):
        ocrbench.questions(tmp_path)
    write_json(tmp_path / "OCRBench.json", [{"dataset_name": "svt", "id": 1, "image_path": "1.png", "question": "?"}])
    with pytest.raises(EvaluationError, match=r"OCRBench.json, question 1: needs 'answers'"):
        ocrbench.questions(tmp_path)
