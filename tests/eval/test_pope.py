"""POPE: the official parse and figures to the last digit, on made-up answers and on a published model's."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from llava_lite.evaluation.answers import read_answers
from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.command import load_benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions

CHECKOUT = Path(__file__).parents[2]
REFERENCE = CHECKOUT.parent / "shared" / "reference_scores"
EVAL_FILE = CHECKOUT / "eval" / "pope.py"
SUFFIX = "\nAnswer the question using a single word or phrase."
THINGS = {"dog": "yes", "cat": "no"}

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference scores at {REFERENCE}")


@pytest.fixture
def pope() -> Benchmark:
    return load_benchmark(EVAL_FILE)


def write_pope(folder: Path, *, offset: int = 10_000_000) -> Path:
    """Two questions on one image in each category; label files count from 1, as the official ones do."""
    (folder / "coco").mkdir(parents=True)
    questions = []
    for index, category in enumerate(("adversarial", "popular", "random")):
        labels = []
        for number, (thing, label) in enumerate(THINGS.items(), start=1):
            text = f"Is there a {thing} in the image?"
            labels.append({"question_id": number, "image": "1.jpg", "text": text, "label": label})
            row = {"question_id": index * offset + number, "image": "1.jpg", "text": text + SUFFIX}
            questions.append(row | {"category": category})
        write_lines(folder / "coco" / f"coco_pope_{category}.json", labels)
    write_lines(folder / "llava_pope_test.jsonl", questions)
    return folder


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
    expected = json.loads((REFERENCE / "expected.json").read_text())["pope"]
    scores = pope.score(questions, read_reference("llava-v1.5-13b.jsonl.gz", tmp_path))
    assert (scores.n, scores.complete) == (8910, True)
    assert scores.figures["f1"] == pytest.approx(expected.pop("mean_f1"), abs=1e-12)
    assert {kind: {**figures} for kind, figures in scores.kinds.items()} == {
        kind: {name.lower(): value for name, value in figures.items()} for kind, figures in expected.items()
    }


@needs_reference
def test_an_incomplete_run_is_never_scored_as_if_whole(pope: Benchmark, tmp_path: Path) -> None:
    questions = read_questions(pope, unpack_reference(tmp_path))
    scores = pope.score(questions, read_reference("partial_llava-v1.5-7b.jsonl.gz", tmp_path))
    assert (scores.n, scores.total, scores.complete) == (5712, 8910, False)


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
    for category in ("adversarial", "popular", "random"):
        for thing, label in THINGS.items():
            assert labels[category, f"Is there a {thing} in the image?{SUFFIX}"] == (label,)


def test_ids_stay_as_they_are_unless_every_category_counts_anew(pope: Benchmark, tmp_path: Path) -> None:
    official = pope.questions(write_pope(tmp_path / "official"))
    assert [question.id for question in official] == [1, 2, 10000001, 10000002, 20000001, 20000002]
    anew = read_questions(pope, write_pope(tmp_path / "anew", offset=0))
    assert [question.id for question in anew][:3] == ["adversarial/1", "adversarial/2", "popular/1"]


def test_the_prompt_is_the_files_text_after_its_image(pope: Benchmark, tmp_path: Path) -> None:
    (first, *_) = pope.questions(write_pope(tmp_path))
    (message,) = first.conversation.messages
    assert message.text == "Is there a dog in the image?\nAnswer the question using a single word or phrase."
    assert message.num_leading_images == len(message.images) == 1
    assert pope.max_new_tokens == 128


@pytest.mark.parametrize("layout", ["data/val2014", "data/images", "images", "data/pope/val2014"])
def test_files_may_lie_in_llavas_folders_or_beside_each_other(pope: Benchmark, tmp_path: Path, layout: str) -> None:
    data = tmp_path / "data"
    write_pope(data / "pope" if layout != "data/val2014" else data)
    image = data / layout.removeprefix("data/") / "1.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.touch()
    assert {question.conversation.images[0].source for question in pope.questions(data)} == {image}


def test_a_missing_label_file_or_label_is_named(pope: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"llava_pope_test.jsonl is missing; get it from LLaVA's eval.zip"):
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


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
