"""MM-Vet: scores read as the official script reads them, its retries, its groups and its file formats."""

import json
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.generation.chat_model import Sampling
from tests.eval.benchmark_files import (
    asked,
    evaluate_by_command,
    load,
    mark_of,
    png,
    shade,
    write_json,
    write_lines,
    write_parquet,
    write_png,
)

TABLE = "Score it.\n\nQuestion | Truth | Said | Score\n--- | --- | --- | ---\nx? | -1 <AND> -5 | 3 | 0.0\n"
ROWS = {
    "v1_0": {"imagename": "v1_0.png", "question": "What is x?", "answer": "-1<AND>-5", "capability": ["math", "ocr"]},
    "v1_1": {"imagename": "v1_1.jpg", "question": "Who?", "answer": "Ada<OR>Bob", "capability": ["ocr"]},
    "v1_2": {"imagename": "v1_1.jpg", "question": "Where?", "answer": "Rome", "capability": ["know", "rec"]},
}


@pytest.fixture
def mmvet() -> Benchmark:
    return load("mmvet")


def write_mmvet(folder: Path) -> Path:
    write_json(folder / "mm-vet" / "mm-vet.json", ROWS)
    write_evaluator(folder / "mm-vet")
    return folder


def write_evaluator(folder: Path) -> None:
    """A file with the official one's structure, whose table is as ours."""
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        f'import openai\nprompt = """{TABLE}"""\n\n\ndef parse(prompt=prompt):\n    return prompt\n\n\nopenai.run()\n'
    )
    (folder / "mm-vet_evaluator.py").write_text(code)


@pytest.mark.parametrize(
    ("review", "score"),
    [
        ("0.5", 0.5),
        ("1.0", 1.0),
        ("0.3 |", 0.3),
        (" 0.5", None),
        ("0.5\n", 0.5),
        ("1.1", None),
        ("-0.1", None),
        ("good", None),
        ("", None),
        ("nan", None),
        ("0.4|0.6|0.5", 0.5),
        ("0.4|", None),
    ],
)
def test_the_score_is_the_first_word(mmvet: Benchmark, tmp_path: Path, review: str, score: float | None) -> None:
    mark = mark_of(mmvet, mmvet.questions(write_mmvet(tmp_path))[0], review)
    assert mark.credit == (score or 0.0) and (mark.parsed is not None) == (score is not None)
    assert mmvet.judging().readable(review) == (score is not None)


def test_scores_are_averaged_over_all_each_capability_and_each_combination(mmvet: Benchmark, tmp_path: Path) -> None:
    questions = mmvet.questions(write_mmvet(tmp_path))
    scores = mmvet.score(questions, [Answer("v1_0", "0.5"), Answer("v1_1", "1.0"), Answer("v1_2", "0.0")])
    assert scores.figures == {"score": 0.5} and scores.kinds == {}
    assert {group: figures["score"] for group, figures in scores.groups.items()} == {
        "ocr": 0.75, "math": 0.5, "only ocr+math": 0.5, "only ocr": 1.0, "rec": 0.0, "know": 0.0, "only rec+know": 0.0
    }  # fmt: skip


def test_the_judge_continues_the_official_table_and_is_asked_again_as_officially(
    mmvet: Benchmark, tmp_path: Path
) -> None:
    question = mmvet.questions(write_mmvet(tmp_path))[0]
    judging = mmvet.judging(tmp_path)
    conversation = judging.request(question, "x is -1", 0)
    (message,) = conversation.messages
    assert conversation.system is None
    assert message.text == f"{TABLE}\nWhat is x? | -1 <AND> -5 | x is -1 | "
    again = [judging.request(question, "x is -1", attempt).messages[0].text for attempt in range(1, 5)]
    assert set(again) == {f"{message.text}\nPredict the correctness of the answer (digit): "}
    assert [judging.sampling(attempt) for attempt in range(judging.tries)] == [
        Sampling(max_new_tokens=3, temperature=temperature, seed=attempt)
        for attempt, temperature in enumerate((0.0, 0.0, 0.5, 1.0, 1.5))
    ]
    assert judging.official == "gpt-4-0613"


def test_the_model_is_asked_the_bare_question(mmvet: Benchmark, tmp_path: Path) -> None:
    questions = mmvet.questions(write_mmvet(tmp_path))
    assert [asked(question) for question in questions] == [("What is x?", 1), ("Who?", 1), ("Where?", 1)]
    assert mmvet.max_new_tokens == 1024


@pytest.mark.parametrize("place", ["mm-vet", "mmvet", "."])
def test_files_are_found_where_people_put_them(mmvet: Benchmark, tmp_path: Path, place: str) -> None:
    write_json(tmp_path / place / "mm-vet.json", ROWS)
    write_evaluator(tmp_path / place)
    write_png(tmp_path / place / "images" / "v1_0.png", 7)
    (first, *_) = mmvet.questions(tmp_path)
    assert shade(first.conversation.images[0].source) == 7
    assert mmvet.judging(tmp_path).request(first, "", 0).messages[0].text.startswith("Score it.")


