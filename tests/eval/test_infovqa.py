"""InfographicVQA: ANLS by the kinds of answer, evidence and operation, both layouts, and what is sent to the server."""

from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import asked, load, mark_of, png, shade, write_json, write_parquet, write_png

ROWS = [
    {
        "questionId": 98313,
        "question": "How many females?",
        "answers": ["24.4", "24.4 million"],
        "answer_type": ["single span"],
        "operation/reasoning": ["counting"],
    },
    {
        "questionId": 98316,
        "question": "How many in total?",
        "answers": ["46"],
        "answer_type": ["non-extractive"],
        "operation/reasoning": ["arithmetic"],
    },
]
UNLABELLED = [{"questionId": row["questionId"], "question": row["question"]} for row in ROWS]


def write_official(data: Path, *, name: str = "infographicsVQA_val_v1.0_withQT.json", rows: Any = ROWS) -> Path:
    places = [{**row, "image_local_name": f"{number}.jpeg", "evidence": ["Map"]} for number, row in enumerate(rows)]
    write_json(data / "infovqa" / "infographicsvqa_qas" / name, {"data": places})
    for number in range(len(rows)):
        write_png(data / "infovqa" / "infographicsvqa_images" / f"{number}.jpeg", number)
    return data


def write_table(data: Path, split: str = "validation") -> Path:
    rows: list[dict[str, Any]] = [{**row, "questionId": str(row["questionId"])} for row in ROWS]
    if split == "test":
        rows = [{**row, "answers": None, "answer_type": None, "operation/reasoning": None} for row in rows]
    rows = [{**row, "image": png(number)} for number, row in enumerate(rows)]
    write_parquet(data / "DocVQA" / "InfographicVQA" / f"{split}-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize("layout", ["official", "parquet"])
def test_both_layouts_ask_the_same(tmp_path: Path, layout: str) -> None:
    questions = load("infovqa").questions((write_official if layout == "official" else write_table)(tmp_path))
    assert asked(questions[0]) == ("How many females?\nAnswer the question using a single word or phrase.", 1)
    assert [(q.id, q.correct) for q in questions] == [(98313, ("24.4", "24.4 million")), (98316, ("46",))]
    assert [shade(q.conversation.images[0].source) for q in questions] == [0, 1]
    evidence = ("evidence: Map",) * (layout == "official")
    assert [set(q.groups) for q in questions] == [
        {"answer_type: single span", "operation/reasoning: counting", *evidence},
        {"answer_type: non-extractive", "operation/reasoning: arithmetic", *evidence},
    ]


def test_the_other_task_of_the_same_folder_is_not_taken_for_it(tmp_path: Path) -> None:
    write_table(tmp_path)
    with pytest.raises(EvaluationError, match=r"docvqa: .* is missing"):
        load("docvqa").questions(tmp_path)


def test_anls_is_over_all_and_by_group(tmp_path: Path) -> None:
    infovqa = load("infovqa")
    questions = infovqa.questions(write_table(tmp_path))
    scores = infovqa.score(questions, [Answer(98313, "24.5"), Answer(98316, "64")])
    assert scores.figures == {"anls": 0.375}
    assert scores.groups["answer_type: single span"] == {"anls": 0.75, "n": 1}
    assert [mark_of(infovqa, questions[1], "4", strict=strict).credit for strict in (False, True)] == [0.5, 0]


@pytest.mark.parametrize("layout", ["official", "parquet"])
def test_the_test_split_is_not_scored_but_sent(tmp_path: Path, layout: str) -> None:
    if layout == "official":
        write_official(tmp_path, name="infographicsVQA_test_v1.0.json", rows=UNLABELLED)
    else:
        write_table(tmp_path, "test")
    infovqa = load("infovqa", "test")
    questions = infovqa.questions(tmp_path)
    answers = [Answer(98313, "24.4"), Answer(98316, "“46”")]
    assert infovqa.score(questions, answers).marks == {}
    (path,) = infovqa.submit(questions, answers, tmp_path / "submission")
    assert path.name == "infovqa_test.json" and infovqa.read_answers(path, questions) == answers
    assert load("infovqa").submit(questions, answers, tmp_path / "none") == []


def test_what_is_missing_or_lacks_answers_is_named(tmp_path: Path) -> None:
    infovqa = load("infovqa")
    with pytest.raises(EvaluationError, match=r"infographicsVQA_val_v1.0_withQT.json or .*DocVQA/InfographicVQA"):
        infovqa.questions(tmp_path)
    with pytest.raises(EvaluationError, match="question 98313 has no answers"):
        infovqa.questions(write_official(tmp_path, rows=[{**ROWS[0], "answers": []}]))
