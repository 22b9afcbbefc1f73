"""POPE: the official parse and figures to the last digit, on made-up answers and on a published model's."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from llava_lite.evaluation.answers import read_answers
from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    evaluate_by_command,
    expected_scores,
    load,
    mark_of,
    needs_reference,
    png,
    shade,
    write_lines,
    write_parquet,
)

CATEGORIES = ("adversarial", "popular", "random")
SUFFIX = "\nAnswer the question using a single word or phrase."
THINGS = {"dog": "yes", "cat": "no"}


@pytest.fixture
def pope() -> Benchmark:
    return load("pope")


def write_pope(folder: Path, *, offset: int = 10_000_000) -> Path:
    """Two questions on one image in each category; label files count from 1, as the official ones do."""
    questions = []
    for index, category in enumerate(CATEGORIES):
        labels = []
        for number, (thing, label) in enumerate(THINGS.items(), start=1):
            text = f"Is there a {thing} in the image?"
            labels.append({"question_id": number, "image": "1.jpg", "text": text, "label": label})
            row = {"question_id": index * offset + number, "image": "1.jpg", "text": text + SUFFIX}
            questions.append(row | {"category": category})
        write_lines(folder / "coco" / f"coco_pope_{category}.json", labels)
    write_lines(folder / "llava_pope_test.jsonl", questions)
    return folder


def write_hub(data: Path, *, full: bool = False, categories: tuple[str, ...] = CATEGORIES, label: str = "") -> Path:
    """The same as lmms-lab has it: pooled, or a split for each category."""
    rows = [
        {
            "id": str(number), "question_id": str(number), "question": f"Is there a {thing} in the image?",
            "answer": label or answer, "image_source": "1", "image": png(1), "category": category,
        }
        for category in categories for number, (thing, answer) in enumerate(THINGS.items(), start=1)
    ]  # fmt: skip
    if full:
        for category in categories:
            path = data / "POPE" / "Full" / f"{category}-00000-of-00001.parquet"
            write_parquet(path, [row for row in rows if row["category"] == category])
    else:
        write_parquet(data / "POPE" / "data" / "test-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize(
    ("text", "means_yes"),
    [
        ("No, there is not.", False),
        ("Yes", True),
        ("There is no dog. Yes", False),
        ("NO", True),
        ("nothing", True),
        ("no.", False),
        ("No\nYes", True),
        ("", True),
        ("Yes. No", True),
        ("It is not", False),
        ("No,", False),
    ],
)
def test_answers_are_read_as_the_official_script_reads_them(
    pope: Benchmark, tmp_path: Path, text: str, means_yes: bool
) -> None:
    questions = pope.questions(write_pope(tmp_path))
    scores = pope.score(questions, [Answer(question.id, text) for question in questions])
    assert scores.figures["yes_ratio"] == float(means_yes)


@needs_reference
def test_a_published_models_answers_give_its_published_figures(pope: Benchmark, tmp_path: Path) -> None:
    questions = read_questions(pope, unpack_reference(tmp_path))
    expected = expected_scores()["pope"]
    scores = pope.score(questions, read_reference("llava-v1.5-13b.jsonl.gz", tmp_path))
    assert (scores.n, scores.complete) == (8910, True)
    assert scores.figures["f1"] == pytest.approx(expected.pop("mean_f1"), abs=1e-12)
    assert {kind: {**figures} for kind, figures in scores.kinds.items()} == {
        kind: {name.lower(): value for name, value in figures.items()} for kind, figures in expected.items()
    }


@needs_reference
def test_an_incomplete_run_is_never_scored_as_if_whole(tmp_path: Path) -> None:
    data = unpack_reference(tmp_path)
    read_reference("partial_llava-v1.5-7b.jsonl.gz", tmp_path)
    options = ("--data", data, "--answers", tmp_path / "answers.jsonl", "--out", tmp_path / "out")
    assert "PARTIAL: normal 5712 of 8910 questions" in evaluate_by_command("pope", *options)
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    normal = written["modes"]["normal"]
    assert (written["complete"], normal["n"], normal["total"]) == (False, 5712, 8910)
    assert "Not a result. PARTIAL: normal 5712 of 8910" in (tmp_path / "out" / "report.html").read_text()


def test_a_run_with_one_question_unanswered_is_marked_partial(pope: Benchmark, tmp_path: Path) -> None:
    data = write_pope(tmp_path / "data")
    rows = [{"question_id": question.id, "text": "Yes"} for question in pope.questions(data)]
    for answered, told in ((rows[:-1], True), (rows, False)):
        write_lines(tmp_path / "answers.jsonl", answered)
        out = tmp_path / f"out-{told}"
        printed = evaluate_by_command("pope", "--data", data, "--answers", tmp_path / "answers.jsonl", "--out", out)
        assert ("PARTIAL: normal 5 of 6 questions" in printed) == told
        assert json.loads((out / "scores.json").read_text())["complete"] != told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NO", "no"),
        ("no!", "no"),
        ("It's not there", "no"),
        ("YES.", "yes"),
        ("There is one. Yes", "yes"),
        ("", None),
        ("unsure", None),
        ("yes and no", None),
    ],
)
def test_strict_scoring_takes_nothing_for_a_yes(pope: Benchmark, tmp_path: Path, text: str, said: str | None) -> None:
    yes, no, *_ = pope.questions(write_pope(tmp_path))
    for question, correct in ((yes, "yes"), (no, "no")):
        mark = mark_of(pope, question, text, strict=True)
        assert (mark.parsed, mark.credit) == (said, said == correct)
        wrong = {"yes": "fn", "no": "fp"}[correct]
        assert mark.counts[wrong] == (said != correct)


def test_strict_figures_stand_beside_the_official_ones(pope: Benchmark, tmp_path: Path) -> None:
    data = write_pope(tmp_path / "data")
    write_lines(tmp_path / "answers.jsonl", [{"question_id": q.id, "text": "unsure"} for q in pope.questions(data)])
    options = ("--data", data, "--answers", tmp_path / "answers.jsonl", "--out", tmp_path / "out")
    assert "all, strict" in evaluate_by_command("pope", *options, "--scoring", "strict")
    normal = json.loads((tmp_path / "out" / "scores.json").read_text())["modes"]["normal"]
    assert (normal["figures"]["f1"], normal["figures"]["yes_ratio"]) == (pytest.approx(2 / 3), 1.0)
    assert (normal["strict"]["f1"], normal["strict"]["accuracy"], normal["strict"]["yes_ratio"]) == (0.0, 0.0, 0.5)


def test_figures_over_all_are_means_of_the_categories(pope: Benchmark, tmp_path: Path) -> None:
    questions = pope.questions(write_pope(tmp_path))
    said = ["Yes", "Yes", "Yes", "No", "No", "No"]  # adversarial, popular, random
    scores = pope.score(questions, [Answer(q.id, text) for q, text in zip(questions, said, strict=True)])
    assert [scores.kinds[kind]["f1"] for kind in scores.kinds] == [pytest.approx(2 / 3), 1.0, 0.0]
    assert scores.figures["f1"] == pytest.approx(5 / 9)
    assert [mark.credit for mark in scores.marks.values()] == [1, 0, 1, 1, 0, 1]


def test_labels_are_found_whatever_their_order_and_numbers(pope: Benchmark, tmp_path: Path) -> None:
    write_pope(tmp_path)
    path = tmp_path / "coco" / "coco_pope_random.json"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    labels = {(q.kind, q.conversation.messages[0].text): q.correct for q in pope.questions(tmp_path)}
    for category in CATEGORIES:
        for thing, label in THINGS.items():
            assert labels[category, f"Is there a {thing} in the image?{SUFFIX}"] == (label,)


def test_ids_stay_as_they_are_unless_every_category_counts_anew(pope: Benchmark, tmp_path: Path) -> None:
    official = pope.questions(write_pope(tmp_path / "official"))
    assert [question.id for question in official] == [1, 2, 10000001, 10000002, 20000001, 20000002]
    anew = read_questions(pope, write_pope(tmp_path / "anew", offset=0))
    assert [question.id for question in anew][:3] == ["adversarial/1", "adversarial/2", "popular/1"]


def test_the_prompt_is_the_question_with_the_short_answer_instruction(pope: Benchmark, tmp_path: Path) -> None:
    expected = ("Is there a dog in the image?\nAnswer the question using a single word or phrase.", 1)
    assert asked(pope.questions(write_pope(tmp_path / "official"))[0]) == expected
    assert asked(pope.questions(write_hub(tmp_path))[0]) == expected
    assert pope.max_new_tokens == 128


@pytest.mark.parametrize("full", [False, True])
def test_the_hubs_dataset_has_the_same_questions(pope: Benchmark, tmp_path: Path, full: bool) -> None:
    questions = read_questions(pope, write_hub(tmp_path / "hub", full=full))
    official = pope.questions(write_pope(tmp_path / "official"))
    assert sorted((q.kind, asked(q), q.correct) for q in questions) == sorted(
        (q.kind, asked(q), q.correct) for q in official
    )
    assert {str(question.id) for question in questions} == {f"{name}/{n}" for name in CATEGORIES for n in (1, 2)}
    assert {shade(question.conversation.images[0].source) for question in questions} == {1}
    scores = pope.score(questions, [Answer(question.id, "Yes") for question in questions])
    assert scores.figures["f1"] == pytest.approx(2 / 3)


def test_the_official_files_come_before_the_hubs(pope: Benchmark, tmp_path: Path) -> None:
    write_hub(tmp_path)
    assert pope.questions(tmp_path)[0].id == "adversarial/1"
    write_pope(tmp_path)
    assert pope.questions(tmp_path)[0].id == 1


@pytest.mark.parametrize("full", [False, True])
def test_a_missing_category_is_named(pope: Benchmark, tmp_path: Path, full: bool) -> None:
    """The mean of two categories is not POPE's."""
    write_hub(tmp_path / "hub", full=full, categories=("popular", "random"))
    with pytest.raises(EvaluationError, match="missing or unknown categories: adversarial"):
        pope.questions(tmp_path / "hub")
    write_pope(tmp_path)
    path = tmp_path / "llava_pope_test.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))
    with pytest.raises(EvaluationError, match="missing or unknown categories: adversarial"):
        pope.questions(tmp_path)


