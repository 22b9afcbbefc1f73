"""VizWiz: questions that blind people asked about photographs they took; many cannot be answered from the picture.

Paper:   Gurari et al., VizWiz Grand Challenge, CVPR 2018, arXiv:1802.08218
Split:   test (8,000 questions, the figure of LLaVA-1.5's table), whose answers only the test server has (EvalAI,
         challenge 2185); val (4,319), scored here
Files:   under --data or --data/vizwiz:
         llava_test.jsonl        LLaVA's eval.zip; {"question_id", "image", "text"}
         Annotations/test.json   vizwiz.org, in its place; Annotations/val.json, with answers, for val; or both files
                                 in vizwiz/ itself, as LLaVA's docs say
         test/, val/             vizwiz.org, the images
         or VizWiz-VQA/          lmms-lab/VizWiz-VQA at the Hugging Face hub; test and val in parquet
Metric:  VQA accuracy, over all and per answer type: the mean of what an answer earns, 0.3 for one of ten people who
         said the same, 0.6 for two, 0.9 for three, 1 for more
Quirks:  all official. An answer is normalised by LLaVA as it submits it and then as VizWiz's own evaluation does; what
         people said is compared as it stands in the annotations. So "a man's hat", submitted as "man 's hat", cannot
         be right, and neither can "t-shirt", which becomes "t shirt", where people wrote just that.
         A submission names images, not questions, in the order of the question file, and lacks none.
         The prompt is the question, LLaVA's permission to say Unanswerable and its short-answer instruction.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, read_answer_texts, read_list, read_rows, write_whole
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.evaluation.vqa import agreement, normalise, normalise_evalai, people_said, vqa_compared
from llava_lite.recipes import report_mistakes

SUFFIX = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    "\nAnswer the question using a single word or phrase."
)
PLACES = {
    "test": [
        "vizwiz/llava_test.jsonl",
        "llava_test.jsonl",
        "vizwiz/Annotations/test.json",
        "Annotations/test.json",
        "vizwiz/test.json",
    ],
    "val": ["vizwiz/Annotations/val.json", "Annotations/val.json", "vizwiz/val.json", "val.json"],
}


class VizWiz(Benchmark):
    title = "vizwiz"
    variants: ClassVar[Mapping[str, str]] = {
        "test": "8,000 questions, for the test server",
        "val": "4,319 questions, scored here",
    }
    max_new_tokens = 128
    faults = (
        "people's answers are not normalised as the model's are, so that one with a mark, as t-shirt, is never met, "
        "and of many periods only the first 32 go; strict: both alike, all periods go that no digit follows"
    )
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md), vizwiz.org/tasks-and-datasets/vqa, "
        "or lmms-lab/VizWiz-VQA at the Hugging Face hub as the folder VizWiz-VQA"
    )

    def questions(self, data: Path) -> list[Question]:
        scored, places = self.variant == "val", PLACES[self.variant]
        tables = find_parquet(data, ["VizWiz-VQA"], self.variant)
        if tables and not any((data / place).is_file() for place in places):
            return from_tables(tables, scored=scored)
        path = self.locate(data, *places, f"VizWiz-VQA/data/{self.variant}-*.parquet")
        folders = [data / "vizwiz" / self.variant, data / self.variant]
        images = next((folder for folder in folders if folder.is_dir()), folders[0])
        return from_llava(path, images) if path.suffix == ".jsonl" else from_annotations(path, images, scored=scored)

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(text, question.correct, strict) for question, text in pairs}

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        if self.variant == "val":
            return []
        said = {answer.question_id: normalise_evalai(answer.text) for answer in answers}
        unanswered = [question.id for question in questions if question.id not in said]
        if unanswered:
            raise EvaluationError(f"{self.name}: {len(unanswered)} unanswered questions ({unanswered[0]}, ...)")
        rows = [{"image": question.row["image"], "answer": said[question.id]} for question in questions]
        path = folder / "vizwiz_test.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(rows))
        return [path]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read answers; where they name images, as a submission does, join them by these."""
        named = {str(question.id): question.id for question in questions}
        named |= {question.row["image"]: question.id for question in questions}
        return [Answer(named.get(str(id), id), text) for id, text in read_answer_texts(path)]


def judge(text: str, answers: Sequence[str], strict: bool) -> Mark:
    """Mark an answer by those of ten people."""
    submitted = normalise(normalise_evalai(text))
    said, given = vqa_compared(text, answers, strict=True) if strict else (submitted, answers)
    return Mark(agreement(said, given), said or None)


def from_llava(path: Path, images: Path) -> list[Question]:
    rows = read_rows(path, {"question_id": (int, str), "image": str, "text": str})
    return [ask(row["question_id"], row["text"], row["image"], images / row["image"]) for row in rows]


def from_annotations(path: Path, images: Path, *, scored: bool) -> list[Question]:
    fields: dict[str, type] = {"image": str, "question": str}
    if scored:
        fields |= {"answers": list, "answer_type": str}
    questions = []
    for row in read_list(path, fields):
        name = row["image"]
        answers, kind = (people_said(row["answers"], f"{path}, {name}"), row["answer_type"]) if scored else ((), "")
        questions.append(ask(name, row["question"] + SUFFIX, name, images / name, answers, kind))
    return questions


def from_tables(paths: Sequence[Path], *, scored: bool) -> list[Question]:
    fields: dict[str, type] = {"question_id": str, "question": str}
    if scored:
        fields |= {"answers": list, "category": str}
    questions = []
    for row in read_parquet(paths, fields, images=["image"]):
        id, text = row["question_id"], row["question"] + SUFFIX
        answers, kind = (people_said(row["answers"], f"question {id}"), row["category"]) if scored else ((), "")
        questions.append(ask(id, text, f"{id.removesuffix('.jpg')}.jpg", row["image"], answers, kind))
    return questions


def ask(
    id: QuestionId, text: str, name: str, picture: object, answers: tuple[str, ...] = (), kind: str = ""
) -> Question:
    """Make a question about the image of this name."""
    return Question(id, Conversation().ask(text, [picture]), answers, kind, row={"image": name})


if __name__ == "__main__":
    with report_mistakes():
        main(VizWiz, llava_lite.open_model)
