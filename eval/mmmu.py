"""MMMU: college exams in 30 subjects of 6 disciplines, with diagrams, tables, scores, scans and the like.

Paper:   Yue et al., MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning Benchmark, CVPR 2024,
         arXiv:2311.16502
Split:   validation, 900 questions, 30 a subject; variant `test`, 10,500, which the server scores (EvalAI 2179)
Files:   under --data or --data/MMMU, the parquet files of the dataset MMMU/MMMU: SUBJECT/validation-*.parquet for all
         30 subjects; or those of lmms-lab/MMMU, which are one: data/validation-*.parquet
         --answers also takes the official scripts' files: {"id": "answer"}, and a folder of SUBJECT/output.json
Metric:  accuracy over all questions; by subject, and by discipline
Quirks:  all official but for the dice. Of several options an answer names, the last counts: those in brackets, else
         letters that stand alone, else (in more than five words) texts of options. What names none is answered by
         lot; here the lot hangs on the question alone, so that the figure depends neither on the order of questions
         nor on a seed; such answers are listed as unparsed. The open questions (about 50) are read by key phrases, and
         are right when one of the phrases contains a correct answer, or a number in it equals one to two decimals.
         The prompt is LLaVA-1.5's of the official repository: its pictures come first, and the marks <image 1>, ... by
         which texts refer to them stay. There, only the first picture is shown, and what has pictures for options is
         answered by lot; here all that texts refer to are shown, in order of their numbers, as in lmms-eval.
         Figures of lmms-eval differ by a few answers, for its parser finds letters within words.
"""

import ast
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark, Mark, Question, QuestionId
from llava_lite.evaluation.command import main
from llava_lite.evaluation.files import EvaluationError, write_whole
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.recipes import report_mistakes

CHOICE = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
OPEN = "{question}\nAnswer the question using a single word or phrase."
DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health"
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
SUBJECTS = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
IMAGES = [f"image_{number}" for number in range(1, 8)]
FIELDS = {"id": str, "question": str, "options": str, "answer": str, "question_type": str}
SPLITS = {"val": "validation", "test": "test"}
KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,200
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # 1.2e3
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),  # 1200, .5
)


class Mmmu(Benchmark):
    title = "mmmu"
    variants: ClassVar[Mapping[str, str]] = {"val": "validation, scored here", "test": "for the server to score"}
    max_new_tokens = 128
    source = "the dataset MMMU/MMMU, or lmms-lab/MMMU, at the Hugging Face hub"
    faults = "an answer that names no option is official given one by lot; strict: it is wrong"

    def questions(self, data: Path) -> list[Question]:
        return [self._question(row) for row in read_parquet(self._files(data), FIELDS, images=IMAGES)]

    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        return {question.id: judge(question, text, strict) for question, text in pairs}

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """Write {"id": a letter, or the answer to an open question as it is, which the server reads itself}."""
        asked = {question.id: question for question in questions}
        chosen = {answer.question_id: settle(asked[answer.question_id], answer.text) for answer in answers}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"mmmu_{self.variant}.json"
        write_whole(path, json.dumps(chosen, indent=1))
        return [path]

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        files = sorted(path.glob("*/output.json")) if path.is_dir() else [path]
        if not files:
            raise EvaluationError(f"{path}: no SUBJECT/output.json in there; give the folder of one model's outputs")
        return [answer for file in files for answer in super(Mmmu, self).read_answers(file, questions)]

    def _files(self, data: Path) -> list[Path]:
        split, folders = SPLITS[self.variant], ["MMMU", "mmmu"]
        found = {subject: find_parquet(data, folders, split, subject) for subject in SUBJECTS}
        missing = [subject for subject, paths in found.items() if not paths]
        if len(missing) < len(SUBJECTS):  # the official layout, which has to be whole
            for subject in missing:
                self.locate(data, f"MMMU/{subject}/{split}-*.parquet")
            return [path for paths in found.values() for path in paths]
        return find_parquet(data, folders, split) or [
            self.locate(data, f"MMMU/Art/{split}-*.parquet", f"MMMU/data/{split}-*.parquet")
        ]

    def _question(self, row: Mapping[str, Any]) -> Question:
        id, multiple = row["id"], row["question_type"] == "multiple-choice"
        subject = "_".join(id.split("_")[1:-1])
        options = written_list(row["options"]) if multiple else ()
        if subject not in SUBJECTS or (multiple and not options):
            raise EvaluationError(
                f"{self.name}: question {id!r} is of no known subject or has no options; see its file"
            )
        lines = [f"({letter}) {text}\n" for letter, text in zip(ascii_uppercase, options, strict=False)]
        text = (CHOICE if multiple else OPEN).format(question=row["question"], options="".join(lines))
        correct = written_list(row["answer"]) or (row["answer"],)
        return Question(
            id,
            Conversation().ask(text, pictures(row, text)),
            correct if self.variant == "val" else (),
            kind=subject,
            groups=(SUBJECTS[subject],),
            options=options,
        )