def test_an_answer_of_the_hub_that_is_neither_is_named(pope: Benchmark, tmp_path: Path) -> None:
    write_hub(tmp_path, label="maybe")
    with pytest.raises(EvaluationError, match="question adversarial/1 needs an answer, yes or no; it has 'maybe'"):
        pope.questions(tmp_path)


@pytest.mark.parametrize("layout", ["data/val2014", "data/images", "images", "data/pope/val2014"])
def test_files_may_lie_in_llavas_folders_or_beside_each_other(pope: Benchmark, tmp_path: Path, layout: str) -> None:
    data = tmp_path / "data"
    write_pope(data / "pope" if layout != "data/val2014" else data)
    image = data / layout.removeprefix("data/") / "1.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.touch()
    assert {question.conversation.images[0].source for question in pope.questions(data)} == {image}


def test_a_missing_label_file_or_label_is_named(pope: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"llava_pope_test.jsonl or .* is missing; get it from LLaVA's eval.zip"):
        pope.questions(tmp_path)
    write_pope(tmp_path)
    path = tmp_path / "coco" / "coco_pope_random.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, rows[:1])
    with pytest.raises(EvaluationError, match=r"question 20000002 \(random\) has no label"):
        pope.questions(tmp_path)
    write_lines(path, [*rows, rows[0] | {"label": "no"}])
    with pytest.raises(EvaluationError, match="needs one label"):
        pope.questions(tmp_path)
    path.unlink()
    with pytest.raises(EvaluationError, match=r"coco_pope_random.json is missing"):
        pope.questions(tmp_path)


def unpack_reference(folder: Path) -> Path:
    """Lay the reference files out as people download them."""
    source = REFERENCE / "pope"
    (folder / "coco").mkdir()
    for path in source.glob("coco_pope_*.json"):
        shutil.copyfile(path, folder / "coco" / path.name)
    (folder / "llava_pope_test.jsonl").write_bytes(gzip.decompress((source / "llava_pope_test.jsonl.gz").read_bytes()))
    return folder


def read_reference(name: str, folder: Path) -> list[Answer]:
    path = folder / "answers.jsonl"
    path.write_bytes(gzip.decompress((REFERENCE / "pope" / name).read_bytes()))
    return read_answers(path)
