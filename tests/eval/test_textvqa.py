"""TextVQA: two prompts that must not be confused, answers joined by image and question, and M4C's accuracy."""

import json
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    load,
    needs_reference,
    png,
    score,
    shade,
    write_json,
    write_lines,
    write_parquet,
)

SUFFIX = "\nAnswer the question using a single word or phrase."
IMAGES = ["003a8ae2ef43b901", "003a8ae2ef43b901", "0054c91397f2fe05"]
TEXTS = ["what brand of camera is this?", "What NASA unit?", "what brand of camera is this?"]
TOKENS = [["Dakota", "DIGITAL", "Single-Use"], ["Dakota", "DIGITAL", "Single-Use"], []]
PEOPLE = [["dakota"] * 3 + ["nous les gosses"] * 7, ["nasa"] * 10, ["a", "b"] * 5]
LLAVA = "llava_textvqa_val_v051_ocr.jsonl"


def rows() -> list[dict]:
    return [
        {"question_id": 34602 + i, "image_id": image, "question": text, "answers": said}
        for i, (image, text, said) in enumerate(zip(IMAGES, TEXTS, PEOPLE, strict=True))
    ]


def with_ocr(question: str, tokens: list[str]) -> str:
    return f"{question}\nReference OCR token: {', '.join(tokens)}{SUFFIX}"


def write_textvqa(folder: Path) -> Path:
    write_json(folder / "TextVQA_0.5.1_val.json", {"data": rows()})
    prompts = [
        {"question_id": image, "image": f"{image}.jpg", "text": with_ocr(text, tokens), "category": "default"}
        for image, text, tokens in zip(IMAGES, TEXTS, TOKENS, strict=True)
    ]
    write_lines(folder / LLAVA, prompts[::-1])
    return folder


def test_both_prompts_are_as_written_here(tmp_path: Path) -> None:
    write_textvqa(tmp_path)
    assert [asked(question)[0] for question in load("textvqa").questions(tmp_path)][:3:2] == [
        "what brand of camera is this?\nReference OCR token: Dakota, DIGITAL, Single-Use\n"
        "Answer the question using a single word or phrase.",
        "what brand of camera is this?\nReference OCR token: \nAnswer the question using a single word or phrase.",
    ]
    assert asked(load("textvqa", "plain").questions(tmp_path)[1]) == (
        "What NASA unit?\nAnswer the question using a single word or phrase.",
        1,
    )
    assert [load("textvqa", variant).name for variant in ("", "plain")] == ["textvqa", "textvqa-plain"]
    assert load("textvqa").max_new_tokens == 128


def test_without_ocr_llavas_file_is_not_needed(tmp_path: Path) -> None:
    write_textvqa(tmp_path / "textvqa")
    (tmp_path / "textvqa" / LLAVA).unlink()
    assert [question.id for question in load("textvqa", "plain").questions(tmp_path)] == [34602, 34603, 34604]
    with pytest.raises(EvaluationError, match=f"{LLAVA} is missing"):
        load("textvqa").questions(tmp_path)


def test_answers_earn_what_m4c_gives_them(tmp_path: Path) -> None:
    benchmark = load("textvqa")
    scores = score(benchmark, benchmark.questions(write_textvqa(tmp_path)), ["Dakota.", "NASA", "a c"])
    assert [mark.credit for mark in scores.marks.values()] == [pytest.approx(0.9), 1, 0]
    assert [mark.parsed for mark in scores.marks.values()] == ["dakota", "nasa", "c"]
    assert scores.figures == {"accuracy": pytest.approx(1.9 / 3)}


@needs_reference
def test_rows_scored_by_the_official_code_give_its_figure(tmp_path: Path) -> None:
    reference = json.loads((REFERENCE / "rows" / "vqa_1500.json").read_text())
    data = [
        {
            "question_id": row["question_id"],
            "image_id": str(row["question_id"]),
            "question": "?",
            "answers": row["answers"],
        }
        for row in reference["rows"]
    ]
    write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": data})
    benchmark = load("textvqa", "plain")
    scores = score(benchmark, benchmark.questions(tmp_path), [row["prediction"] for row in reference["rows"]])
    assert scores.figures["accuracy"] == pytest.approx(reference["mean_textvqa_acc"], abs=1e-12)


def test_llavas_answers_are_joined_by_image_and_question(tmp_path: Path) -> None:
    benchmark = load("textvqa")
    questions = benchmark.questions(write_textvqa(tmp_path))
    said = [
        {"question_id": IMAGES[i], "prompt": with_ocr(TEXTS[i].upper(), TOKENS[i]), "text": f"said {i}"}
        for i in (2, 1, 0)
    ]
    path = write_lines(tmp_path / "answers.jsonl", said)
    assert benchmark.read_answers(path, questions) == [
        Answer(34604, "said 2"), Answer(34603, "said 1"), Answer(34602, "said 0")
    ]  # fmt: skip
    write_lines(path, [said[0], said[0]])
    with pytest.raises(EvaluationError, match="about image 0054c91397f2fe05 is asked, or only once"):
        benchmark.read_answers(path, questions)
    write_lines(path, [{"question_id": IMAGES[0], "text": "dakota"}])
    with pytest.raises(EvaluationError, match="line 1: needs 'prompt'"):
        benchmark.read_answers(path, questions)


