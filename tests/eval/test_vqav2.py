"""VQAv2: what is asked, the official accuracy on val, and submissions that name every question of test."""

import json
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark
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
    write_json,
    write_lines,
    write_parquet,
)

SUFFIX = "\nAnswer the question using a single word or phrase."
TEXTS = ["What color is the dog?", "How many cats?", "Is it raining?"]


def rows(*, split: str) -> list[dict]:
    """Three questions on two images, as LLaVA's files hold them."""
    names = [f"COCO_{split}_{number:012}.jpg" for number in (1, 1, 262144)]
    return [
        {"question_id": 1000 + i, "image": name, "text": text + SUFFIX, "category": "default"}
        for i, (name, text) in enumerate(zip(names, TEXTS, strict=True))
    ]


def write_test(folder: Path) -> Path:
    """LLaVA's two files: test asks three questions, test-dev the last two of them."""
    write_lines(folder / "llava_vqav2_mscoco_test2015.jsonl", rows(split="test2015"))
    write_lines(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", rows(split="test2015")[1:])
    return folder


def people(*said: str) -> list[dict]:
    return [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(said, start=1)]


def write_val(folder: Path) -> Path:
    asked = [{"question_id": i, "image_id": 42, "question": text} for i, text in enumerate(TEXTS)]
    told = [("other", "what color is the", people(*["brown"] * 2, "the tan", *["dark red"] * 7)),
            ("number", "how many", people(*["2"] * 3, *["3"] * 7)),
            ("yes/no", "is it", people(*["yes"] * 10))]  # fmt: skip
    annotations = [
        {"question_id": i, "image_id": 42, "answer_type": kind, "question_type": group, "answers": answers}
        for i, (kind, group, answers) in enumerate(told)
    ]
    write_json(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    write_json(folder / "v2_mscoco_val2014_annotations.json", {"annotations": annotations[::-1]})
    return folder


def test_the_prompt_is_the_question_and_llavas_instruction(tmp_path: Path) -> None:
    for variant, data in (("test-dev", write_test(tmp_path / "test")), ("val", write_val(tmp_path / "val"))):
        benchmark = load("vqav2", variant)
        prompts = [asked(question) for question in benchmark.questions(data)]
        assert ("How many cats?\nAnswer the question using a single word or phrase.", 1) in prompts
        assert benchmark.max_new_tokens == 128


def test_variants_have_names_and_splits_of_their_own(tmp_path: Path) -> None:
    write_test(tmp_path / "vqav2")
    asked = {name: load("vqav2", variant).questions(tmp_path) for name, variant in (("dev", ""), ("test", "test"))}
    assert [question.id for question in asked["dev"]] == [1001, 1002]
    assert [question.id for question in asked["test"]] == [1000, 1001, 1002]
    assert [load("vqav2", variant).name for variant in ("test-dev", "test", "val")] == [
        "vqav2",
        "vqav2-test",
        "vqav2-val",
    ]


def test_answers_of_test_are_not_scored_but_counted(tmp_path: Path) -> None:
    benchmark = load("vqav2")
    scores = benchmark.score(benchmark.questions(write_test(tmp_path)), [Answer(1001, "2")])
    assert (dict(scores.figures), scores.n, scores.total) == ({}, 1, 2)


def test_a_submission_names_all_of_test_in_its_order(tmp_path: Path) -> None:
    benchmark = load("vqav2")
    questions = benchmark.questions(write_test(tmp_path))
    (path,) = benchmark.submit(questions, [Answer(1002, "A man's hat."), Answer(1001, "Two")], tmp_path / "submission")
    assert path.name == "vqav2_test-dev2015.json"
    assert json.loads(path.read_text()) == [
        {"question_id": 1000, "answer": ""},
        {"question_id": 1001, "answer": "2"},
        {"question_id": 1002, "answer": "man 's hat"},
    ]
    read = benchmark.read_answers(path, questions)
    assert read == [Answer(1001, "2"), Answer(1002, "man 's hat")]  # "" for 1000 is padding, not an answer


def test_of_test_every_answer_is_submitted_and_of_val_none(tmp_path: Path) -> None:
    benchmark = load("vqav2", "test")
    questions = benchmark.questions(write_test(tmp_path))
    (path,) = benchmark.submit(questions, [Answer(question.id, "Yes") for question in questions], tmp_path / "out")
    assert [row["answer"] for row in json.loads(path.read_text())] == ["yes"] * 3
    assert load("vqav2", "val").submit([], [], tmp_path / "none") == []


def test_an_answer_to_what_test_dev_does_not_ask_is_refused(tmp_path: Path) -> None:
    benchmark = load("vqav2")
    questions = benchmark.questions(write_test(tmp_path))
    path = write_json(tmp_path / "answers.json", [{"question_id": 1000, "answer": "dog"}])
    with pytest.raises(EvaluationError, match="1 answers to questions that are not asked"):
        benchmark.score(questions, benchmark.read_answers(path, questions))


def test_val_is_scored_by_answer_and_question_type(tmp_path: Path) -> None:
    benchmark = load("vqav2", "val")
    questions = benchmark.questions(write_val(tmp_path))
    scores = score(benchmark, questions, ["Tan.", "two", "yes"])
    assert {kind: figures["accuracy"] for kind, figures in scores.kinds.items()} == {
        "other": pytest.approx(0.3), "number": pytest.approx(0.9), "yes/no": 1.0
    }  # fmt: skip
    assert list(scores.groups) == ["what color is the", "how many", "is it"]
    assert scores.figures["accuracy"] == pytest.approx(2.2 / 3) and scores.complete


def test_an_answer_is_worth_something_else_raw_submitted_and_strictly(tmp_path: Path) -> None:
    benchmark = load("vqav2", "val")
    questions = benchmark.questions(write_val(tmp_path))[2:]
    assert score(benchmark, questions, ["Yes"]).figures == {"accuracy": 0.0, "as_submitted": 1.0}
    assert score(benchmark, questions, ["Yes"], strict=True).figures == {"accuracy": 1.0, "as_submitted": 1.0}
    assert "strict" in benchmark.faults


@needs_reference
def test_rows_scored_by_the_official_code_give_its_figures(tmp_path: Path) -> None:
    reference = json.loads((REFERENCE / "rows" / "vqa_1500.json").read_text())
    given = reference["rows"]
    asked = [{"question_id": row["question_id"], "image_id": 1, "question": "?"} for row in given]
    told = [{**row, "answers": people(*row["answers"])} for row in given]
    write_json(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    write_json(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": told})
    benchmark = load("vqav2", "val")
    scores = score(benchmark, benchmark.questions(tmp_path), [row["prediction"] for row in given])
    assert round(100 * scores.figures["accuracy"], 2) == reference["mean_vqa_acc"] == 67.24
    for name, figures in {**scores.kinds, **scores.groups}.items():
        own = [row["vqa_acc"] for row in given if name in (row["answer_type"], row["question_type"])]
        assert (figures["n"], figures["accuracy"]) == (len(own), pytest.approx(sum(own) / len(own) / 100, abs=1e-12))


def test_parquet_gives_the_same_questions(tmp_path: Path) -> None:
    table = [{"question_id": row["question_id"], "question": text, "image": png(10 * (i + 1))}
             for i, (row, text) in enumerate(zip(rows(split="test2015"), TEXTS, strict=True))]  # fmt: skip
    write_parquet(tmp_path / "VQAv2" / "data" / "test-00000-of-00001.parquet", table)
    write_parquet(tmp_path / "VQAv2" / "data" / "testdev-00000-of-00001.parquet", table[1:])
    benchmark = load("vqav2")
    questions = benchmark.questions(tmp_path)
    official = load("vqav2").questions(write_test(tmp_path / "llava"))
    assert [(question.id, asked(question)[0]) for question in questions] == [(q.id, asked(q)[0]) for q in official]
    assert [shade(question.conversation.images[0].source) for question in questions] == [20, 30]
    (path,) = benchmark.submit(questions, [Answer(1001, "2"), Answer(1002, "no")], tmp_path / "out")
    assert [row["answer"] for row in json.loads(path.read_text())] == ["", "2", "no"]


def test_parquet_of_val_is_scored_like_the_official_files(tmp_path: Path) -> None:
    official = load("vqav2", "val").questions(write_val(tmp_path / "official"))
    told = json.loads((tmp_path / "official" / "v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    table = [{**row, "question": TEXTS[row["question_id"]], "image": png(50)} for row in told[::-1]]
    write_parquet(tmp_path / "VQAv2" / "data" / "validation-00000-of-00001.parquet", table)
    benchmark: Benchmark = load("vqav2", "val")
    questions = benchmark.questions(tmp_path)
    assert [(q.id, q.correct, q.kind, q.groups) for q in questions] == [
        (q.id, q.correct, q.kind, q.groups) for q in official
    ]


@pytest.mark.parametrize("layout", ["vqav2/test2015", "test2015", "coco/test2015"])
def test_images_may_lie_beside_the_files_or_in_coco(tmp_path: Path, layout: str) -> None:
    write_test(tmp_path / "vqav2")
    (tmp_path / layout).mkdir(parents=True)
    (first, *_) = load("vqav2").questions(tmp_path)
    assert first.conversation.images[0].source == tmp_path / layout / "COCO_test2015_000000000001.jpg"


def test_official_files_name_coco_images(tmp_path: Path) -> None:
    (first, *_) = load("vqav2", "val").questions(write_val(tmp_path))
    assert first.conversation.images[0].source == tmp_path / "vqav2/val2014/COCO_val2014_000000000042.jpg"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"llava_vqav2_mscoco_test2015.jsonl or .* is missing; get it from LLaVA's"
    ):
        load("vqav2").questions(tmp_path)
    write_test(tmp_path)
    (tmp_path / "llava_vqav2_mscoco_test2015.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"test2015"):
        load("vqav2").questions(tmp_path)
    write_val(tmp_path)
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    annotations = json.loads(path.read_text())["annotations"]
    write_json(path, {"annotations": annotations[1:]})
    with pytest.raises(EvaluationError, match="question 2 has no annotation"):
        load("vqav2", "val").questions(tmp_path)
    write_json(path, {"annotations": [annotations[0] | {"answers": []}]})
    with pytest.raises(EvaluationError, match="question 2: needs people's answers"):
        load("vqav2", "val").questions(tmp_path)
    path.unlink()
    with pytest.raises(EvaluationError, match=r"v2_mscoco_val2014_annotations.json is missing"):
        load("vqav2", "val").questions(tmp_path)


def test_two_questions_of_one_id_are_refused(tmp_path: Path) -> None:
    write_test(tmp_path)
    write_lines(tmp_path / "llava_vqav2_mscoco_test-dev2015.jsonl", rows(split="test2015")[:1] * 2)
    with pytest.raises(EvaluationError, match="two questions have the id 1000"):
        read_questions(load("vqav2"), tmp_path)
