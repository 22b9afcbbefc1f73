"""MathVista: who needs a judge, what an extraction amounts to, the official cuts and file formats."""

import json
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark, Question
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
    write_parquet,
    write_png,
)

EXAMPLES = "\nRead these.\n\nHint: a number\nQuestion: How many?\n\nModel response: Two.\n\nExtracted answer: 2\n"


def row(
    pid: int, answer: str, answer_type: str, choices: list[str] | None = None, precision: float | None = None
) -> dict:
    skills = ["arithmetic reasoning", "geometry reasoning"] if pid % 2 else ["logical reasoning"]
    return {
        "question": f"What is {pid}?", "image": f"images/{pid}.jpg", "choices": choices, "unit": None,
        "precision": precision, "answer": answer, "question_type": "multi_choice" if choices else "free_form",
        "answer_type": answer_type, "pid": str(pid),
        "metadata": {
            "split": "testmini", "language": "english", "source": "IQTest", "category": "general-vqa",
            "task": ("math word problem", "figure question answering")[pid % 2], "context": "bar chart",
            "grade": "college", "skills": skills, "img_width": 1, "img_height": 1,
        },
    }  # fmt: skip


ROWS = {
    "1": row(1, "145°", "text", ["135°", "140°", "145°", "150°"]),
    "2": row(2, "5", "integer"),
    "3": row(3, "1.2", "float", precision=1.0),
    "4": row(4, "[2007, 2008]", "list"),
}


@pytest.fixture
def mathvista() -> Benchmark:
    return load("mathvista")


@pytest.fixture
def questions(mathvista: Benchmark, tmp_path: Path) -> dict[str, Question]:
    return {str(question.id): question for question in mathvista.questions(write_mathvista(tmp_path / "data"))}


def write_mathvista(folder: Path) -> Path:
    write_json(folder / "MathVista" / "testmini.json", ROWS)
    write_json(folder / "MathVista" / "query.json", {id: f"Hint: x\nQuestion: What is {id}?" for id in ROWS})
    (folder / "MathVista" / "ext_ans.py").write_text(f'\n\ndemo_prompt = """{EXAMPLES}"""\n')
    return folder


@pytest.mark.parametrize(
    ("id", "extraction", "official", "strict"),
    [
        ("1", "145°", "145°", "145°"),
        ("1", "C", "145°", "145°"),
        ("1", "(c) 140°", "145°", "145°"),
        ("1", "The answer is (B) or (C)", "140°", "140°"),
        ("1", "c", "135°", None),  # all are three edits and a letter away: the first
        ("1", "", "135°", None),
        ("1", "(F)", "135°", None),
        ("1", "E", "135°", None),
        ("1", "1450", "145°", None),
        ("1", " 150° ", "150°", "150°"),
        ("1", "It is 150 degrees", "150°", None),
        ("2", "5", "5", "5"),
        ("2", "5.9", "5", "5.9"),
        ("2", "5.0", "5", "5"),
        ("2", "five", None, None),
        ("2", "", None, None),
        ("2", "inf", None, "inf"),
        ("3", "1.24", "1.2", "1.2"),
        ("3", "1.25", "1.2", "1.2"),
        ("3", "1.20 m", None, None),
        ("3", "1", "1.0", "1.0"),
        ("4", "[2007, 2008]", "[2007, 2008]", "[2007, 2008]"),
        ("4", "[2007,2008]", "[2007,2008]", "[2007, 2008]"),
        ("4", "2007, 2008", "2007, 2008", None),
        ("4", "[" * 100_000, "[" * 100_000, None),
    ],
)
def test_extractions_amount_to_what_they_do_officially(
    mathvista: Benchmark,
    questions: dict[str, Question],
    id: str,
    extraction: str,
    official: str | None,
    strict: str | None,
) -> None:
    correct = ROWS[id]["answer"]
    for wanted, mark in (
        (official, mark_of(mathvista, questions[id], extraction)),
        (strict, mark_of(mathvista, questions[id], extraction, strict=True)),
    ):
        assert (mark.parsed, mark.credit) == (wanted, float(wanted == correct))


