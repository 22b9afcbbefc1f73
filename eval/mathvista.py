"""MathVista: mathematics in pictures; free answers, out of which a language model takes the final one.

Paper:   Lu et al., MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts, ICLR 2024,
         arXiv:2310.02255
Split:   testmini (1,000 questions), test (5,141, whose answers are not public: only the submission is written)
Files:   under --data or --data/MathVista:
         testmini.json or test.json, query.json    github.com/lupantech/MathVista, data/: questions and prompts by id
         images/                                   images.zip of hf AI4Math/MathVista
         or data/testmini-*.parquet of hf AI4Math/MathVista
         ext_ans.py                                evaluation/prompts/ext_ans.py of the repository; its `demo_prompt` is
                                                   what the judge is asked with
Judge:   extracts the final answer after five examples; the script has defaulted to several models of OpenAI's over the
         time (gpt-4-0613 among them). Figures of two judges may differ.
Metric:  accuracy: of all, of each task (the rows of the table) and, in scores.json, of everything the official script
         cuts by: skills, question and answer type, language, source, category, context and grade.
         LLaVA-1.5-13B: 27.6. The official results file ({id: {"response", "extraction", ...}}) is read as --answers.
Quirks:  official. The judge is spared where the answer is empty, is one of the choices to the letter, or is a number
         alone where one is asked for. Of an extraction, the first letter in brackets, "(B)", is the choice, else a
         letter alone, else the choice nearest in edits: whatever is said, the empty text included, is one of them.
         Whole numbers are cut, not rounded ("5.9" is 5); decimals are rounded to the question's precision; lists must
         be equal letter by letter.
         The model is asked with the files' prompts: a hint on the kind of answer, the question and the choices.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.anls import edit_distance
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import (
    EvaluationError,
    Fields,
    check_row,
    read_constant,
    read_json,
    read_object,
    write_whole,
)
from llava_lite.evaluation.judging import Judging, Reply
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.generation.chat_model import Sampling
from llava_lite.recipes import report_mistakes

NONE = type(None)
NUMBERS: Mapping[str, type[int] | type[float]] = {"integer": int, "float": float}
FIELDS: Fields = {
    "pid": str, "question": str, "choices": (list, NONE), "precision": (int, float, NONE), "answer": (str, NONE),
    "question_type": str, "answer_type": str, "metadata": dict,
}  # fmt: skip
ABOUT: Fields = {"task": str, "skills": list}
CUTS = ("question_type", "answer_type", "language", "source", "category", "context", "grade")


class Mathvista(Benchmark):
    title = "mathvista"
    variants: ClassVar[Mapping[str, str]] = {
        "testmini": "1,000 questions with answers",
        "test": "5,141 questions whose answers are not public",
    }
    max_new_tokens = 1024
    faults = (
        "what names no choice is official the one nearest in edits, 5.9 is the whole number 5, and lists differ by a "
        "space; strict: a choice is named by its letter or its words, numbers and lists are compared as such, and what "
        "a judge left unreadable is left out"
    )
    source = "github.com/lupantech/MathVista and hf AI4Math/MathVista"

    def questions(self, data: Path) -> list[Question]:
        name = f"{self.variant}.json"
        tables = find_parquet(data, ["MathVista"], self.variant)
        if tables and not any((data / place / name).is_file() for place in ("MathVista", ".")):
            rows = read_parquet(tables, {**FIELDS, "query": str}, images=["decoded_image"])
            return [made(row, row["query"], row["decoded_image"]) for row in rows]
        path = self.locate(data, f"MathVista/{name}", name)
        queries = read_object(self.locate(path.parent, "query.json"))
        questions = []
        for id, row in read_object(path).items():
            check_row(row, {**FIELDS, "image": str}, f"{path}, {id}")
            if not isinstance(queries.get(id), str):
                raise EvaluationError(f"{path}: question {id} has no prompt in query.json; are both files whole?")
            questions.append(made(row, queries[id], path.parent / row["image"]))
        return questions

    def judging(self, data: Path | None = None) -> Judging:
        return Extraction(self, data)

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        marks = {}
        for question, extraction in pairs:
            (correct,), row = question.correct, question.row
            said = (understood if strict else normalised)(row, extraction.strip())
            wanted = understood(row, correct) if strict and not row["choices"] else correct
            marks[question.id] = Mark(float(said is not None and said == wanted), said)
        return marks

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """The test split's form takes {id: answer}."""
        texts = {answer.question_id: answer.text for answer in answers}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.variant}.json"
        write_whole(path, json.dumps({str(question.id): texts[question.id] for question in questions}, indent=4))
        return [path]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        results = official_results(path, "response")
        return [Answer(id, text) for id, text in results] if results else super().read_answers(path, questions)


