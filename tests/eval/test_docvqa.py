"""DocVQA: ANLS as its server counts it, both layouts, and what is sent to the server."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    load,
    mark_of,
    needs_reference,
    png,
    shade,
    write_json,
    write_parquet,
    write_png,
)

ROWS = [
    {
        "questionId": 49153,
        "question": "What is the ZIP code?",
        "answers": ["80202", "CO 80202"],
        "question_types": ["handwritten", "form"],
    },
    {"questionId": 24580, "question": "Who signed?", "answers": ["J. Doe"], "question_types": ["form"]},
]
UNLABELLED = [{"questionId": row["questionId"], "question": row["question"]} for row in ROWS]


def write_official(data: Path, qas: str, pages: str, *, name: str = "val_v1.0_withQT.json", rows: Any = ROWS) -> Path:
    pictures = [{**row, "image": f"documents/page_{number}.png"} for number, row in enumerate(rows)]
    write_json(data / qas / name, {"dataset_name": "docvqa", "data": pictures})
    for number in range(len(rows)):
        write_png(data / pages / f"page_{number}.png", number)
    return data


def write_table(data: Path, split: str = "validation") -> Path:
    rows: list[dict[str, Any]] = [{**row, "questionId": str(row["questionId"])} for row in ROWS]
    if split == "test":
        rows = [{**row, "answers": None, "question_types": None} for row in rows]
    rows = [{**row, "image": png(number)} for number, row in enumerate(rows)]
    write_parquet(data / "DocVQA" / "DocVQA" / f"{split}-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize(
    ("qas", "pages"),
    [
        ("docvqa/spdocvqa_qas", "docvqa/spdocvqa_images"),
        ("docvqa/spdocvqa_qas", "docvqa/spdocvqa_qas/documents"),
        ("docvqa", "docvqa/documents"),
        (".", "spdocvqa_images"),
        ("parquet", ""),
    ],
)
def test_every_layout_asks_the_same(tmp_path: Path, qas: str, pages: str) -> None:
    data = write_table(tmp_path) if qas == "parquet" else write_official(tmp_path, qas, pages)
    questions = load("docvqa").questions(data)
    assert asked(questions[0]) == (
        "What is the ZIP code?\nAnswer the question using a single word or phrase.",
        1,
    )
    assert [(q.id, q.correct, q.groups) for q in questions] == [
        (49153, ("80202", "CO 80202"), ("handwritten", "form")),
        (24580, ("J. Doe",), ("form",)),
    ]
    assert [shade(q.conversation.images[0].source) for q in questions] == [0, 1]


def test_anls_is_over_all_and_by_type_of_question(tmp_path: Path) -> None:
    docvqa = load("docvqa")
    questions = docvqa.questions(write_table(tmp_path))
    scores = docvqa.score(questions, [Answer(49153, "80203"), Answer(24580, "john")])
    assert scores.figures == {"anls": 0.4}
    assert scores.groups == {"handwritten": {"anls": 0.8, "n": 1}, "form": {"anls": 0.4, "n": 2}}
    assert mark_of(docvqa, questions[0], " ").parsed is None


def test_strictly_the_threshold_itself_is_wrong(tmp_path: Path) -> None:
    docvqa = load("docvqa")
    question = docvqa.questions(write_table(tmp_path))[1]
    assert [mark_of(docvqa, question, "J. X", strict=strict).credit for strict in (False, True)] == [0.5, 0]


@needs_reference
def test_the_reference_rows_give_their_mean(tmp_path: Path) -> None:
    expected = json.loads((REFERENCE / "rows" / "anls_300.json").read_text())
    docvqa = load("docvqa")
    questions = docvqa.questions(write_official(tmp_path, "docvqa", "docvqa/documents", rows=expected["rows"]))
    said = [Answer(row["questionId"], row["answer"]) for row in expected["rows"]]
    assert docvqa.score(questions, said).figures["anls"] == pytest.approx(expected["mean_anls"], abs=1e-15)


@pytest.mark.parametrize("layout", ["official", "parquet"])
def test_the_test_split_is_not_scored_but_sent(tmp_path: Path, layout: str) -> None:
    if layout == "official":
        write_official(
            tmp_path, "docvqa/spdocvqa_qas", "docvqa/spdocvqa_images", name="test_v1.0.json", rows=UNLABELLED
        )
    else:
        write_table(tmp_path, "test")
    docvqa = load("docvqa", "test")
    questions = docvqa.questions(tmp_path)
    answers = [Answer(49153, "80202"), Answer(24580, "J. Doe")]
    scores = docvqa.score(questions, answers)
    assert (docvqa.name, scores.figures, scores.marks, scores.complete) == ("docvqa-test", {}, {}, True)
    (path,) = docvqa.submit(questions, answers, tmp_path / "submission")
    assert path.name == "docvqa_test.json"
    assert path.read_text() == ('[{"questionId": 49153, "answer": "80202"}, {"questionId": 24580, "answer": "J. Doe"}]')
    assert docvqa.read_answers(path, questions) == answers
    assert load("docvqa").submit(questions, answers, tmp_path / "none") == []


def test_what_is_missing_or_lacks_answers_is_named(tmp_path: Path) -> None:
    docvqa = load("docvqa")
    with pytest.raises(EvaluationError, match=r"spdocvqa_qas/val_v1.0_withQT.json or .* is missing; get it from rrc"):
        docvqa.questions(tmp_path)
    with pytest.raises(EvaluationError, match=r"question 0: needs 'answers'"):
        docvqa.questions(write_official(tmp_path / "none", "docvqa", "docvqa/documents", rows=UNLABELLED))
    rows = [{**ROWS[0], "answers": []}]
    with pytest.raises(EvaluationError, match="question 49153 has no answers"):
        docvqa.questions(write_official(tmp_path / "empty", "docvqa", "docvqa/documents", rows=rows))
    write_json(tmp_path / "docvqa/val_v1.0.json", ROWS)
    with pytest.raises(EvaluationError, match="no list of questions under 'data'"):
        docvqa.questions(tmp_path)


@pytest.mark.parametrize("id", ["x", "", "\u00b2", "9" * 5000])
def test_what_is_no_number_for_the_server_is_told(tmp_path: Path, id: str) -> None:
    write_official(tmp_path, "spdocvqa_qas", "spdocvqa_images", rows=[{**ROWS[0], "questionId": id}])
    with pytest.raises(EvaluationError, match="its questionId is no number"):
        load("docvqa").questions(tmp_path)
