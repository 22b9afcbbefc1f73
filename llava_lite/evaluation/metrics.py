"""Figures that more than one benchmark reports. Pure arithmetic: no files, no models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum

from llava_lite.evaluation.benchmark import Question, QuestionId, Scores


@dataclass(frozen=True)
class Confusion:
    """Counts of yes/no decisions, "yes" being the positive; a ratio with nothing below the line is 0."""

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def count(cls, decisions: Iterable[tuple[bool, bool]]) -> Confusion:
        """Count pairs of (said yes, yes is correct)."""
        pairs = list(decisions)
        return cls(
            tp=pairs.count((True, True)),
            fp=pairs.count((True, False)),
            tn=pairs.count((False, False)),
            fn=pairs.count((False, True)),
        )

    @property
    def n(self) -> int:
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> float:
        return _ratio(self.tp + self.tn, self.n)

    @property
    def precision(self) -> float:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """The share of yes among the answers given, not among the correct ones."""
        return _ratio(self.tp + self.fp, self.n)

    def figures(self) -> dict[str, float]:
        """The ratios by name, F1 first, and the counts they come from."""
        ratios = {"f1": self.f1, "accuracy": self.accuracy, "precision": self.precision, "recall": self.recall}
        return {**ratios, "yes_ratio": self.yes_ratio, "n": self.n, **asdict(self)}


def accuracy(credits: Sequence[float]) -> float:
    """Average what the answers earned; 0 where there are none."""
    return _ratio(fsum(credits), len(credits))


def by_kind(pairs: Iterable[tuple[Question, str]]) -> dict[str, list[tuple[Question, str]]]:
    """Group questions and their answers by kind, kinds in the order of their first question."""
    groups: dict[str, list[tuple[Question, str]]] = {}
    for question, text in pairs:
        groups.setdefault(question.kind, []).append((question, text))
    return groups


def accuracy_scores(pairs: Sequence[tuple[Question, str]], credit: Mapping[QuestionId, float], *, total: int) -> Scores:
    """Report the average credit, over all questions and for each kind, of a benchmark that is scored so."""
    kinds = {}
    for kind, group in by_kind(pairs).items():
        kinds[kind] = {"accuracy": accuracy([credit[question.id] for question, _ in group]), "n": len(group)}
    return Scores({"accuracy": accuracy(list(credit.values()))}, kinds, credit, total)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
