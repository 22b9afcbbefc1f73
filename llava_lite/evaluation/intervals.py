"""How far to trust a figure, and a difference of two: other samples of the same size, drawn from the answers there are.

Questions about one image succeed and fail together, so whole clusters are drawn, not questions: an interval over
questions alone would be too narrow (Miller, Adding Error Bars to Evals, 2024, arXiv:2411.00640).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava_lite.evaluation.benchmark import Benchmark, Figures, Mark, Question, QuestionId
from llava_lite.evaluation.modes import image_key

NUM_DRAWS = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Marked:
    """One answer's mark, and what its question shares its luck and its figures with."""

    question_id: QuestionId
    kind: str
    cluster: str
    mark: Mark


def marked(questions: Sequence[Question], marks: Mapping[QuestionId, Mark]) -> list[Marked]:
    """Put marks and what is known of their questions together, in the order of the questions."""
    return [Marked(q.id, q.kind, cluster(q), marks[q.id]) for q in questions if q.id in marks]


def cluster(question: Question) -> str:
    """Name what a question shares its luck with: what it says itself, or its first image."""
    if question.cluster:
        return question.cluster
    images = question.conversation.images
    return image_key(images[0]) if images else f"question {question.id}"


def intervals(benchmark: Benchmark, answers: Sequence[Marked], *, draws: int = NUM_DRAWS) -> dict[str, Interval]:
    """Return of each figure over all, counts left out, the interval of 95% (percentile bootstrap).

    The same answers give the same interval. Empty where all answers are of one cluster.
    """
    return _percentiles(figures for (figures,) in resampled(benchmark, [answers], draws=draws))


def difference_intervals(
    benchmark: Benchmark, first: Sequence[Marked], second: Sequence[Marked], *, draws: int = NUM_DRAWS
) -> dict[str, Interval]:
    """Return the intervals of second minus first, both over the same draws: of the same questions in the same order."""
    pairs = resampled(benchmark, [first, second], draws=draws)
    return _percentiles({name: b[name] - a[name] for name in b if isinstance(b[name], float)} for a, b in pairs)


def resampled(benchmark: Benchmark, samples: Sequence[Sequence[Marked]], *, draws: int) -> Iterator[list[Figures]]:
    """Draw clusters with replacement, again and again; yield the figures of each sample over the same draw.

    The samples are answers to the same questions in the same order. Nothing where there is one cluster only.
    """
    clusters = {name: number for number, name in enumerate(dict.fromkeys(answer.cluster for answer in samples[0]))}
    if len(clusters) < 2:
        return
    tables = [_Table.of(sample, clusters) for sample in samples]
    generator = np.random.default_rng(0)
    for _ in range(draws):
        weights = np.bincount(generator.integers(len(clusters), size=len(clusters)), minlength=len(clusters))
        yield [table.figures(benchmark, weights) for table in tables]


@dataclass(frozen=True)
class _Table:
    """What the answers of each cluster add to the sums of each kind. sums: float [clusters, kinds * columns]"""

    kinds: list[str]
    columns: list[str]
    sums: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[Marked], clusters: Mapping[str, int]) -> _Table:
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys(answer.kind for answer in answers))}
        columns = ["n", "credit", *answers[0].mark.counts]
        sums = np.zeros((len(clusters), len(kinds), len(columns)))
        for answer in answers:
            row = [1.0, answer.mark.credit, *answer.mark.counts.values()]
            sums[clusters[answer.cluster], kinds[answer.kind]] += row
        return cls(list(kinds), columns, sums.reshape(len(clusters), -1))

    def figures(self, benchmark: Benchmark, weights: np.ndarray) -> Figures:
        """Make the figures over all from clusters that weigh so much."""
        sums = (weights @ self.sums).reshape(len(self.kinds), len(self.columns))
        by_kind = {
            kind: benchmark.figures(dict(zip(self.columns, row.tolist(), strict=True)))
            for kind, row in zip(self.kinds, sums, strict=True)
            if row[0]  # a kind may be drawn not at all
        }
        return benchmark.overall(by_kind, dict(zip(self.columns, sums.sum(0).tolist(), strict=True)))


def _percentiles(draws: Iterator[Mapping[str, float]]) -> dict[str, Interval]:
    values: dict[str, list[float]] = {}
    for figures in draws:
        for name, value in figures.items():
            if isinstance(value, float):
                values.setdefault(name, []).append(value)
    found = {}
    for name, drawn in values.items():
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
        found[name] = (low, high)
    return found
