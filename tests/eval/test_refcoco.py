"""RefCOCO: boxes of the padded square, as LLaVA-1.5 was taught to write them, and back to pixels."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava_lite.evaluation.benchmark import Answer, Benchmark, Question
from llava_lite.evaluation.files import EvaluationError
from llava_lite.images.loading import load_image
from llava_lite.images.transform import ImageTransform, TowerPixels
from tests.eval.benchmark_files import asked, load, mark_of, write_parquet

WIDE, TALL = (80, 40), (30, 61)  # of the second one half of the padding is larger
ROWS: list[dict[str, Any]] = [
    {"question_id": "469", "answer": ["man in red", "Left guy."], "bbox": [20.0, 0.0, 40.0, 20.0]},
    {"question_id": "470", "answer": ["the dog"], "bbox": [0.0, 0.0, 30.0, 61.0]},
]
"""x, y, width, height"""


def picture(size: tuple[int, int], box: list[float]) -> bytes:
    """Black, and white inside the box."""
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (int(box[0]), int(box[1]), int(box[0] + box[2]), int(box[1] + box[3])))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(data: Path, place: str = "RefCOCO/data/testA-00000-of-00001.parquet", **changes: Any) -> Path:
    sizes = (WIDE, TALL)
    rows = [{**row, "image": picture(size, row["bbox"]), **changes} for row, size in zip(ROWS, sizes, strict=True)]
    write_parquet(data / place, rows)
    return data


def read(refcoco: Benchmark, data: Path) -> list[Question]:
    return refcoco.questions(write(data))


def test_every_phrase_is_a_question_as_in_llavas_training_data(tmp_path: Path) -> None:
    questions = read(load("refcoco"), tmp_path)
    prompt = "Please provide the bounding box coordinate of the region this sentence describes:"
    assert [asked(question) for question in questions] == [
        (f"{prompt} man in red.", 1),
        (f"{prompt} Left guy.", 1),
        (f"{prompt} the dog.", 1),
    ]
    assert [question.id for question in questions] == [0, 1, 2]
    assert questions[0].correct == ("[0.25, 0.25, 0.75, 0.5]",)  # 20 pixels of padding above, of 80
    assert questions[2].correct == ("[0.25, 0.0, 0.74, 1.0]",)  # 15 pixels of 31 to the left
    assert {question.kind for question in questions} == {"RefCOCO testA"}


def test_the_square_is_the_one_that_models_see(tmp_path: Path) -> None:
    """Cut out of the padded picture, the box shows what it shows in the picture, give or take rounded decimals."""
    for question, size in zip(read(load("refcoco"), tmp_path)[1:], (WIDE, TALL), strict=True):
        side = max(size)
        transform = ImageTransform(TowerPixels(side, side, (0.5,) * 3, (1.0,) * 3, 0, 1 / 255), "pad")
        (square,) = transform.restore(transform(load_image(question.conversation.images[0].source)))
        x1, y1, x2, y2 = (round(float(number) * side) for number in question.correct[0].strip("[]").split(", "))
        white = (square == 255).all(-1)
        assert white[y1:y2, x1:x2].mean() > 0.95 and white[y1:y2, x1:x2].sum() > 0.95 * white.sum()


@pytest.mark.parametrize(
    ("text", "iou", "parsed"),
    [
        ("[0.25, 0.25, 0.75, 0.5]", 1, "[0.25, 0.25, 0.75, 0.5]"),
        ("It is at [0.25,0.25,0.75,0.5].", 1, "[0.25, 0.25, 0.75, 0.5]"),
        ("[ .25 , .25, .75, .5 ]", 1, "[0.25, 0.25, 0.75, 0.5]"),
        ("[1, 2] [0.25, 0.25, 0.75, 0.5] [0, 0, 1, 1]", 1, "[0.25, 0.25, 0.75, 0.5]"),
        ("[0.25, 0.25, 0.5, 0.5]", 0.5, "[0.25, 0.25, 0.5, 0.5]"),
        ("[0.25, 0.25, 1.25, 0.5]", 0.5, "[0.25, 0.25, 1.25, 0.5]"),
        ("[0.25, 0.25, 0.49, 0.5]", 0.48, "[0.25, 0.25, 0.49, 0.5]"),
        ("[0.75, 0.5, 0.25, 0.25]", 0, "[0.75, 0.5, 0.25, 0.25]"),  # from the wrong corner
        ("[0.3, 0.3, 0.3, 0.3]", 0, "[0.3, 0.3, 0.3, 0.3]"),
        ("[-1, -1, 0, 0]", 0, "[-1.0, -1.0, 0.0, 0.0]"),
        ("0.25, 0.25, 0.75, 0.5", 0, None),
        ("[0.25, 0.25, 0.75]", 0, None),
        ("[a, b, c, d]", 0, None),
        ("", 0, None),
    ],
)
def test_a_box_is_right_from_half_an_overlap_on(tmp_path: Path, text: str, iou: float, parsed: str | None) -> None:
    refcoco = load("refcoco")
    mark = mark_of(refcoco, read(refcoco, tmp_path)[0], text)
    assert mark.counts["iou"] == pytest.approx(iou)
    assert (mark.credit, mark.parsed) == (float(iou >= 0.5), parsed)


def test_shares_of_the_picture_itself_have_a_figure_of_their_own(tmp_path: Path) -> None:
    refcoco = load("refcoco")
    questions = read(refcoco, tmp_path)
    said = ["[0.25, 0.25, 0.6, 0.5]", "[0.25, 0.1, 0.75, 0.4]", "[0.25, 0.0, 0.74, 1.0]"]
    scores = refcoco.score(questions, [Answer(q.id, text) for q, text in zip(questions, said, strict=True)])
    assert scores.figures["accuracy"] == pytest.approx(2 / 3)  # the first and the last
    assert scores.figures["accuracy_unpadded"] == pytest.approx(1 / 3)  # the second
    assert list(scores.figures) == ["accuracy", "mean_iou", "accuracy_unpadded"]
    assert scores.kinds["RefCOCO testA"]["n"] == 3


@pytest.mark.parametrize(
    ("variant", "place"),
    [
        ("testB", "RefCOCO/data/testB-0.parquet"),
        ("plus-testA", "RefCOCOplus/data/testA-0.parquet"),
        ("plus-val", "RefCOCOplus/val.parquet"),
        ("g-test", "RefCOCOg/data/test-0.parquet"),
    ],
)
def test_each_variant_finds_its_own_files(tmp_path: Path, variant: str, place: str) -> None:
    refcoco = load("refcoco", variant)
    with pytest.raises(EvaluationError, match=rf"refcoco-{variant}: .*parquet is missing; get it from the datasets"):
        refcoco.questions(write(tmp_path))  # RefCOCO's testA
    assert len(refcoco.questions(write(tmp_path, place))) == 3
    assert len(refcoco.questions(tmp_path / place.split("/")[0])) == 3


def test_a_box_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="question '469' needs a picture and a box of four"):
        load("refcoco").questions(write(tmp_path, bbox=[1.0, 2.0, 3.0]))
