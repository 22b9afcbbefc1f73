"""ChartQA: its two files, people's rules for numbers, and both ways its data come."""

import json
from pathlib import Path

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

ROWS = {
    "human": [("a.png", "How many bars?", "14"), ("a.png", "Which is red?", "Lamb")],
    "augmented": [("b.png", "What share?", "7%")],
}


def write_official(data: Path, place: str = "chartqa/test") -> Path:
    for number, (kind, rows) in enumerate(ROWS.items()):
        names = ("imgname", "query", "label")
        write_json(data / place / f"test_{kind}.json", [dict(zip(names, row, strict=True)) for row in rows])
        write_png(data / place / "png" / rows[0][0], number)
    return data


def write_table(data: Path, **changes: str) -> Path:
    rows = [
        {"type": f"{kind}_test", "question": text, "answer": answer, "image": png(number)} | changes
        for number, (kind, rows) in enumerate(ROWS.items())
        for _, text, answer in rows
    ]
    write_parquet(data / "ChartQA" / "data" / "test-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize("place", ["chartqa/test", "ChartQA/ChartQA Dataset/test", "test", "parquet"])
def test_both_layouts_ask_the_same(tmp_path: Path, place: str) -> None:
    data = write_table(tmp_path) if place == "parquet" else write_official(tmp_path, place)
    questions = load("chartqa").questions(data)
    assert asked(questions[0]) == ("How many bars?\nAnswer the question with a single word.", 1)
    assert [(q.id, q.kind, q.correct) for q in questions] == [
        ("human/0", "human", ("14",)),
        ("human/1", "human", ("Lamb",)),
        ("augmented/0", "augmented", ("7%",)),
    ]
    assert [shade(q.conversation.images[0].source) for q in questions] == [0, 0, 1]


def test_the_files_of_the_repository_come_before_parquet(tmp_path: Path) -> None:
    questions = load("chartqa").questions(write_official(write_table(tmp_path, question="Other?")))
    assert {asked(question)[0].split("\n")[0] for question in questions} == {row[1] for r in ROWS.values() for row in r}


def test_accuracy_is_relaxed_and_by_kind(tmp_path: Path) -> None:
    chartqa = load("chartqa")
    questions = chartqa.questions(write_official(tmp_path))
    answers = [Answer(q.id, text) for q, text in zip(questions, ["14.7", "lamb.", "7"], strict=True)]
    scores = chartqa.score(questions, answers)
    assert scores.figures == {"accuracy": pytest.approx(1 / 3)}
    assert scores.kinds == {"human": {"accuracy": 0.5, "n": 2}, "augmented": {"accuracy": 0.0, "n": 1}}
    assert chartqa.score(questions, answers, strict=True).figures == {"accuracy": 1.0}
    assert mark_of(chartqa, questions[0], " ").parsed is None


@needs_reference
def test_the_reference_rows_give_their_mean(tmp_path: Path) -> None:
    expected = json.loads((REFERENCE / "rows" / "relaxed_700.json").read_text())
    labels = [{"imgname": "a.png", "query": "?", "label": row["target"]} for row in expected["rows"]]
    write_json(tmp_path / "test" / "test_human.json", labels)
    write_json(tmp_path / "test" / "test_augmented.json", [])
    chartqa = load("chartqa")
    questions = chartqa.questions(tmp_path)
    said = [Answer(q.id, row["prediction"]) for q, row in zip(questions, expected["rows"], strict=True)]
    assert chartqa.score(questions, said).figures["accuracy"] == expected["mean"]


def test_what_is_missing_is_named_with_its_place_and_source(tmp_path: Path) -> None:
    chartqa = load("chartqa")
    with pytest.raises(EvaluationError, match=r"chartqa/test/test_human.json or .*parquet is missing; get it from git"):
        chartqa.questions(tmp_path)
    (write_official(tmp_path) / "chartqa/test/test_augmented.json").unlink()
    with pytest.raises(EvaluationError, match=r"test_augmented.json is missing"):
        chartqa.questions(tmp_path)
    write_json(tmp_path / "chartqa/test/test_human.json", [{"imgname": "a.png", "query": "?"}])
    with pytest.raises(EvaluationError, match=r"test_human.json, question 1: needs 'label'"):
        chartqa.questions(tmp_path)
    with pytest.raises(EvaluationError, match="type 'val' is none of human_test, augmented_test"):
        chartqa.questions(write_table(tmp_path / "other", type="val"))
