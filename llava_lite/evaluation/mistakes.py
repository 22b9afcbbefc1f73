"""The mistakes worth looking at: those made again and again, and those that say something about the model's eyes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava_lite.evaluation.benchmark import Mark, Question, QuestionId, Scores
from llava_lite.evaluation.page import Table

MAX_MISTAKES = 12
MAX_ROWS = 10
LONGEST = 60


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, and in a few words why it is worth looking at."""

    question: Question
    why: str


def telling(questions: Sequence[Question], scores: Scores, blind: Scores | None) -> list[Mistake]:
    """Choose up to MAX_MISTAKES wrong answers, each pair of said and correct once.

    First what was right without the image, which the image must have misled; then what the scorer could not read;
    then what is confused most often.
    """
    times = _confusions(questions, scores.marks)
    found: list[tuple[int, int, Mistake]] = []
    for question in questions:
        mark = scores.marks.get(question.id)
        if mark is None or mark.credit > 0:
            continue
        count = times[_pair(question, mark)]
        if blind and question.id in blind.marks and blind.marks[question.id].credit >= 1:
            found.append((0, -count, Mistake(question, "right blind")))
        elif mark.parsed is None:
            found.append((1, -count, Mistake(question, "could not be read")))
        elif count > 1:
            found.append((2, -count, Mistake(question, f"{count} times")))
    chosen: dict[tuple[int, tuple[str, str]], Mistake] = {}
    for why, _, mistake in sorted(found, key=lambda entry: entry[:2]):
        chosen.setdefault((why, _pair(mistake.question, scores.marks[mistake.question.id])), mistake)
    return list(chosen.values())[:MAX_MISTAKES]


def most_frequent(questions: Sequence[Question], scores: Scores) -> Table | None:
    """Count what was said in place of what; None where no two mistakes are alike."""
    times = _confusions(questions, scores.marks)
    rows = [[correct, said, str(count)] for (correct, said), count in times.most_common(MAX_ROWS) if count > 1]
    return Table("Most frequent mistakes", ["correct", "said", "times"], rows, sums_up=False) if rows else None


def _confusions(questions: Sequence[Question], marks: Mapping[QuestionId, Mark]) -> Counter[tuple[str, str]]:
    wrong = (q for q in questions if q.id in marks and marks[q.id].credit == 0)
    return Counter(_pair(question, marks[question.id]) for question in wrong)


def _pair(question: Question, mark: Mark) -> tuple[str, str]:
    """What is correct, by most of those who say so, and what was said."""
    ((correct, _),) = Counter(question.correct).most_common(1)
    said = "(could not be read)" if mark.parsed is None else mark.parsed
    return correct[:LONGEST], said[:LONGEST]
