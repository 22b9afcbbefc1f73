"""LLaVA-Bench (In-the-Wild): open questions about 24 pictures, answered beside GPT-4 and graded by a judge.

Paper:   Liu et al., Visual Instruction Tuning, NeurIPS 2023, arXiv:2304.08485
Split:   60 questions on 24 images: conv (conversation), detail (description) and complex (reasoning)
Files:   under --data or --data/llava-bench-in-the-wild:
         questions.jsonl        {"question_id", "image", "text", "category"}
         context.jsonl          {"image", "caption"}: the picture in words, which the judge reads
         answers_gpt4.jsonl     {"question_id", "text"}: GPT-4's answers, which saw the words alone
         images/                hf liuhaotian/llava-bench-in-the-wild has all four
         or data/train-*.parquet of hf lmms-lab/llava-bench-in-the-wild
Judge:   grades GPT-4's answer (Assistant 1) and the model's (Assistant 2) from 1 to 10 each in one line, and explains.
         Published figures are gpt-4-0314's, which is retired: figures of two judges do not compare.
Metric:  the sum of the model's grades over the sum of GPT-4's, per category and of all; `gpt4` and `model` are the
         average grades, over 10. Means are rounded to three decimals first, as the official script does.
         LLaVA-1.5's 65.4 (7B) and 72.5 (13B) are means of three judge runs.
Quirks:  official. Grades stand in the first line, commas count as spaces, and it must have exactly two numbers with one
         space between: any other review counts as -1 for both, in the averages.
         The official script writes the caption a letter a line: it joins what it takes for a list of captions, and the
         file holds a text. Published judges read that; the variant `captions` lets the judge read the caption as it is.
         Here an unreadable review is asked for again before that, twice, which the official script does not do.
         A review made elsewhere tells its question and category: --answers reviews.jsonl needs no --data. Intervals are
         then of single questions; with --data they are of images, as they should be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, Fields, read_rows
from llava_lite.evaluation.judging import Judging
from llava_lite.evaluation.metrics import ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.generation.chat_model import Sampling
from llava_lite.recipes import report_mistakes

FOLDER = "llava-bench-in-the-wild"
PLACES = (f"{FOLDER}/questions.jsonl", "questions.jsonl")
ANSWER: Fields = {"question_id": (int, str), "text": str}
CONTEXT: Fields = {"image": str, "caption": (str, list)}
NUM_QUESTIONS = 60
UNREADABLE = (-1.0, -1.0)
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
RULE = (
    "We would like to request your feedback on the performance of two AI assistants in response to the user question "
    "displayed above. The user asks the question on observing an image. For your reference, the visual content in the "
    "image is represented with a few sentences describing the image. \n"
    "Please rate the helpfulness, relevance, accuracy, level of details of their responses. Each assistant receives an "
    "overall score on a scale of 1 to 10, where a higher score indicates better overall performance.\n"
    "Please first output a single line containing only two values indicating the scores for Assistant 1 and 2, "
    "respectively. The two scores are separated by a space.\n"
    "In the subsequent line, please provide a comprehensive explanation of your evaluation, avoiding any potential "
    "bias and ensuring that the order in which the responses were presented does not affect your judgment."
)


class LlavaBench(Benchmark):
    title = "llava_bench"
    variants: ClassVar[Mapping[str, str]] = {
        "letters": "the judge reads captions as the official script writes them, a letter a line",
        "captions": "the judge reads captions as people wrote them",
    }
    max_new_tokens = 1024
    faults = "an unreadable review is official a -1 for both answers; strict: left out"
    source = "hf liuhaotian/llava-bench-in-the-wild (or lmms-lab/llava-bench-in-the-wild)"

    def questions(self, data: Path) -> list[Question]:
        tables = find_parquet(data, [FOLDER], "train")
        if tables and not any((data / place).is_file() for place in PLACES):
            fields = {"question_id": int, "question": str, "caption": str, "gpt_answer": str, "category": str}
            rows = read_parquet(tables, fields, images=["image"])
            return [asked(r["question_id"], r["question"], r["image"], r["gpt_answer"], r) for r in rows]
        path = self.locate(data, *PLACES)
        captions = {row["image"]: row["caption"] for row in self._beside(path, "context.jsonl", CONTEXT)}
        gpt4 = {row["question_id"]: row["text"] for row in self._beside(path, "answers_gpt4.jsonl", ANSWER)}
        questions = []
        for row in read_rows(path, {**ANSWER, "image": str, "category": str}):
            id, image = row["question_id"], row["image"]
            if image not in captions or id not in gpt4:
                raise EvaluationError(
                    f"{path}: question {id} lacks its caption or GPT-4's answer; are all files whole?"
                )
            row["caption"] = captions[image]
            questions.append(asked(id, row["text"], path.parent / "images" / image, gpt4[id], row))
        return questions

    def questions_in(self, answers: Path) -> list[Question]:
        kinds = {
            row["question_id"]: row["category"] for row in read_rows(answers, {"question_id": int, "category": str})
        }
        numbers = sorted({*range(NUM_QUESTIONS), *kinds})
        return [asked(id, f"question {id}", None, "", {"category": kinds.get(id, "")}) for id in numbers]

    def judging(self, data: Path | None = None) -> Judging:
        return TwoGrades(self.variant)

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: graded(review) for question, review in pairs}

    def figures(self, sums: Sums) -> Figures:
        gpt4, model = (round(ratio(sums[name], sums["n"]), 3) for name in ("gpt4", "model"))
        return {"score": ratio(model, gpt4), "gpt4": gpt4 / 10, "model": model / 10}

    def _beside(self, path: Path, name: str, fields: Fields) -> list[dict[str, Any]]:
        return read_rows(self.locate(path.parent, name), fields)


@dataclass(frozen=True)
class TwoGrades(Judging):
    """The judge reads the caption, the question and both answers, and grades each."""

    variant: str
    official: ClassVar[str] = "gpt-4-0314"
    tries: ClassVar[int] = 3

    def request(self, question: Question, answer: str, attempt: int) -> Conversation:
        caption, (gpt4,) = question.row["caption"], question.correct
        context = "\n".join(caption) if self.variant == "letters" or isinstance(caption, list) else caption
        words = (
            f"[Context]\n{context}\n\n[Question]\n{question.row['question']}\n\n"
            f"[Assistant 1]\n{gpt4}\n\n[End of Assistant 1]\n\n"
            f"[Assistant 2]\n{answer}\n\n[End of Assistant 2]\n\n"
            f"[System]\n{RULE}\n\n"
        )
        return Conversation(system=SYSTEM).ask(words)

    def sampling(self, attempt: int) -> Sampling:
        return Sampling(max_new_tokens=1024, temperature=0.2, seed=attempt)

    def readable(self, review: str) -> bool:
        return grades(review) is not None


def asked(id: int | str, text: str, image: object, gpt4: str, row: Mapping[str, Any]) -> Question:
    """Make a question of what a file says of it."""
    images = [] if image is None else [image]
    told = {"question": text, "caption": row.get("caption", "")}
    return Question(
        id, Conversation().ask(text, images), (gpt4,), row["category"].removeprefix("llava_bench_"), row=told
    )


def graded(review: str) -> Mark:
    """Mark an answer by the two grades of its review."""
    both = grades(review)
    gpt4, model = both or UNREADABLE
    return Mark(min(max(model / 10, 0), 1), both and f"{gpt4:g} {model:g}", {"gpt4": gpt4, "model": model})


def grades(review: str) -> tuple[float, float] | None:
    """Read GPT-4's and the model's grade, as the official script does; None where it cannot."""
    words = review.split("\n")[0].replace(",", " ").split(" ")
    try:
        gpt4, model = map(float, words)
    except ValueError:
        return None
    return (gpt4, model) if math.isfinite(gpt4 + model) else None


if __name__ == "__main__":
    with report_mistakes():
        main(LlavaBench, llava_lite.open_model)