@pytest.mark.parametrize(
    ("id", "answer", "needed"),
    [
        ("1", "145°", False),
        ("1", "C", True),
        ("1", "145", True),
        ("2", "5", False),
        ("2", "-12", False),
        ("2", "5.0", True),
        ("3", "5.0", False),
        ("3", "1e3", False),
        ("3", "1.2 m", True),
        ("4", "[1, 2]", True),
        ("4", "", False),
        ("2", "", False),
    ],
)
def test_the_judge_is_spared_where_the_official_rules_read_an_answer(
    mathvista: Benchmark, questions: dict[str, Question], id: str, answer: str, needed: bool
) -> None:
    assert mathvista.judging().needed(questions[id], answer) is needed


def test_the_judge_is_asked_after_the_official_examples(
    mathvista: Benchmark, questions: dict[str, Question], tmp_path: Path
) -> None:
    judging = mathvista.judging(tmp_path / "data")
    (message,) = judging.request(questions["2"], "There are five.", 0).messages
    assert message.text == (
        "Read these.\n\nHint: a number\nQuestion: How many?\n\nModel response: Two.\n\nExtracted answer: 2\n\n"
        "Hint: x\nQuestion: What is 2?\n\nThere are five.\n\nExtracted answer: "
    )
    assert [judging.sampling(attempt) for attempt in range(judging.tries)] == [
        Sampling(max_new_tokens=1024, temperature=temperature, seed=attempt)
        for attempt, temperature in enumerate((0.0, 0.5, 1.0))
    ]
    assert judging.readable("5") and not judging.readable(" \n")


def test_the_model_is_asked_with_the_files_prompts(mathvista: Benchmark, questions: dict[str, Question]) -> None:
    assert [asked(question) for question in questions.values()] == [
        (f"Hint: x\nQuestion: What is {id}?", 1) for id in ROWS
    ]
    assert mathvista.max_new_tokens == 1024


def test_accuracy_is_cut_in_all_the_official_ways(mathvista: Benchmark, questions: dict[str, Question]) -> None:
    said = {"1": "C", "2": "4", "3": "1.2", "4": "[2007, 2008]"}
    scores = mathvista.score(list(questions.values()), [Answer(id, text) for id, text in said.items()])
    assert scores.figures == {"accuracy": 0.75}
    cut = {name: (figures["accuracy"], figures["n"]) for name, figures in {**scores.kinds, **scores.groups}.items()}
    assert cut == {
        "math word problem": (0.5, 2), "figure question answering": (1.0, 2),
        "skill: arithmetic reasoning": (1.0, 2), "skill: geometry reasoning": (1.0, 2),
        "skill: logical reasoning": (0.5, 2),
        "question_type: multi_choice": (1.0, 1), "question_type: free_form": (2 / 3, 3),
        "answer_type: text": (1.0, 1), "answer_type: integer": (0.0, 1), "answer_type: float": (1.0, 1),
        "answer_type: list": (1.0, 1), "language: english": (0.75, 4), "source: IQTest": (0.75, 4),
        "category: general-vqa": (0.75, 4), "context: bar chart": (0.75, 4), "grade: college": (0.75, 4),
    }  # fmt: skip


