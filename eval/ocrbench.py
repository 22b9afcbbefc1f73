"""OCRBench: 1,000 questions on reading text in pictures, in ten types from street signs to handwritten formulas.

Paper:   Liu et al., OCRBench: On the Hidden Mystery of OCR in Large Multimodal Models, 2024, arXiv:2305.07895
Split:   all 1,000 questions of OCRBench v1, drawn from 28 datasets
Files:   under --data or --data/ocrbench, of github.com/Yuliang-Liu/MultimodalOCR:
         OCRBench.json       [{"dataset_name", "id", "image_path", "question", "answers", "type"}]
         OCRBench_Images/    pictures
         or a folder OCRBench/ with the parquet files of echo840/OCRBench
         --answers also takes the results of the official script, which have "predict", beside its own files
Metric:  the number of right answers, of 1,000; by type; the six types of text recognition as a group
Quirks:  an answer is right when it contains a correct one, in any case: so "10" is right where 1 is due, and saying
         much is not punished. In handwritten formulas (HME100k) case counts and spaces do not.
         The prompt is the question and nothing else, as in the official scripts; the length of answers is lmms-eval's,
         which also takes full-width letters for plain ones. Questions are numbered as they stand in the parquet files,
         and called by dataset and id of the official file.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import check_row, read_json, read_list
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

PLACES = ("ocrbench/OCRBench.json", "OCRBench/OCRBench.json", "OCRBench/json_files/OCRBench.json", "OCRBench.json")
OFFICIAL: dict[str, Any] = {
    "dataset_name": str,
    "id": (int, str),
    "image_path": str,
    "question": str,
    "answers": (str, list),
}
FIELDS = {"dataset": str, "question": str, "question_type": str, "answer": list}
RECOGNITION = (
    "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition", "Handwriting Recognition",
    "Digit String Recognition", "Non-Semantic Text Recognition",
)  # fmt: skip


class OcrBench(Benchmark):
    title = "ocrbench"
    max_new_tokens = 128
    source = "github.com/Yuliang-Liu/MultimodalOCR (OCRBench), or the dataset echo840/OCRBench at the Hugging Face hub"

    def questions(self, data: Path) -> list[Question]:
        questions = []
        for id, dataset, kind, image, text, answers in self._official(data) or self._parquet(data):
            groups = ("Text Recognition",) if kind in RECOGNITION else ()
            conversation = Conversation().ask(text.strip(), [image])
            questions.append(Question(id, conversation, answers, kind, groups, row={"dataset": dataset}))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(question, text) for question, text in pairs}

    def figures(self, sums: Sums) -> Figures:
        return {"score": sums["credit"], "accuracy": ratio(sums["credit"], sums["n"])}

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        content = read_json(path) if path.suffix == ".json" else None
        if not isinstance(content, list) or not any(isinstance(row, dict) and "predict" in row for row in content):
            return super().read_answers(path, questions)
        for number, row in enumerate(content):
            check_row(row, {"dataset_name": str, "id": (int, str)}, f"{path}, row {number}")
        pairs = zip(ids(content), content, strict=True)  # the official script goes on where a row has no answer yet
        return [Answer(id, row["predict"]) for id, row in pairs if isinstance(row.get("predict"), str)]

    def _official(self, data: Path) -> list[tuple[Any, ...]]:
        """Read the official file as (id, dataset, type, image, question, answers); no rows where it is not there."""
        path = next((data / place for place in PLACES if (data / place).is_file()), None)
        if path is None:
            return []
        rows = read_list(path, {**OFFICIAL, "type": str})
        places = [folder / "OCRBench_Images" for folder in (path.parent, path.parent.parent, data)]
        images = next((place for place in places if place.is_dir()), places[0])
        return [
            (id, row["dataset_name"], row["type"], images / row["image_path"], row["question"], texts(row["answers"]))
            for id, row in zip(ids(rows), rows, strict=True)
        ]

    def _parquet(self, data: Path) -> list[tuple[Any, ...]]:
        paths = find_parquet(data, ["OCRBench", "ocrbench"], "test") or [
            self.locate(data, PLACES[0], "OCRBench/data/test-*.parquet")
        ]
        rows = read_parquet(paths, FIELDS, images=["image"])
        names = ("dataset", "question_type", "image", "question")
        return [(i, *(row[name] for name in names), texts(row["answer"])) for i, row in enumerate(rows)]


def judge(question: Question, text: str) -> Mark:
    """Mark an answer: it is right when it contains a correct one."""
    plain = formula if question.row["dataset"] == "HME100k" else words
    return Mark(float(any(plain(answer) in plain(text) for answer in question.correct)), text.strip() or None)


def formula(text: str) -> str:
    """What of a formula counts."""
    return text.strip().replace("\n", " ").replace(" ", "")


def words(text: str) -> str:
    """What of any other answer counts."""
    return text.lower().strip().replace("\n", " ")


def texts(answers: str | Sequence[str]) -> tuple[str, ...]:
    """The correct answers, of which the official file has one or a list."""
    return (answers,) if isinstance(answers, str) else tuple(answers)


def ids(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name rows by dataset and id; several questions of one id are told apart by a number."""
    times: Counter[str] = Counter()
    names = []
    for row in rows:
        name = f"{row['dataset_name']}/{row['id']}"
        times[name] += 1
        names.append(name if times[name] == 1 else f"{name}#{times[name]}")
    return names


if __name__ == "__main__":
    with report_mistakes():
        main(OcrBench, llava_lite.open_model)
