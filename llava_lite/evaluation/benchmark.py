"""What a benchmark is: questions read from its files, and what its scorer makes of the answers.

A scorer never sees a model and never trusts the order of a file: answers are joined to questions by id, and what is
unanswered makes the scores incomplete instead of disappearing. It marks each answer; every figure is made of sums over
marks, so that categories, confidence intervals and comparisons are the same arithmetic over other answers.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.files import EvaluationError, read_answer_texts
from llava_lite.evaluation.metrics import ratio

if TYPE_CHECKING:
    from llava_lite.evaluation.judging import Judging

QuestionId = int | str
Figures = Mapping[str, float]
"""Named figures, the first of which stands for all of them; whole numbers are counts."""
Sums = Mapping[str, float]
"""Over some answers: `n`, how many; `credit`; and each count that their marks name."""


@dataclass(frozen=True)
class Question:
    """One question as it is asked, and what the scorer needs to know.

    id:      as in the benchmark's file, unique among its questions
    correct: the correct answer; several where people's answers differ, or where several facts are asked for; none
             where the files hold none, as of a test split
    kind:    the category under which it is reported; "" where there are none
    groups:  further names under which it is reported, where a benchmark cuts its questions in several ways
    cluster: what shares its luck, such as an image that many questions are about; by default its first image
    options: the texts of A, B, C, ..., where it offers them
    row:     what else the scorer and the submission need of its row in the benchmark's file; plain JSON
    """

    id: QuestionId
    conversation: Conversation
    correct: tuple[str, ...]
    kind: str = ""
    groups: tuple[str, ...] = ()
    cluster: str = ""
    options: tuple[str, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises EvaluationError where the file it comes from has no picture, or no text where a text should be."""
        if any(image.source is None for image in self.conversation.images):
            raise EvaluationError(f"question {self.id!r}: its picture is missing in the file; download it anew")
        texts = (self.kind, *self.correct, *self.groups, *self.options)
        odd = next((text for text in texts if not isinstance(text, str)), None)
        if odd is not None or None in texts:
            raise EvaluationError(f"question {self.id!r}: {odd!r} stands where a text should; download its file anew")


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    question_id: QuestionId
    text: str


@dataclass(frozen=True)
class Mark:
    """What the scorer makes of one answer.

    credit: from 0 (wrong) to 1 (right)
    parsed: what the answer was taken for; None where the scorer could make nothing of it
    counts: what it adds to the sums that figures are made of, besides its credit. What questions earn together, as the
            two about one image of MME do, is counted with one of them
    """

    credit: float
    parsed: str | None
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """What the answers are worth.

    figures: over all questions; none where no answer was marked
    kinds:   the figures of each kind, `n` (how many answers) among them; groups: likewise
    marks:   of each answer to a question whose correct answer is known, in the order of the questions
    n:       how many questions are answered; total: how many there are
    """

    figures: Figures
    kinds: Mapping[str, Figures]
    groups: Mapping[str, Figures]
    marks: Mapping[QuestionId, Mark]
    n: int
    total: int

    @property
    def complete(self) -> bool:
        return self.n == self.total

    @property
    def unparsed(self) -> list[QuestionId]:
        """The answers of which the scorer could make nothing."""
        return [id for id, mark in self.marks.items() if mark.parsed is None]


