"""MM-Vet: open questions that need several capabilities at once, whose answers a judge scores from 0 to 1.

Paper:   Yu et al., MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities, ICML 2024, arXiv:2308.02490
Split:   218 questions; six capabilities (rec, ocr, know, gen, spat, math) in 16 combinations
Files:   under --data, --data/mm-vet or --data/mmvet:
         mm-vet.json            of mm-vet.zip: {"v1_0": {"imagename", "question", "answer", "capability"}}
         images/                the same
         mm-vet_evaluator.py    github.com/yuweihao/MM-Vet; its text `prompt` is what the judge is asked with
         or data/test-*.parquet of hf lmms-lab/MMVet, beside mm-vet_evaluator.py
Judge:   continues a table of seven scored examples with `question | correct answer | answer | `, in three tokens at
         most. Published figures are gpt-4-0613's: figures of two judges do not compare.
Metric:  the mean score; in scores.json also of each capability and of each combination ("only rec+know").
         LLaVA-1.5: 31.1 (7B), 36.1 (13B). The official script can grade several times over: its grade file
         ({"v1_0": {"score": [...]}}) is read as --answers, and a question's score is then the mean of its runs.
Quirks:  official. The score is the first word of the review, split on single spaces, and must be from 0 to 1. Where it
         is not, the judge is asked again with one more sentence, at temperature 0 and then 0.5, 1.0 and 1.5 (the script
         asks a sixth time and does not look at it); after that the answer scores 0.
         The answer's <AND> and <OR> stand between spaces in what the judge reads. The model is asked the bare question.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import (
    EvaluationError,
    Fields,
    check_row,
    read_answer_texts,
    read_constant,
    read_object,
    write_whole,
)
from llava_lite.evaluation.judging import Judging, Reply
from llava_lite.evaluation.metrics import mean, ratio
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.generation.chat_model import Sampling
from llava_lite.recipes import report_mistakes

PLACES = ("mm-vet/mm-vet.json", "mmvet/mm-vet.json", "mm-vet.json")
FOLDERS = ("mm-vet", "mmvet", "MMVet", ".")
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
FIELDS: Fields = {"question": str, "answer": str, "capability": (str, list)}
TEMPERATURES = (0.0, 0.0, 0.5, 1.0, 1.5)
ONCE_MORE = "\nPredict the correctness of the answer (digit): "


class Mmvet(Benchmark):
    title = "mmvet"
    max_new_tokens = 1024
    faults = "an answer whose review cannot be read scores official 0; strict: left out"
    source = "github.com/yuweihao/MM-Vet (mm-vet.zip, mm-vet_evaluator.py), or hf lmms-lab/MMVet"

    def questions(self, data: Path) -> list[Question]:
        tables = find_parquet(data, FOLDERS, "test")
        if tables and not any((data / place).is_file() for place in PLACES):
            rows = read_parquet(tables, {**FIELDS, "question_id": str}, images=["image"])
            return [made(row["question_id"], row, row["image"]) for row in rows]
        path = self.locate(data, *PLACES)
        fields = {**FIELDS, "imagename": str}
        given = {id: check_row(row, fields, f"{path}, {id}") for id, row in read_object(path).items()}
        return [made(id, row, path.parent / "images" / row["imagename"]) for id, row in given.items()]

    def judging(self, data: Path | None = None) -> Judging:
        return TableOfScores(self, data)

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: scored(review) for question, review in pairs}

    def figures(self, sums: Sums) -> Figures:
        return {"score": ratio(sums["credit"], sums["n"])}

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        texts = {answer.question_id: answer.text for answer in answers}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "mm-vet.json"
        write_whole(path, json.dumps({str(question.id): texts[question.id] for question in questions}, indent=2))
        return [path]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """LLaVA's answers are numbered 0, 1, ... where the official files say v1_0, v1_1, ..."""
        said = [(str(id), text) for id, text in read_answer_texts(path)]
        return [Answer(f"v1_{id}" if id.isdecimal() else id, text) for id, text in said]


@dataclass(frozen=True)
class TableOfScores(Judging):
    """The judge continues a table of scored answers."""

    benchmark: Mmvet
    data: Path | None
    official: ClassVar[str] = "gpt-4-0613"
    tries: ClassVar[int] = len(TEMPERATURES)

    def request(self, question: Question, answer: str, attempt: int) -> Conversation:
        (correct,) = question.correct
        spaced = correct.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        line = " | ".join([question.row["question"], spaced, answer, ""])
        return Conversation().ask(f"{self.prompt}\n{line}{ONCE_MORE if attempt else ''}")

    @cached_property
    def prompt(self) -> str:
        """The official table, which is not ours to copy."""
        if self.data is None:
            raise EvaluationError(f"{self.benchmark.name}: a judge is asked with a file of the data; give --data")
        places = [f"{folder}/mm-vet_evaluator.py" for folder in FOLDERS]
        return read_constant(self.benchmark.locate(self.data, *places), "prompt")

    def sampling(self, attempt: int) -> Sampling:
        return Sampling(max_new_tokens=3, temperature=TEMPERATURES[attempt], seed=attempt)

    def readable(self, review: str) -> bool:
        return score(review) is not None

    def read_replies(self, path: Path) -> list[Reply]:
        """Grade files say the score of each run, which is not always what the judge said last."""
        if path.suffix != ".json" or not path.is_file():
            return super().read_replies(path)
        rows = read_object(path)
        if not all(isinstance(row, dict) and isinstance(row.get("score"), list) for row in rows.values()):
            return []
        return [Reply(id, "|".join(map(str, row["score"])), one_of(row.get("model"))) for id, row in rows.items()]


def made(id: str, row: Mapping[str, Any], image: object) -> Question:
    """Make a question of what a file says of it."""
    named = row["capability"].split(",") if isinstance(row["capability"], str) else row["capability"]
    own = [capability for capability in CAPABILITIES if capability in named]
    return Question(
        id=id,
        conversation=Conversation().ask(row["question"], [image]),
        correct=(row["answer"],),
        groups=(*own, f"only {'+'.join(own)}"),
        row={"question": row["question"]},
    )


def scored(review: str) -> Mark:
    """Mark an answer by its review."""
    found = score(review)
    return Mark(found or 0.0, None if found is None else f"{found:g}")


def score(review: str) -> float | None:
    """Read the score, the mean of several runs' where they are joined by |; None where one of them is none."""
    try:
        runs = [float(run) for run in review.split(" ")[0].strip().split("|")]
    except ValueError:
        return None
    return mean(runs) if all(0 <= run <= 1 for run in runs) else None


def one_of(names: object) -> str:
    """The judge, where it is the same in all runs."""
    return names[0] if isinstance(names, list) and len(set(names)) == 1 and isinstance(names[0], str) else ""


if __name__ == "__main__":
    with report_mistakes():
        main(Mmvet, llava_lite.open_model)