def pictures(row: Mapping[str, Any], text: str) -> list[Any]:
    """The pictures that a prompt refers to as <image 1>, ..., by their numbers; the first where it refers to none."""
    names = sorted({f"image_{number}" for number in re.findall(r"<image (\d+)>", text)}) or IMAGES[:1]
    missing = [name for name in names if row.get(name) is None]
    if missing:
        raise EvaluationError(f"mmmu: question {row['id']} has no {', '.join(missing)}; download its file anew")
    return [row[name] for name in names]


def written_list(text: str) -> tuple[str, ...]:
    """Read texts written as a Python list, as the dataset has options and several correct answers; else nothing."""
    try:
        value = ast.literal_eval(text) if text.startswith("[") else None
    except (ValueError, SyntaxError):
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else ()


def judge(question: Question, text: str, strict: bool) -> Mark:
    """Mark an answer; one that names no option gets its lot, or nothing where scoring is strict."""
    if not question.options:
        return Mark(float(contains(open_answers(text), question.correct)), text.strip() or None)
    letter = chosen_letter(text, question.options)
    credit = settle(question, text) in question.correct and (letter is not None or not strict)
    return Mark(float(credit), letter)


def settle(question: Question, text: str) -> str:
    """What is counted as the answer: a letter, if need be drawn; or the text, to an open question."""
    if not question.options:
        return text
    return chosen_letter(text, question.options) or drawn_letter(question.id, len(question.options))


def chosen_letter(text: str, options: Sequence[str]) -> str | None:
    """The last option that an answer names: in brackets, else as a letter alone, else by its text."""
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    letters = ascii_uppercase[: len(options)]
    places = [[text.rfind(form.format(letter)) for letter in letters] for form in ("({})", " {} ")]
    if len(text.split()) > 5:
        places.append([text.lower().rfind(option.lower()) for option in options])
    for ends in places:
        if max(ends) >= 0:
            return letters[ends.index(max(ends))]
    return None


def drawn_letter(id: QuestionId, count: int) -> str:
    """Draw one of so many options: always the same for a question."""
    return ascii_uppercase[int.from_bytes(hashlib.sha256(str(id).encode()).digest(), "big") % count]


def open_answers(text: str) -> list[str | float]:
    """What an answer to an open question may mean: its key phrases, and the numbers in them."""
    phrases = key_phrases(text.strip().strip(".").lower())
    numbers = [number for phrase in phrases for pattern in NUMBERS for number in pattern.findall(phrase)]
    return [value for written in [*phrases, *numbers] for value in normal(written)]


def key_phrases(text: str) -> list[str]:
    """Of each line the shortest text behind a key word, in the last line behind "=" too; all where there is none."""
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        shortest = ""
        for key in KEYS if number < len(lines) else (*KEYS, "="):
            if key in line:
                tail = line.split(key)[-1].strip()
                shortest = tail if not shortest or len(tail) < len(shortest) else shortest
        if shortest and shortest not in tuple(":,.!?;'"):
            found.append(shortest)
    return found or [text]


def normal(text: str) -> list[str | float]:
    """A number to two decimals; else the text, where a single letter has to stand at the edge of a word."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def contains(said: Sequence[str | float], correct: Sequence[str]) -> bool:
    """Whether a text that was said contains a correct one, or a number that was said is one."""
    true = [value for answer in correct for value in normal(answer)]
    texts = [value for value in true if isinstance(value, str)]
    return any(any(t in value for t in texts) if isinstance(value, str) else value in true for value in said)


if __name__ == "__main__":
    with report_mistakes():
        main(Mmmu, llava_lite.open_model)