@dataclass(frozen=True)
class Extraction(Judging):
    """The judge takes the final answer out of what the model said."""

    benchmark: Mathvista
    data: Path | None
    official: ClassVar[str] = "gpt-4-0613"
    tries: ClassVar[int] = 3

    def needed(self, question: Question, answer: str) -> bool:
        choices, wanted = question.row["choices"], question.row["answer_type"]
        if not answer or (choices and answer in choices):
            return False
        return not (wanted in NUMBERS and is_number(answer, NUMBERS[wanted]))

    def request(self, question: Question, answer: str, attempt: int) -> Conversation:
        words = f"{self.examples.strip()}\n\n{question.row['query']}\n\n{answer}\n\nExtracted answer: "
        return Conversation().ask(words)

    @cached_property
    def examples(self) -> str:
        """The official examples, which are not ours to copy."""
        if self.data is None:
            raise EvaluationError(f"{self.benchmark.name}: a judge is asked with a file of the data; give --data")
        path = self.benchmark.locate(self.data, "MathVista/ext_ans.py", "ext_ans.py")
        return read_constant(path, "demo_prompt")

    def sampling(self, attempt: int) -> Sampling:
        return Sampling(max_new_tokens=1024, temperature=0.5 * attempt, seed=attempt)

    def readable(self, review: str) -> bool:
        return bool(review.strip())

    def read_replies(self, path: Path) -> list[Reply]:
        results = [Reply(id, text) for id, text in official_results(path, "extraction")]
        return results or super().read_replies(path)


def made(row: Mapping[str, Any], query: str, image: object) -> Question:
    """Make a question of what a file says of it."""
    about = check_row(row["metadata"], ABOUT, f"question {row['pid']}, metadata")
    choices = row.get("choices") or []
    chosen = row["question_type"] == "multi_choice"
    if not all(isinstance(choice, str) for choice in choices) or (chosen and not choices):
        raise EvaluationError(f"question {row['pid']}: needs choices, as texts; is the file whole?")
    missing = [cut for cut in CUTS if cut not in row and cut not in about]
    if missing or (row["answer_type"] == "float" and row.get("precision") is None):
        raise EvaluationError(f"question {row['pid']}: no {missing[0] if missing else 'precision'}; is the file whole?")
    cuts = [f"{cut}: {row[cut] if cut in row else about[cut]}" for cut in CUTS]
    kept = {name: row.get(name) for name in ("choices", "question_type", "answer_type", "precision")}
    return Question(
        id=row["pid"],
        conversation=Conversation().ask(query, [image]),
        correct=(row["answer"],) if row.get("answer") else (),
        kind=about["task"],
        groups=(*(f"skill: {skill}" for skill in about["skills"]), *cuts),
        row={**kept, "query": query},
    )


def normalised(row: Mapping[str, Any], extraction: str) -> str | None:
    """Say what an extraction amounts to, as the official script does; None where it is no number."""
    if row["question_type"] == "multi_choice":
        letter = bracketed(extraction)
        return lettered(letter, row["choices"]) or min(row["choices"], key=partial(edit_distance, letter))
    try:
        match row["answer_type"]:
            case "integer":
                return str(int(float(extraction)))
            case "float":
                return str(round(float(extraction), int(row["precision"])))
    except (ValueError, OverflowError):
        return None
    return extraction


def understood(row: Mapping[str, Any], extraction: str) -> str | None:
    """Say what an extraction says: of the choices one that it names, a number or list as it is; None where neither."""
    if row["question_type"] == "multi_choice":
        named = [choice for choice in row["choices"] if choice.strip().lower() == extraction.lower()]
        return lettered(bracketed(extraction), row["choices"]) or next(iter(named), None)
    try:
        match row["answer_type"]:
            case "integer":
                return str(int(number)) if (number := float(extraction)).is_integer() else str(number)
            case "list":
                return json.dumps(json.loads(extraction))
    except (ValueError, OverflowError, RecursionError):
        return None
    return normalised(row, extraction)


def bracketed(extraction: str) -> str:
    """The first letter in brackets, as a capital, or all of it where there is none."""
    letters = re.findall(r"\(([a-zA-Z])\)", extraction)
    return letters[0].upper() if letters else extraction


def lettered(letter: str, choices: Sequence[str]) -> str | None:
    """The choice of this letter; None where it is none of theirs."""
    return next((choice for place, choice in enumerate(choices) if chr(ord("A") + place) == letter), None)


def is_number(text: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def official_results(path: Path, name: str) -> list[tuple[str, str]]:
    """Read a field of the official results file; empty where it is none, or none has the field."""
    content = read_json(path) if path.suffix == ".json" and path.is_file() else None
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        return []
    return [(id, row[name]) for id, row in content.items() if isinstance(row.get(name), str)]


if __name__ == "__main__":
    with report_mistakes():
        main(Mathvista, llava_lite.open_model)
