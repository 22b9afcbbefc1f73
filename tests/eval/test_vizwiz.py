"""VizWiz: a published submission to the letter, the prompt that permits Unanswerable, and val as it is submitted."""

import gzip
import json
from pathlib import Path

import pytest

from llava_lite.evaluation.answers import read_answers
from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    load,
    needs_reference,
    png,
    score,
    shade,
    unpack,
    write_json,
    write_lines,
    write_parquet,
)

SUFFIX = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    "\nAnswer the question using a single word or phrase."
)
NAMES = [f"VizWiz_test_{number:08}.jpg" for number in range(2)]
TEXTS = ["What is this?", "Which  color?"]


def write_test(folder: Path) -> Path:
    rows = [{"question_id": i, "image": NAMES[i], "text": TEXTS[i] + SUFFIX, "category": "default"} for i in (1, 0)]
    write_lines(folder / "llava_test.jsonl", rows)
    return folder


def write_val(folder: Path) -> Path:
    """Two questions: three say "soda can" of ten, all say "t-shirt"."""
    said = [["soda can"] * 3 + ["unanswerable"] * 6 + ["Soda can"], ["t-shirt"] * 10]
    rows = [
        {
            "image": NAMES[i],
            "question": TEXTS[i],
            "answers": [{"answer": text, "answer_confidence": "yes"} for text in said[i]],
            "answer_type": ("other", "unanswerable")[i],
            "answerable": 1,
        }
        for i in range(2)
    ]
    write_json(folder / "Annotations" / "val.json", rows)
    write_json(
        folder / "Annotations" / "test.json", [{"image": row["image"], "question": row["question"]} for row in rows]
    )
    return folder


@needs_reference
def test_a_published_models_answers_give_its_submission(tmp_path: Path) -> None:
    source = REFERENCE / "vizwiz"
    unpack(source / "llava_test.jsonl.gz", tmp_path / "vizwiz" / "llava_test.jsonl")
    answers = unpack(source / "llava-v1.5-13b.jsonl.gz", tmp_path / "answers.jsonl")
    benchmark = load("vizwiz")
    questions = read_questions(benchmark, tmp_path)
    given = benchmark.read_answers(answers, questions)
    scores = benchmark.score(questions, given)
    assert (scores.complete, scores.n, dict(scores.figures)) == (True, 8000, {})
    (path,) = benchmark.submit(questions, given, tmp_path)
    published = json.loads(gzip.decompress((source / "answers_upload_llava-v1.5-13b.json.gz").read_bytes()))
    assert json.loads(path.read_text()) == published
    assert given == read_answers(answers)
    assert [answer.question_id for answer in benchmark.read_answers(path, questions)] == [q.id for q in questions]


def test_the_prompt_permits_to_say_unanswerable(tmp_path: Path) -> None:
    write_test(write_val(tmp_path))
    expected = (
        "What is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    assert (
        asked(load("vizwiz").questions(tmp_path)[1])
        == asked(load("vizwiz", "val").questions(tmp_path)[0])
        == (expected, 1)
    )
    assert load("vizwiz").max_new_tokens == 128


def test_a_submission_names_images_in_the_order_of_the_question_file(tmp_path: Path) -> None:
    benchmark = load("vizwiz")
    questions = benchmark.questions(write_test(tmp_path))
    (path,) = benchmark.submit(questions, [Answer(0, "A man's can."), Answer(1, "Unanswerable")], tmp_path / "out")
    assert json.loads(path.read_text()) == [
        {"image": NAMES[1], "answer": "unanswerable"},
        {"image": NAMES[0], "answer": "man 's can"},
    ]
    assert benchmark.read_answers(path, questions) == [Answer(1, "unanswerable"), Answer(0, "man 's can")]
    assert load("vizwiz", "val").submit([], [], tmp_path / "none") == []


