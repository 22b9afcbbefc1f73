"""RefCOCO, RefCOCO+ and RefCOCOg: a phrase is given, and the box of what it refers to is asked for.

Paper:   Kazemzadeh et al., ReferItGame, EMNLP 2014; Yu et al., Modeling Context in Referring Expressions, ECCV 2016,
         arXiv:1608.00272 (RefCOCO, RefCOCO+); Mao et al., CVPR 2016, arXiv:1511.02283 (RefCOCOg)
Split:   a variant each: RefCOCO testA (people; 5,657 phrases) and testB (other things; 5,095), RefCOCO+ testA (5,726)
         and testB (4,889), whose phrases do not say where a thing is, RefCOCOg test (9,602), and each one's val
Files:   under --data: folders RefCOCO/, RefCOCOplus/ and RefCOCOg/ with the parquet files of lmms-lab's datasets of
         these names, {"answer": phrases, "bbox": [x, y, width, height] in pixels, "image"}. The original annotations
         are Python pickles, which can run code and are not read.
Metric:  accuracy, a box being right where its IoU with the true one is at least 0.5; the mean IoU beside it
Quirks:  the question and the form of the answer are those of LLaVA-1.5's training data: "[x1, y1, x2, y2]" with two
         decimals, from 0 to 1 of the picture padded to a square (LLaVA issue 606), of which the true box and the
         answer are taken back to pixels. `accuracy_unpadded` reads the same answers as shares of the picture itself,
         as other models' data have them and as lmms-eval does, which asks in other words. An answer is the first four
         numbers in square brackets; one without them is wrong.
         In lmms-lab's files RefCOCO's and RefCOCOg's `val` hold the questions of two splits that people made (8,811
         objects instead of UNC's 3,811, 7,573 instead of UMD's 2,573), so that their figures are not the published
         ones; the other splits are the usual ones. Questions are numbered over all phrases, as lmms-eval does.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.images.loading import image_size
from llava_lite.recipes import report_mistakes

Box = tuple[float, float, float, float]
Size = tuple[int, int]

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}."
FIELDS: dict[str, type | tuple[type, ...]] = {"question_id": (int, str), "answer": list, "bbox": list}
SPLITS = {
    "testA": ("RefCOCO", "testA"),
    "testB": ("RefCOCO", "testB"),
    "val": ("RefCOCO", "val"),
    "plus-testA": ("RefCOCOplus", "testA"),
    "plus-testB": ("RefCOCOplus", "testB"),
    "plus-val": ("RefCOCOplus", "val"),
    "g-test": ("RefCOCOg", "test"),
    "g-val": ("RefCOCOg", "val"),
}
NUMBERS = re.compile(r"\[" + ",".join([r"\s*(-?\d*\.?\d+)\s*"] * 4) + r"\]")


class RefCoco(Benchmark):
    title = "refcoco"
    variants: ClassVar[Mapping[str, str]] = {name: " ".join(split) for name, split in SPLITS.items()}
    max_new_tokens = 128
    source = "the datasets lmms-lab/RefCOCO, lmms-lab/RefCOCOplus and lmms-lab/RefCOCOg at the Hugging Face hub"

    def questions(self, data: Path) -> list[Question]:
        folder, split = SPLITS[self.variant]
        # not in `data` itself, where the files of another of the three may lie: they have the same names
        here = data if data.name == folder else data / folder
        paths = find_parquet(here, [], split) or [self.locate(data, f"{folder}/data/{split}-*.parquet")]
        sizes: dict[Any, Size] = {}
        questions: list[Question] = []
        for row in read_parquet(paths, FIELDS, images=["image"]):
            image = row["image"]
            if image is None or len(row["bbox"]) != 4:
                raise EvaluationError(f"{paths[0]}: question {row['question_id']!r} needs a picture and a box of four")
            if not all(isinstance(phrase, str) for phrase in row["answer"]):
                raise EvaluationError(f"{paths[0]}: question {row['question_id']!r} needs phrases as texts")
            size = sizes[image] = sizes.get(image) or image_size(image)
            x, y, width, height = row["bbox"]
            box = (x, y, x + width, y + height)
            for phrase in row["answer"]:
                conversation = Conversation().ask(PROMPT.format(phrase.strip().rstrip(".")), [image])
                known = {"question_id": row["question_id"], "box": list(box), "size": list(size)}
                written = (write_box(to_square(box, size)),)
                questions.append(
                    Question(len(questions), conversation, written, self.variants[self.variant], row=known)
                )
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(text, question.row["box"], question.row["size"]) for question, text in pairs}

    def figures(self, sums: Sums) -> Figures:
        names = {"accuracy": "credit", "mean_iou": "iou", "accuracy_unpadded": "unpadded"}
        return {figure: ratio(sums[name], sums["n"]) for figure, name in names.items()}


def judge(text: str, true: Box, size: Size) -> Mark:
    """Mark an answer: by its box in the padded square, and beside that by its box in the picture itself."""
    said = read_box(text)
    if said is None:
        return Mark(0.0, None, {"iou": 0.0, "unpadded": 0.0})
    iou = overlap(from_square(said, size), true)
    width, height = size
    unpadded = overlap((said[0] * width, said[1] * height, said[2] * width, said[3] * height), true)
    return Mark(float(iou >= 0.5), write_box(said), {"iou": iou, "unpadded": float(unpadded >= 0.5)})


def read_box(text: str) -> Box | None:
    """The first four numbers in square brackets."""
    found = NUMBERS.search(text)
    return tuple(map(float, found.groups())) if found else None  # type: ignore[return-value]


def write_box(box: Box) -> str:
    """Write a box as LLaVA's data do."""
    return f"[{', '.join(str(round(side, 2)) for side in box)}]"


def to_square(box: Box, size: Size) -> Box:
    """From pixels of the picture to shares of the square it is padded to, in whose middle it lies."""
    side, (left, top) = max(size), margins(size)
    return (box[0] + left) / side, (box[1] + top) / side, (box[2] + left) / side, (box[3] + top) / side


def from_square(box: Box, size: Size) -> Box:
    """From shares of the padded square to pixels of the picture."""
    side, (left, top) = max(size), margins(size)
    return box[0] * side - left, box[1] * side - top, box[2] * side - left, box[3] * side - top


def margins(size: Size) -> Size:
    """What is padded to the left and above, as LLaVA's expand2square does: the smaller half, where halves differ."""
    return (max(size) - size[0]) // 2, (max(size) - size[1]) // 2


def overlap(a: Box, b: Box) -> float:
    """Intersection over union; 0 for a box without an inside."""
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b) if box[0] < box[2] and box[1] < box[3]]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if len(areas) < 2 or width <= 0 or height <= 0:
        return 0.0
    return width * height / (sum(areas) - width * height)


if __name__ == "__main__":
    with report_mistakes():
        main(RefCoco, llava_lite.open_model)
