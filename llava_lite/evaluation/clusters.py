"""Questions that earn something together, or nothing: the two about an image of MME, the rolls of MMBench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llava_lite.evaluation.benchmark import Question, QuestionId


def count_clusters(
    questions: Sequence[Question], right: Mapping[QuestionId, bool], size: Callable[[Question], int]
) -> dict[QuestionId, tuple[float, float]]:
    """Count each cluster of questions, and whether it is right, with the first of them: (1, 1 or 0); (0, 0) the others.

    A cluster is right where all its questions are and none is missing: a part of it is counted, and never right.
    size: of a question, how many its cluster has.
    """
    clusters: dict[str, list[QuestionId]] = {}
    for question in questions:
        clusters.setdefault(question.cluster, []).append(question.id)
    counted = {}
    for question in questions:
        ids = clusters[question.cluster]
        whole = len(ids) == size(question) and all(right[id] for id in ids)
        counted[question.id] = (1.0, float(whole)) if question.id == ids[0] else (0.0, 0.0)
    return counted