def test_a_submission_lacks_no_question(tmp_path: Path) -> None:
    benchmark = load("vizwiz")
    questions = benchmark.questions(write_test(tmp_path))
    with pytest.raises(EvaluationError, match=r"1 unanswered questions \(0"):
        benchmark.submit(questions, [Answer(1, "Black")], tmp_path)


def test_val_is_scored_as_submitted_against_peoples_own_words(tmp_path: Path) -> None:
    benchmark = load("vizwiz", "val")
    questions = benchmark.questions(write_val(tmp_path))
    scores = score(benchmark, questions, ["The soda can.", "T-shirt"])
    assert scores.figures == {"accuracy": pytest.approx(0.45)}
    assert {kind: figures["accuracy"] for kind, figures in scores.kinds.items()} == {
        "other": pytest.approx(0.9), "unanswerable": 0.0
    }  # fmt: skip
    strict = score(benchmark, questions, ["The soda can.", "T-shirt"], strict=True)
    assert strict.figures == {"accuracy": 1.0}


@pytest.mark.parametrize("folder", ["Annotations", "."])
def test_official_annotations_do_for_test_too(tmp_path: Path, folder: str) -> None:
    benchmark = load("vizwiz")
    write_val(tmp_path / "vizwiz")
    (tmp_path / "vizwiz" / "Annotations" / "test.json").rename(tmp_path / "vizwiz" / folder / "test.json")
    questions = benchmark.questions(tmp_path)
    assert [(question.id, question.correct) for question in questions] == [(NAMES[0], ()), (NAMES[1], ())]
    assert questions[0].conversation.images[0].source == tmp_path / "vizwiz" / "test" / NAMES[0]


def test_images_may_lie_beside_the_files(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (first, _) = load("vizwiz", "val").questions(write_val(tmp_path))
    assert first.conversation.images[0].source == tmp_path / "val" / NAMES[0]


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_parquet_names_images_with_and_without_their_suffix(tmp_path: Path, suffix: str) -> None:
    rows = [
        {
            "question_id": name.removesuffix(".jpg") + suffix,
            "question": text,
            "answers": ["x"] * 10,
            "category": "other",
            "image": png(30 * i),
        }
        for i, (name, text) in enumerate(zip(NAMES, TEXTS, strict=True))
    ]
    write_parquet(tmp_path / "VizWiz-VQA" / "data" / "test-00000-of-00001.parquet", rows)
    write_parquet(tmp_path / "VizWiz-VQA" / "data" / "val-00000-of-00001.parquet", rows)
    benchmark = load("vizwiz")
    questions = benchmark.questions(tmp_path)
    assert [shade(question.conversation.images[0].source) for question in questions] == [0, 30]
    assert asked(questions[0]) == (TEXTS[0] + SUFFIX, 1)
    (path,) = benchmark.submit(questions, [Answer(question.id, "x") for question in questions], tmp_path)
    assert [row["image"] for row in json.loads(path.read_text())] == NAMES
    val = load("vizwiz", "val")
    assert score(val, val.questions(tmp_path), ["X", "y"]).kinds == {"other": {"accuracy": 0.5, "n": 2}}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"vizwiz/llava_test.jsonl or .* is missing; get it from LLaVA's eval.zip"
    ):
        load("vizwiz").questions(tmp_path)
    with pytest.raises(EvaluationError, match=r"vizwiz/Annotations/val.json or .* is missing"):
        load("vizwiz", "val").questions(tmp_path)
    write_json(tmp_path / "val.json", [{"image": "1.jpg", "question": "?", "answers": [], "answer_type": "other"}])
    with pytest.raises(EvaluationError, match=r"val.json, 1.jpg: needs people's answers"):
        load("vizwiz", "val").questions(tmp_path)
    write_json(tmp_path / "val.json", {"questions": []})
    with pytest.raises(EvaluationError, match=r"val.json: no list of questions"):
        load("vizwiz", "val").questions(tmp_path)
