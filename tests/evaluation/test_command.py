"""Answers made elsewhere, strict scoring and variants, through the command that people use."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from pixel_world import PixelModel, Pixels, read_scores

from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import Request, evaluate
from llava_lite.evaluation.files import EvaluationError


class Spelt(Pixels):
    """Officially "Red" is not red."""

    variants: ClassVar = {"small": "", "big": "twice the pixels"}
    faults = "capitals are wrong; strict: they are not"

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {
            question.id: Mark(float((text.lower() if strict else text) == question.correct[0]), text or None)
            for question, text in pairs
        }

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        folder.mkdir()
        (folder / "sent.json").write_text(json.dumps([answer.text for answer in answers]))
        return [folder / "sent.json"]


def no_model(name: str) -> PixelModel:
    raise AssertionError("no model is needed")


def score(benchmark: Benchmark, data: Path, answers: Path, **more: object) -> dict:
    out = answers.parent / "out"
    return evaluate([benchmark], Request(data=data, answers=answers, out=out, **more), no_model)[benchmark.name]


def write_answers(folder: Path, content: object) -> Path:
    lines = content if isinstance(content, str) else json.dumps(content)
    (folder / "made.json").write_text(lines)
    return folder / "made.json"


ROWS = [{"question_id": number, "text": "red"} for number in range(20)]


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"{json.dumps(row)}\n" for row in ROWS),
        ROWS,
        [{"questionId": str(row["question_id"]), "prediction": row["text"]} for row in reversed(ROWS)],
        {str(row["question_id"]): row["text"] for row in ROWS},
    ],
    ids=["lines", "list", "other names, other order, ids as text", "object"],
)
def test_answers_made_elsewhere_are_scored_without_a_model(data: Path, tmp_path: Path, content: object) -> None:
    scores = score(Pixels(), data, write_answers(tmp_path, content))
    assert (scores["model"], scores["complete"], scores["model_sha256"]) == ("made.json", True, None)
    assert scores["modes"]["normal"]["figures"] == {"accuracy": 0.25}
    assert scores == read_scores(tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


def test_other_answers_do_not_take_the_place_of_those_scored_before(data: Path, tmp_path: Path) -> None:
    first = score(Pixels(), data, write_answers(tmp_path, ROWS))
    assert score(Pixels(), data, write_answers(tmp_path, ROWS)) == first
    with pytest.raises(EvaluationError, match="answers of another decoding"):
        score(Pixels(), data, write_answers(tmp_path, ROWS[:-1]))


def test_a_part_of_the_answers_is_marked(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score(Pixels(), data, write_answers(tmp_path, ROWS[:-1]))
    assert re.search(r"│ PARTIAL +│ 19 │", capsys.readouterr().out)
    assert (scores["complete"], scores["modes"]["normal"]["n"], scores["modes"]["normal"]["total"]) == (False, 19, 20)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"question_id": 1, "text": "red"}\n{"question_id"', "line 2: not JSON"),
        ([{"question_id": 1}], "answer 1: needs one of text, prediction"),
        ([{"text": "red"}], "answer 1: needs one of question_id"),
        ([3], "answer 1: not an object"),
        ([*ROWS, ROWS[0]], "question 0 has two answers"),
        ([], "no answers in there"),
        ([{"question_id": 77, "text": "red"}], "1 answers to questions that are not asked"),
    ],
)
def test_broken_answers_are_refused_by_name(data: Path, tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        score(Pixels(), data, write_answers(tmp_path, content))
    assert not (tmp_path / "out" / "scores.json").exists()


def test_letters_that_are_not_utf8_are_refused_with_their_line(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    path.write_bytes(b'{"question_id": 0, "text": "red"}\n{"question_id": 1, "text": "r\xff"}\n')
    with pytest.raises(EvaluationError, match=r"made.jsonl, line 2: not JSON"):
        score(Pixels(), data, path)
    with pytest.raises(EvaluationError, match="no such file of answers"):
        score(Pixels(), data, tmp_path / "gone.jsonl")


def test_strict_scoring_stands_beside_the_official_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_answers(tmp_path, [row | {"text": "Red" if row["question_id"] else ""} for row in ROWS])
    scores = score(Spelt(), data, answers, strict=True)["modes"]["normal"]
    assert (scores["figures"], scores["strict"]) == ({"accuracy": 0.0}, {"accuracy": 0.2})
    assert scores["unparsed"] == [0]
    assert "all, strict" in capsys.readouterr().out
    with pytest.raises(EvaluationError, match="no fault is known"):
        score(Pixels(), data, answers, strict=True)


def test_a_whole_run_leaves_what_the_test_server_takes_and_a_part_does_not(data: Path, tmp_path: Path) -> None:
    evaluate([Spelt()], Request(data=data, model="m", out=tmp_path, limit=19), PixelModel)
    assert not (tmp_path / "submission").exists()
    evaluate([Spelt()], Request(data=data, model="m", out=tmp_path), PixelModel)
    assert len(json.loads((tmp_path / "submission" / "sent.json").read_text())) == 20


def test_a_variant_has_a_name_of_its_own() -> None:
    assert [Spelt().name, Spelt("small").name, Spelt("big").name] == ["pixels", "pixels", "pixels-big"]
    with pytest.raises(EvaluationError, match="no variant 'bog'; did you mean 'big'"):
        Spelt("bog")
    with pytest.raises(EvaluationError, match="it has none"):
        Pixels("big")


def test_a_model_or_answers_are_given_and_not_both(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="either --model"):
        Request(data=tmp_path)
    with pytest.raises(EvaluationError, match="either --model"):
        Request(data=tmp_path, model="m", answers=tmp_path)
    with pytest.raises(EvaluationError, match="scored as they are"):
        Request(data=tmp_path, answers=tmp_path, limit=3)


def test_what_cannot_be_shuffled_is_told_before_anything_is_asked(data: Path, tmp_path: Path) -> None:
    path = data / "pixels.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(EvaluationError, match="no other to shuffle in"):
        evaluate([Pixels()], Request(data=data, model="m", out=tmp_path, modes=["normal", "shuffled"]), no_model)
