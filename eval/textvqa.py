"""TextVQA: questions that can only be answered by reading the text in an image.

Paper:   Singh et al., Towards VQA Models That Can Read, CVPR 2019, arXiv:1904.08920
Split:   validation, 5,000 questions on 3,166 images. Two protocols, whose figures are not comparable: `textvqa`, as in
         LLaVA-1.5's table, tells the model what an OCR system (Rosetta) has read; `textvqa-plain` lets it read itself
Files:   under --data or --data/textvqa:
         llava_textvqa_val_v051_ocr.jsonl   LLaVA's eval.zip; {"question_id" (an image's), "image", "text"}; for OCR
         TextVQA_0.5.1_val.json             textvqa.org, with ten people's answers to each question
         train_images/                      textvqa.org, the images
         or textvqa/data/validation-*.parquet   lmms-lab/textvqa at the Hugging Face hub
Metric:  VQA accuracy as M4C and EvalAI compute it: the mean of what an answer earns, 0.3 for one of ten people who said
         the same, 0.6 for two, 0.9 for three, 1 for more, both sides normalised always
Quirks:  all official. LLaVA's files name a question by its image and its text in lower case, for an image has several
         questions; here answers go by TextVQA's own question ids, and LLaVA's are joined as LLaVA joins them.
         The prompt with OCR is LLaVA's file's text, whose line "Reference OCR token: " stands there even when empty;
         without, the question as people asked it (lmms-eval changes its letters' case) and the same instruction.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, check_row, read_json, read_rows
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.evaluation.vqa import agreement, people_said, textvqa_compared
from llava_lite.recipes import report_mistakes

SUFFIX = "\nAnswer the question using a single word or phrase."
OCR = "\nReference OCR token: "
FIELDS: dict[str, type] = {"question_id": int, "image_id": str, "question": str, "answers": list}
Key = tuple[str, str]
"""An image and a question about it in lower case."""


class TextVqa(Benchmark):
    title = "textvqa"
    variants: ClassVar[Mapping[str, str]] = {
        "ocr": "with OCR tokens in the prompt, as LLaVA's figures are",
        "plain": "the question alone",
    }
    max_new_tokens = 128
    source = (
        "LLaVA's eval.zip (github.com/haotian-liu/LLaVA, docs/Evaluation.md) and textvqa.org/dataset, "
        "or lmms-lab/textvqa at the Hugging Face hub as the folder textvqa"
    )

    def questions(self, data: Path) -> list[Question]:
        ocr = self.variant == "ocr"
        places = [f"{folder}TextVQA_0.5.1_val.json" for folder in ("textvqa/", "")]
        tables = find_parquet(data, ["textvqa"], "validation")
        if tables and not any((data / place).is_file() for place in places):
            return from_tables(tables, ocr=ocr)
        path = self.locate(data, *places, "textvqa/data/validation-*.parquet")
        rows = check_row(read_json(path), {"data": list}, str(path))["data"]
        people = {key(check_row(row, FIELDS, str(path))): row["answers"] for row in rows}
        prompts = self._prompts(data) if ocr else {key(row): row["question"] + SUFFIX for row in rows}
        folders = [folder / "train_images" for folder in (data / "textvqa", data)]
        images = next((folder for folder in folders if folder.is_dir()), folders[0])
        questions = []
        for row in rows:
            if key(row) not in prompts:
                where = f"question {row['question_id']} about image {row['image_id']}"
                raise EvaluationError(f"{path}: {where} has no prompt in LLaVA's file; are both files complete?")
            questions.append(ask(row, prompts[key(row)], images / f"{row['image_id']}.jpg", people[key(row)]))
        return questions

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(text, question.correct) for question, text in pairs}

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read answers; those that name images, as LLaVA's do, are joined by these and the questions in their prompts.

        Raises EvaluationError where such an answer is to a question that is not asked.
        """
        answers = super().read_answers(path, questions)
        waiting: dict[Key, list[QuestionId]] = {}
        for question in questions:
            waiting.setdefault(key(question.row), []).append(question.id)
        images = {image for image, _ in waiting}
        if not any(answer.question_id in images for answer in answers):
            return answers
        joined = []
        for row in read_rows(path, {"question_id": str, "prompt": str, "text": str}):
            asked = row["question_id"], question_of(row["prompt"])
            if not waiting.get(asked):
                raise EvaluationError(f"{path}: no question {asked[1]!r} about image {asked[0]} is asked, or only once")
            joined.append(Answer(waiting[asked].pop(0), row["text"]))
        return joined

    def _prompts(self, data: Path) -> dict[Key, str]:
        """Read LLaVA's prompts, which hold the OCR tokens."""
        name = "llava_textvqa_val_v051_ocr.jsonl"
        rows = read_rows(self.locate(data, f"textvqa/{name}", name), {"question_id": str, "text": str})
        return {(row["question_id"], question_of(row["text"])): row["text"] for row in rows}


def judge(text: str, answers: Sequence[str]) -> Mark:
    """Mark an answer by those of ten people."""
    said, given = textvqa_compared(text, answers)
    return Mark(agreement(said, given), said or None)


def question_of(prompt: str) -> str:
    """Return the question in a prompt, in lower case: of LLaVA's three forms, or the text itself."""
    lines = prompt.split("\n")
    older = re.search(r"^OCR tokens: .*?Question: (.*?) Short answer:", prompt, re.DOTALL)
    if older:
        return older.group(1).lower()
    return lines[1 if prompt.startswith(OCR.strip()) and len(lines) > 1 else 0].lower()


def from_tables(paths: Sequence[Path], *, ocr: bool) -> list[Question]:
    questions = []
    for row in read_parquet(paths, FIELDS | ({"ocr_tokens": list} if ocr else {}), images=["image"]):
        read = OCR + ", ".join(row["ocr_tokens"]) if ocr else ""
        questions.append(ask(row, row["question"] + read + SUFFIX, row["image"], row["answers"]))
    return questions


def ask(row: Mapping[str, Any], text: str, picture: object, answers: Sequence[Any]) -> Question:
    """Make a question. Raises EvaluationError where not ten people answered it."""
    said = people_said(answers, f"question {row['question_id']}")
    if len(said) != 10:
        raise EvaluationError(f"question {row['question_id']}: {len(said)} people's answers where ten are needed")
    about = {"image_id": row["image_id"], "question": row["question"]}
    return Question(row["question_id"], Conversation().ask(text, [picture]), said, row=about)


def key(row: Mapping[str, Any]) -> Key:
    return row["image_id"], row["question"].lower()


if __name__ == "__main__":
    with report_mistakes():
        main(TextVqa, llava_lite.open_model)