def test_official_results_are_read_as_reviews_or_where_nothing_is_extracted_as_answers(
    mathvista: Benchmark, questions: dict[str, Question], tmp_path: Path
) -> None:
    responses = {"1": "It is (C).", "2": "5", "3": "1.2", "4": "From 2007 to 2008."}
    extractions = {"1": "C", "2": "5", "3": "1.2", "4": "[2007, 2008]"}
    results = {id: {**ROWS[id], "response": responses[id]} for id in ROWS}
    write_json(tmp_path / "output.json", results)
    assert mathvista.read_answers(tmp_path / "output.json", []) == [Answer(id, text) for id, text in responses.items()]
    files = ["--data", tmp_path / "data", "--answers", tmp_path / "output.json"]
    told = evaluate_by_command("mathvista", *files, "--out", tmp_path / "one")
    assert "NOT JUDGED: normal" in told
    requests = (tmp_path / "one" / "review_requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"].partition("#")[0] for line in requests] == ["1", "4"]
    write_json(tmp_path / "output.json", {id: {**results[id], "extraction": extractions[id]} for id in ROWS})
    told = evaluate_by_command("mathvista", *files, "--out", tmp_path / "two")
    assert "4 reviews by output.json" in told
    assert json.loads((tmp_path / "two" / "scores.json").read_text())["modes"]["normal"]["figures"]["accuracy"] == 1.0


def test_the_test_split_has_no_answers_and_gets_its_submission(tmp_path: Path) -> None:
    write_mathvista(tmp_path)
    hidden = {id: {**own, "answer": ""} for id, own in ROWS.items()}
    write_json(tmp_path / "MathVista" / "test.json", hidden)
    (tmp_path / "MathVista" / "ext_ans.py").unlink()
    write_json(tmp_path / "said.json", {id: f"says {id}" for id in ROWS})
    out = tmp_path / "out"
    told = evaluate_by_command("mathvista-test", "--answers", tmp_path / "said.json", "--data", tmp_path, "--out", out)
    assert "JUDGED" not in told
    written = json.loads((out / "submission" / "test.json").read_text())
    assert written == {id: f"says {id}" for id in ROWS}
    assert not (out / "review_requests.jsonl").exists()


def test_a_parquet_folder_holds_the_same(mathvista: Benchmark, questions: dict[str, Question], tmp_path: Path) -> None:
    rows = [
        {**own, "query": f"Hint: x\nQuestion: What is {id}?", "decoded_image": png(n), "answer": own["answer"]}
        for n, (id, own) in enumerate(ROWS.items())
    ]
    write_parquet(tmp_path / "table" / "MathVista" / "data" / "testmini-00000-of-00001.parquet", rows)
    found = mathvista.questions(tmp_path / "table")
    assert [shade(question.conversation.images[0].source) for question in found] == [0, 1, 2, 3]
    for own, other in zip(found, questions.values(), strict=True):
        assert (own.id, asked(own), own.correct, own.kind) == (other.id, asked(other), other.correct, other.kind)
        assert own.groups == other.groups and own.row == other.row
    write_mathvista(tmp_path / "table")
    assert isinstance(mathvista.questions(tmp_path / "table")[0].conversation.images[0].source, Path)


def test_files_and_images_are_found_and_what_is_missing_is_named(mathvista: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"testmini.json is missing; get it from github.com/lupantech/MathVista"):
        mathvista.questions(tmp_path)
    write_mathvista(tmp_path)
    write_png(tmp_path / "MathVista" / "images" / "2.jpg", 3)
    (_, second, *_) = mathvista.questions(tmp_path)
    assert shade(second.conversation.images[0].source) == 3
    with pytest.raises(EvaluationError, match="a judge is asked with a file of the data; give --data"):
        mathvista.judging().request(second, "x", 0)
    write_json(tmp_path / "MathVista" / "query.json", {"1": "x"})
    with pytest.raises(EvaluationError, match=r"question 2 has no prompt in query.json"):
        mathvista.questions(tmp_path)
    (tmp_path / "MathVista" / "query.json").unlink()
    with pytest.raises(EvaluationError, match=r"query.json is missing"):
        mathvista.questions(tmp_path)
    write_json(tmp_path / "MathVista" / "testmini.json", {"1": {**ROWS["1"], "metadata": None}})
    write_json(tmp_path / "MathVista" / "query.json", {"1": "x"})
    with pytest.raises(EvaluationError, match=r"testmini.json, 1: needs 'metadata'"):
        mathvista.questions(tmp_path)