def test_one_question_asked_twice_gets_two_answers_and_the_last_correct_ones(tmp_path: Path) -> None:
    twice = [rows()[0], {**rows()[1], "question": TEXTS[0].upper()}]
    write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": twice})
    benchmark = load("textvqa", "plain")
    questions = benchmark.questions(tmp_path)
    assert [question.correct[0] for question in questions] == ["nasa", "nasa"]
    said = [{"question_id": IMAGES[0], "prompt": TEXTS[0] + SUFFIX, "text": text} for text in ("first", "second")]
    path = write_lines(tmp_path / "answers.jsonl", said)
    assert benchmark.read_answers(path, questions) == [Answer(34602, "first"), Answer(34603, "second")]


def test_answers_by_textvqas_own_ids_are_read_too(tmp_path: Path) -> None:
    benchmark = load("textvqa")
    questions = benchmark.questions(write_textvqa(tmp_path))
    path = write_json(tmp_path / "answers.json", [{"question_id": 34603, "answer": "nasa"}])
    assert benchmark.read_answers(path, questions) == [Answer(34603, "nasa")]
    write_json(path, {"99": "nobody"})
    with pytest.raises(EvaluationError, match="not asked"):
        benchmark.score(questions, benchmark.read_answers(path, questions))


@pytest.mark.parametrize(
    "prompt",
    [
        "what nasa UNIT?\nReference OCR token: a, b\nAnswer the question using a single word or phrase.",
        "Reference OCR token: a, b\nwhat nasa UNIT?\nAnswer the question using a single word or phrase.",
        "what nasa UNIT?\nAnswer the question using a single word or phrase.",
        "OCR tokens: a, b. Question: what nasa UNIT? Short answer:",
    ],
)
def test_the_question_is_found_in_every_form_of_llavas_prompts(tmp_path: Path, prompt: str) -> None:
    benchmark = load("textvqa")
    questions = benchmark.questions(write_textvqa(tmp_path))
    path = write_lines(tmp_path / "answers.jsonl", [{"question_id": IMAGES[1], "prompt": prompt, "text": "nasa"}])
    assert benchmark.read_answers(path, questions) == [Answer(34603, "nasa")]


def test_parquet_gives_the_same_questions(tmp_path: Path) -> None:
    table = [
        {**row, "ocr_tokens": tokens, "image": png(40 * i)}
        for i, (row, tokens) in enumerate(zip(rows(), TOKENS, strict=True))
    ]
    write_parquet(tmp_path / "textvqa" / "data" / "validation-00000-of-00001.parquet", table)
    write_textvqa(tmp_path / "official")
    for variant in ("ocr", "plain"):
        benchmark = load("textvqa", variant)
        questions, official = benchmark.questions(tmp_path), benchmark.questions(tmp_path / "official")
        assert [(q.id, asked(q)[0], q.correct) for q in questions] == [(q.id, asked(q)[0], q.correct) for q in official]
        assert [shade(question.conversation.images[0].source) for question in questions] == [0, 40, 80]


def test_images_lie_where_llava_has_them_or_beside_the_files(tmp_path: Path) -> None:
    write_textvqa(tmp_path / "textvqa")
    (first, *_) = load("textvqa").questions(tmp_path)
    assert first.conversation.images[0].source == tmp_path / "textvqa/train_images/003a8ae2ef43b901.jpg"
    (tmp_path / "train_images").mkdir()
    (first, *_) = load("textvqa").questions(tmp_path)
    assert first.conversation.images[0].source == tmp_path / "train_images/003a8ae2ef43b901.jpg"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"TextVQA_0.5.1_val.json or .* is missing; get it from LLaVA's eval.zip"):
        load("textvqa").questions(tmp_path)
    write_textvqa(tmp_path)
    lines = (tmp_path / LLAVA).read_text().splitlines(keepends=True)
    (tmp_path / LLAVA).write_text("".join(lines[1:]))
    with pytest.raises(EvaluationError, match="question 34604 about image 0054c91397f2fe05 has no prompt"):
        load("textvqa").questions(tmp_path)
    write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": [{**rows()[0], "answers": ["x"] * 9}]})
    with pytest.raises(EvaluationError, match="question 34602: 9 people's answers where ten are needed"):
        load("textvqa").questions(tmp_path)
    write_json(tmp_path / "TextVQA_0.5.1_val.json", [])
    with pytest.raises(EvaluationError, match="needs 'data'"):
        load("textvqa").questions(tmp_path)