class Benchmark(ABC):
    """One benchmark: the only subclass in its file under `eval/`.

    title:    its name in its file's language, `pope`; `name` has the variant, too: `mmbench-cn`
    variants: other splits, languages or prompts with figures of their own, in a few words; the first is the default
    source:   where its files come from, for the message about a missing one
    faults:   what is known to be wrong with the official scoring, and what `strict` does instead; "" where nothing is
    """

    title: ClassVar[str]
    variants: ClassVar[Mapping[str, str]] = {}
    max_new_tokens: ClassVar[int]
    source: ClassVar[str]
    faults: ClassVar[str] = ""

    def __init__(self, variant: str = "") -> None:
        """Raises EvaluationError for a variant that there is not."""
        if variant and variant not in self.variants:
            near = difflib.get_close_matches(variant, self.variants, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}? There are {', '.join(self.variants)}" if near else "it has none"
            raise EvaluationError(f"{self.title}: no variant {variant!r}; {hint}")
        self.variant = variant or next(iter(self.variants), "")

    @property
    def name(self) -> str:
        """What its results are called: the title, and the variant where it is not the first."""
        return self.title if self.variant == next(iter(self.variants), "") else f"{self.title}-{self.variant}"

    @abstractmethod
    def questions(self, data: Path) -> list[Question]:
        """Read the questions from the folder `data`. Images are only referred to: scoring does not need them."""

    @abstractmethod
    def mark(self, pairs: Sequence[tuple[Question, str]], *, strict: bool) -> Mapping[QuestionId, Mark]:
        """Mark every answer: as the official scorer does, or, where that is known to be wrong, as it should be."""

    def figures(self, sums: Sums) -> Figures:
        """Make the figures of some answers from the sums of their marks; by default their average credit."""
        return {"accuracy": ratio(sums["credit"], sums["n"])}

    def overall(self, kinds: Mapping[str, Figures], sums: Sums) -> Figures:
        """Make the figures of all answers: of their sums or, as POPE and MME do, of the kinds' figures."""
        return self.figures(sums)

    def judging(self, data: Path | None = None) -> Judging | None:
        """Say how a judge reviews the answers, whose reviews are then marked in their place; by default none does.

        data: where the words for the judge are read from, once one is asked
        """
        return None

    def questions_in(self, answers: Path) -> list[Question]:
        """Read the questions, as far as the scorer needs them, from a file of reviews alone; by default from none."""
        raise EvaluationError(f"{self.name}: {answers.name} does not tell the questions; give --data, too")

    def submit(self, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Path]:
        """Write what the benchmark's test server takes into `folder`; by default there is none, and nothing."""
        return []

    def read_answers(self, path: Path, questions: Sequence[Question]) -> list[Answer]:
        """Read answers made elsewhere; by default as `read_answer_texts` says. Ids are those of `questions`.

        Numbers and their digits are one id, for formats differ in that.
        """
        written = {str(question.id): question.id for question in questions}
        return [Answer(written.get(str(id), id), text) for id, text in read_answer_texts(path)]

    def score(self, questions: Sequence[Question], answers: Sequence[Answer], *, strict: bool = False) -> Scores:
        """Score the answers. Raises as `join` does."""
        pairs = join(questions, answers)
        known = [(question, text) for question, text in pairs if question.correct]
        marks = self.mark(known, strict=strict)
        asked = [question for question, _ in known]
        kinds = self.named((question.kind, marks[question.id]) for question in asked)
        groups = self.named((group, marks[question.id]) for question in asked for group in question.groups)
        figures = self.overall(kinds, add_up(marks.values())) if marks else {}
        kinds.pop("", None)
        ordered = {question.id: marks[question.id] for question in asked}
        return Scores(figures, kinds, groups, ordered, len(pairs), len(questions))

    def named(self, marks: Iterable[tuple[str, Mark]]) -> dict[str, Figures]:
        """Make the figures of each name, names in the order they come."""
        sorted_marks: dict[str, list[Mark]] = {}
        for name, mark in marks:
            sorted_marks.setdefault(name, []).append(mark)
        return {name: {**self.figures(add_up(own)), "n": len(own)} for name, own in sorted_marks.items()}

    def locate(self, data: Path, *places: str) -> Path:
        """Find the first of `places` in the folder `data`. Raises EvaluationError that says where to get the file."""
        for place in places:
            if (data / place).is_file():
                return data / place
        expected = " or ".join(str(data / place) for place in places)
        raise EvaluationError(f"{self.name}: {expected} is missing; get it from {self.source}")


def add_up(marks: Iterable[Mark]) -> dict[str, float]:
    """Sum marks: `n`, `credit` and each count. All marks of a benchmark name the same counts."""
    columns: dict[str, list[float]] = {"n": [], "credit": []}
    for mark in marks:
        for name, value in (("n", 1), ("credit", mark.credit), *mark.counts.items()):
            columns.setdefault(name, []).append(value)
    return {name: fsum(values) for name, values in columns.items()}


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
