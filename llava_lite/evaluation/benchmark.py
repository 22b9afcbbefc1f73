"""What a benchmark is: questions read from its files, and the figures its scorer gives for the answers.

A scorer never sees a model and never trusts the order of a file: answers are joined to questions by id, and what is
unanswered makes the scores incomplete instead of disappearing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llava_lite.conversation.message import Conversation

QuestionId = int | str
Figures = Mapping[str, float]
"""Named figures, the first of which stands for all of them; whole numbers are counts."""


class EvaluationError(ValueError):
    """An evaluation that cannot be trusted or cannot start: a missing file, a broken row, answers of another run."""


@dataclass(frozen=True)
class Question:
    """One question as it is asked, and what the scorer needs to know.

    id:      as in the benchmark's file, unique among its questions
    correct: the correct answer; several where people's answers differ, or where several facts are asked for
    kind:    the category under which it is reported
    """

    id: QuestionId
    conversation: Conversation
    correct: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    question_id: QuestionId
    text: str


@dataclass(frozen=True)
class Scores:
    """What the answers are worth.

    figures: over all questions
    kinds:   the figures of each kind, `n` (how many answers) among them
    credit:  what each answered question earned, from 0 (wrong) to 1 (right)
    total:   how many questions there are, answered or not
    """

    figures: Figures
    kinds: Mapping[str, Figures]
    credit: Mapping[QuestionId, float]
    total: int

    @property
    def n(self) -> int:
        return len(self.credit)

    @property
    def complete(self) -> bool:
        return self.n == self.total


class Benchmark(ABC):
    """One benchmark: the only subclass in its file under `eval/`.

    source: where its files come from, for the message about a missing one
    """

    name: ClassVar[str]
    max_new_tokens: ClassVar[int]
    source: ClassVar[str]

    @abstractmethod
    def questions(self, data: Path) -> list[Question]:
        """Read the questions from the folder `data`. Images are only referred to: scoring does not need them."""

    @abstractmethod
    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> Scores:
        """Score the answers; `join` pairs them with their questions."""

    def locate(self, data: Path, *places: str) -> Path:
        """Find the first of `places` in the folder `data`. Raises EvaluationError that says where to get the file."""
        for place in places:
            if (data / place).is_file():
                return data / place
        expected = " or ".join(str(data / place) for place in places)
        raise EvaluationError(f"{self.name}: {expected} is missing; get it from {self.source}")


def join(questions: Sequence[Question], answers: Sequence[Answer]) -> list[tuple[Question, str]]:
    """Pair each answered question with its answer, in the order of the questions.

    Raises EvaluationError for two answers to one question and for answers to questions that are not asked.
    """
    said: dict[QuestionId, str] = {}
    for answer in answers:
        if answer.question_id in said:
            raise EvaluationError(f"question {answer.question_id!r} has two answers; keep one of them")
        said[answer.question_id] = answer.text
    unknown = said.keys() - {question.id for question in questions}
    if unknown:
        some = ", ".join(sorted(map(repr, unknown))[:3])
        raise EvaluationError(f"{len(unknown)} answers to questions that are not asked (ids {some}); check both files")
    return [(question, said[question.id]) for question in questions if question.id in said]


def read_rows(path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """Read a JSON Lines file whose rows have at least `fields`, of these types.

    Raises EvaluationError that names file and line for what is not UTF-8, not a JSON object, or lacks a field.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):  # not splitlines: U+2028 stands in texts
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # a UnicodeDecodeError is one, too
            raise EvaluationError(f"{path}, line {number}: not JSON ({error}); repair or download it anew") from None
        for field, kind in fields.items():
            if not isinstance(row, dict) or not isinstance(row.get(field), kind):
                names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
                raise EvaluationError(f"{path}, line {number}: needs {field!r} ({names}); is this the right file?")
        rows.append(row)
    return rows
