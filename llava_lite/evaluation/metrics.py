"""Figures that more than one benchmark reports. Pure arithmetic: no files, no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum


@dataclass(frozen=True)
class Confusion:
    """Counts of yes/no decisions, "yes" being the positive; a ratio with nothing below the line is 0."""

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def of(cls, sums: Mapping[str, float]) -> Confusion:
        """Read the four counts from the sums of what `decision` gave."""
        return cls(**{name: round(sums[name]) for name in ("tp", "fp", "tn", "fn")})

    @property
    def n(self) -> int:
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> float:
        return ratio(self.tp + self.tn, self.n)

    @property
    def precision(self) -> float:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        return ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """The share of yes among the answers given, not among the correct ones."""
        return ratio(self.tp + self.fp, self.n)

    def figures(self) -> dict[str, float]:
        """The ratios by name, F1 first, and the counts they come from."""
        ratios = {"f1": self.f1, "accuracy": self.accuracy, "precision": self.precision, "recall": self.recall}
        return {**ratios, "yes_ratio": self.yes_ratio, **asdict(self)}


def decision(said_yes: bool, yes_is_correct: bool) -> dict[str, float]:
    """Count one decision, as `Confusion` names it."""
    name = ("t" if said_yes == yes_is_correct else "f") + ("p" if said_yes else "n")
    return {"tp": 0, "fp": 0, "tn": 0, "fn": 0, name: 1}


def mean(values: Sequence[float]) -> float:
    """Average; 0 where there is nothing."""
    return ratio(fsum(values), len(values))


def ratio(part: float, whole: float) -> float:
    """Divide; 0 where there is nothing below the line."""
    return part / whole if whole else 0.0