def test_a_parquet_folder_holds_the_same(mmvet: Benchmark, tmp_path: Path) -> None:
    rows = [
        {"question_id": id, "question": row["question"], "answer": row["answer"], "image_source": "x", "image": png(n),
         "capability": ",".join(row["capability"])}
        for n, (id, row) in enumerate(ROWS.items())
    ]  # fmt: skip
    write_parquet(tmp_path / "table" / "MMVet" / "data" / "test-00000-of-00001.parquet", rows)
    write_evaluator(tmp_path / "table" / "MMVet")
    questions = mmvet.questions(tmp_path / "table")
    assert [shade(question.conversation.images[0].source) for question in questions] == [0, 1, 2]
    others = mmvet.questions(write_mmvet(tmp_path / "files"))
    for own, other in zip(questions, others, strict=True):
        assert (own.id, asked(own), own.groups, own.correct) == (other.id, asked(other), other.groups, other.correct)
    request = mmvet.judging(tmp_path / "table").request(questions[0], "x", 0)
    assert request == mmvet.judging(tmp_path / "files").request(others[0], "x", 0)


def test_grade_files_of_several_runs_are_averaged(mmvet: Benchmark, tmp_path: Path) -> None:
    grades = {
        "v1_0": {"model": ["gpt-4-0613"] * 2, "content": ["0.5", "0.7"], "score": [0.5, 0.7]},
        "v1_1": {"model": ["gpt-4-0613"] * 2, "content": ["1.0", "1.0"], "score": [1.0, 0.0]},  # the sixth try
        "v1_2": {"model": ["gpt-4-0613"] * 2, "content": ["0.0", "0.2"], "score": [0.0, 0.2]},
    }
    write_json(tmp_path / "grade.json", grades)
    files = ["--answers", tmp_path / "grade.json", "--data", write_mmvet(tmp_path), "--out", tmp_path / "out"]
    assert "3 reviews by gpt-4-0613" in evaluate_by_command("mmvet", *files)
    normal = json.loads((tmp_path / "out" / "scores.json").read_text())["modes"]["normal"]
    assert normal["figures"]["score"] == pytest.approx((0.6 + 0.5 + 0.1) / 3, abs=1e-15)
    assert normal["complete"] and normal["groups"]["ocr"]["score"] == pytest.approx(0.55)


def test_the_submission_is_what_the_official_grader_takes(mmvet: Benchmark, tmp_path: Path) -> None:
    """LLaVA's answers are numbered; the grader's are {"v1_0": text}."""
    write_lines(
        tmp_path / "llava.jsonl", [{"question_id": n, "text": f"says {n}", "answer_id": "x"} for n in (2, 0, 1)]
    )
    out = tmp_path / "out"
    files = ["--answers", tmp_path / "llava.jsonl", "--data", write_mmvet(tmp_path), "--out", out]
    assert "NOT JUDGED: normal" in evaluate_by_command("mmvet", *files)
    written = out / "submission" / "mm-vet.json"
    assert json.loads(written.read_text()) == {f"v1_{n}": f"says {n}" for n in range(3)}
    assert list(json.loads(written.read_text())) == ["v1_0", "v1_1", "v1_2"]
    answers = mmvet.read_answers(written, mmvet.questions(tmp_path))
    assert answers == [Answer(f"v1_{n}", f"says {n}") for n in range(3)]
    assert mmvet.judging().read_replies(written) == []


def test_what_is_missing_is_named_before_a_model_is_loaded(mmvet: Benchmark, tmp_path: Path) -> None:
    from llava_lite.evaluation.command import Request, evaluate

    with pytest.raises(EvaluationError, match=r"mm-vet.json is missing; get it from github.com/yuweihao/MM-Vet"):
        mmvet.questions(tmp_path)
    write_mmvet(tmp_path)
    (tmp_path / "mm-vet" / "mm-vet_evaluator.py").write_text("words = 'x'")
    with pytest.raises(EvaluationError, match=r"mm-vet_evaluator.py: has no text named prompt"):
        evaluate([mmvet], Request(model="m", data=tmp_path), lambda name: 1 / 0)
    (tmp_path / "mm-vet" / "mm-vet_evaluator.py").unlink()
    with pytest.raises(EvaluationError, match=r"mm-vet_evaluator.py or .* is missing; get it from github.com/yuweihao"):
        evaluate([load("mmvet")], Request(model="m", data=tmp_path), lambda name: 1 / 0)
    with pytest.raises(EvaluationError, match="a judge is asked with a file of the data; give --data"):
        mmvet.judging().request(mmvet.questions(tmp_path)[0], "", 0)
    write_json(tmp_path / "mm-vet" / "mm-vet.json", {"v1_0": {"question": "?", "answer": "!"}})
    with pytest.raises(EvaluationError, match=r"mm-vet.json, v1_0: needs 'capability'"):
        mmvet.questions(tmp_path)
