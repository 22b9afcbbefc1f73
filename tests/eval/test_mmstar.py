"""MMStar: the first letter decides officially; categories, axes and the parquet file as it is published."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.spreadsheets import write_xlsx
from tests.eval.benchmark_files import asked, load, mark_of, png, shade

QUESTION = "Which one is the style of this image?\nOptions: A: oil, on canvas, B: ink, C: a photo, D: pixel"
ROWS = [
    {"index": 0, "question": f"{QUESTION}\n", "answer": "B", "category": "coarse perception", "l2_category": "style"},
    {
        "index": 7,
        "question": "Is it? Choices: (A) y (B) n",
        "answer": "A",
        "category": "math",
        "l2_category": "geometry",
    },
]


def write(data: Path, place: str = "MMStar/mmstar.parquet", *, pictures: str = "binary") -> Path:
    """The published file holds pictures as bare bytes."""
    cell = {"binary": datasets.Value("binary"), "image": datasets.Image()}[pictures]
    kinds = {"index": datasets.Value("int64"), "image": cell}
    features = datasets.Features({name: kinds.get(name, datasets.Value("string")) for name in [*ROWS[0], "image"]})
    rows: list[dict[str, Any]] = [{**row, "image": png(number)} for number, row in enumerate(ROWS)]
    (data / place).parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(data / place)
    return data


@pytest.mark.parametrize(
    ("place", "pictures"),
    [("MMStar/mmstar.parquet", "binary"), ("mmstar.parquet", "image"), ("MMStar/val/val-0.parquet", "image")],
)
def test_the_published_file_is_asked_with_lmms_evals_prompt(tmp_path: Path, place: str, pictures: str) -> None:
    data = write(tmp_path, place, pictures=pictures)
    first, second = load("mmstar").questions(data / "MMStar/val" if "val-" in place else data)
    assert asked(first) == (f"{QUESTION}\nAnswer with the option's letter from the given choices directly", 1)
    assert (first.id, first.correct, first.kind, first.groups) == (0, ("B",), "coarse perception", ("style",))
    assert first.options == ("oil, on canvas", "ink", "a photo", "pixel") and second.options == ()
    assert [shade(q.conversation.images[0].source) for q in (first, second)] == [0, 1]


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("B", "B", "B"),
        (" b\n", "B", "B"),
        ("B: ink", "B", "B"),
        ("(B) ink", "B", "B"),
        ("Option B", "B", "B"),
        ("option\nb", "B", None),
        ("The answer is B.", "B", "B"),
        ("Because it is a photo", "B", None),
        ("a photo", "A", "C"),
        ("Answer: B", "A", "B"),
        ("ink", None, "B"),
        ("[B]", None, "B"),
        ("", None, None),
        ("(", None, None),
        ("E", None, None),
        ("D or B", "D", None),
    ],
)
def test_officially_the_beginning_decides_and_strictly_what_is_said(
    tmp_path: Path, text: str, official: str | None, strict: str | None
) -> None:
    mmstar = load("mmstar")
    question = mmstar.questions(write(tmp_path))[0]
    for scoring, letter in ((False, official), (True, strict)):
        mark = mark_of(mmstar, question, text, strict=scoring)
        assert (mark.parsed, mark.credit) == (letter, float(letter == "B"))


def test_accuracy_is_over_all_by_category_and_by_axis(tmp_path: Path) -> None:
    mmstar = load("mmstar")
    questions = mmstar.questions(write(tmp_path))
    scores = mmstar.score(questions, [Answer(0, "B"), Answer(7, "b")])
    assert scores.figures == {"accuracy": 0.5}
    assert scores.kinds["math"] == scores.groups["geometry"] == {"accuracy": 0.0, "n": 1}
    assert mark_of(mmstar, questions[1], "a", strict=True).parsed == "A"  # its options cannot be told


def test_workbooks_of_the_official_scripts_are_read(tmp_path: Path) -> None:
    mmstar = load("mmstar")
    questions = mmstar.questions(write(tmp_path))
    rows = [{"index": 0, "answer": "B", "prediction": "C"}, {"index": 7, "answer": "A", "prediction": None}]
    write_xlsx(tmp_path / "llava_MMStar.xlsx", ["index", "answer", "prediction"], rows)
    assert mmstar.read_answers(tmp_path / "llava_MMStar.xlsx", questions) == [Answer(0, "C")]


def test_a_missing_file_is_named_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"MMStar/mmstar.parquet is missing; get it from the dataset Lin-Chen"):
        load("mmstar").questions(tmp_path)
