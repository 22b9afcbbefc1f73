"""How far to trust a figure: other samples of the same size, drawn from the answers that there are.

Questions about one image succeed and fail together, so whole clusters are drawn, not questions: an interval over
questions alone would be too narrow (Miller, Adding Error Bars to Evals, 2024, arXiv:2411.00640).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llava_lite.evaluation.benchmark import Benchmark, Mark, Question, QuestionId, Sums
from llava_lite.evaluation.modes import image_key

NUM_DRAWS = 2000
Interval = tuple[float, float]


def intervals(
    benchmark: Benchmark, questions: Sequence[Question], marks: Mapping[QuestionId, Mark], *, draws: int = NUM_DRAWS
) -> dict[str, Interval]:
    """Return of each figure over all questions, counts left out, the interval of 95% (percentile bootstrap).

    The same answers give the same interval. Empty where all answers are of one cluster.
    """
    asked = [question for question in questions if question.id in marks]
    if len({cluster(question) for question in asked}) < 2:
        return {}
    drawn: dict[str, list[float]] = {}
    for figures in resampled(benchmark, asked, [marks], draws=draws):
        for name, value in figures[0].items():
            if isinstance(value, float):
                drawn.setdefault(name, []).append(value)
    return {name: _percentiles(values) for name, values in drawn.items()}


def resampled(
    benchmark: Benchmark,
    questions: Sequence[Question],
    marked: Sequence[Mapping[QuestionId, Mark]],
    *,
    draws: int = NUM_DRAWS,
) -> Iterator[list[Mapping[str, float]]]:
    """Draw the clusters of questions again and again, with replacement; yield the figures of each of `marked`,
    all over the same draw. Each of `marked` holds all the questions."""
    clusters = {name: number for number, name in enumerate(dict.fromkeys(map(cluster, questions)))}
    tables = [_table(questions, clusters, marks) for marks in marked]
    generator = np.random.default_rng(0)
    for _ in range(draws):
        weights = np.bincount(generator.integers(len(clusters), size=len(clusters)), minlength=len(clusters))
        yield [_figures(benchmark, kinds, columns, weights @ table) for kinds, columns, table in tables]


def cluster(question: Question) -> str:
    """What a question shares its luck with."""
    if question.cluster:
        return question.cluster
    images = question.conversation.images
    return image_key(images[0]) if images else f"question {question.id}"


def _table(
    questions: Sequence[Question], clusters: Mapping[str, int], marks: Mapping[QuestionId, Mark]
) -> tuple[list[str], list[str], np.ndarray]:
    """Sum the counts of each cluster, kind by kind: float [clusters, kinds * columns]."""
    kinds = list(dict.fromkeys(question.kind for question in questions))
    places = {kind: number for number, kind in enumerate(kinds)}
    columns = ["n", "credit", *next(iter(marks.values())).counts]
    table = np.zeros((len(clusters), len(kinds), len(columns)))
    for question in questions:
        mark = marks[question.id]
        row = [1.0, mark.credit, *mark.counts.values()]
        table[clusters[cluster(question)], places[question.kind]] += row
    return kinds, columns, table.reshape(len(clusters), -1)


def _figures(
    benchmark: Benchmark, kinds: Sequence[str], columns: Sequence[str], sums: np.ndarray
) -> Mapping[str, float]:
    by_kind = sums.reshape(len(kinds), len(columns))
    drawn: dict[str, Sums] = {
        kind: dict(zip(columns, row.tolist(), strict=True)) for kind, row in zip(kinds, by_kind, strict=True) if row[0]
    }
    figures = {kind: benchmark.figures(own) for kind, own in drawn.items()}
    return benchmark.overall(figures, dict(zip(columns, by_kind.sum(0).tolist(), strict=True)))


def _percentiles(values: Sequence[float]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return low, high
