"""Two results side by side: how they differ on the questions that both answered, and whether that could be chance.

Results hold the mark of every answer (`marks.jsonl`), so that no model, no data and no scorer is needed to compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import exp, fsum, lgamma, log
from pathlib import Path
from typing import Any

from llava_lite.evaluation.benchmark import Benchmark, Figures, Mark, add_up
from llava_lite.evaluation.files import EvaluationError, Fields, read_json, read_rows
from llava_lite.evaluation.intervals import Interval, Marked, difference_intervals
from llava_lite.evaluation.page import Table, number

MARK_FIELDS: Fields = {"question_id": (int, str), "kind": str, "cluster": str, "credit": (int, float), "counts": dict}


@dataclass(frozen=True)
class Result:
    """What an evaluation left in its folder: scores.json, and the marks of mode normal."""

    folder: Path
    scores: dict[str, Any]
    marks: list[Marked]


@dataclass(frozen=True)
class Comparison:
    """Second minus first, figure by figure, over the `n` questions that both answered.

    only_first, only_second: how many questions only that one got wholly right
    p_value: McNemar's exact test of these two counts; None where answers can be partly right
    judges:  where different judges reviewed the answers, which: what differs may be them
    """

    benchmark: str
    first: Figures
    second: Figures
    intervals: dict[str, Interval]
    only_first: int
    only_second: int
    p_value: float | None
    n: int
    partial: str
    judges: str

    def table(self) -> Table:
        names = [name for name, value in self.second.items() if isinstance(value, float)]
        rows = []
        for name in names:
            interval = " to ".join(f"{bound:+.3f}" for bound in self.intervals.get(name, ()))
            change = f"{self.second[name] - self.first[name]:+.3f}"
            rows.append([name, number(self.first[name]), number(self.second[name]), change, interval])
        p_value = "" if self.p_value is None else f"p = {self.p_value:.2g} (McNemar)"
        rows.append(["right alone", str(self.only_first), str(self.only_second), p_value, ""])
        title = " · ".join(part for part in (self.benchmark, f"{self.n} questions", self.partial, self.judges) if part)
        return Table(title, ["", "A", "B", "B - A", "95%"], rows)


def compare(first: Path, second: Path, find: Callable[[str], Benchmark]) -> list[Comparison]:
    """Compare the results in two folders, or in the folders of the same names in them.

    find: makes a benchmark of its name
    Raises EvaluationError where there are no results, or of other data.
    """
    pairs = _pairs(first, second)
    return [_compare(read_result(a), read_result(b), find) for a, b in pairs]


def read_result(folder: Path) -> Result:
    """Read what an evaluation left in its folder. Raises EvaluationError for anything else."""
    for name in ("scores.json", "marks.jsonl"):
        if not (folder / name).is_file():
            raise EvaluationError(f"{folder}: no {name}; evaluate into this folder first: `llava-lite eval ... --out`")
    marks = [
        Marked(row["question_id"], row["kind"], row["cluster"], Mark(row["credit"], row.get("parsed"), row["counts"]))
        for row in read_rows(folder / "marks.jsonl", MARK_FIELDS)
    ]
    return Result(folder, read_json(folder / "scores.json"), marks)


def marks_as_lines(answers: Sequence[Marked]) -> str:
    """Write marks as `read_result` reads them: JSON Lines."""
    rows = []
    for answer in answers:
        own = {"question_id": answer.question_id, "kind": answer.kind, "cluster": answer.cluster}
        rows.append(json.dumps({**own, **asdict(answer.mark)}, ensure_ascii=False) + "\n")
    return "".join(rows)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return how likely at least such an imbalance is by chance: two-sided and exact (McNemar, 1947)."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = fsum(exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def _pairs(first: Path, second: Path) -> list[tuple[Path, Path]]:
    if (first / "scores.json").is_file() or (second / "scores.json").is_file():
        return [(first, second)]
    names = sorted(path.parent.name for path in first.glob("*/scores.json") if (second / path.parent.name).is_dir())
    if not names:
        raise EvaluationError(f"{first} and {second} hold no results of the same benchmark; give what `--out` was")
    return [(first / name, second / name) for name in names]


def _compare(first: Result, second: Result, find: Callable[[str], Benchmark]) -> Comparison:
    for what in ("benchmark", "data_sha256"):
        if first.scores[what] != second.scores[what]:
            name = what.removesuffix("_sha256")
            raise EvaluationError(f"{first.folder} and {second.folder} are results on another {name}: not comparable")
    benchmark = find(first.scores["benchmark"])
    theirs = {answer.question_id: answer for answer in second.marks}
    ours = [answer for answer in first.marks if answer.question_id in theirs]
    if not ours:
        raise EvaluationError(f"{first.folder} and {second.folder} have no answered question in common")
    others = [theirs[answer.question_id] for answer in ours]
    pairs = [(a.mark.credit, b.mark.credit) for a, b in zip(ours, others, strict=True)]
    only_first, only_second = (sum(x == 1 > y for x, y in way) for way in (pairs, [(b, a) for a, b in pairs]))
    whole = all(credit in (0, 1) for pair in pairs for credit in pair)
    return Comparison(
        benchmark=benchmark.name,
        first=figures_of(benchmark, ours),
        second=figures_of(benchmark, others),
        intervals=difference_intervals(benchmark, ours, others),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second) if whole else None,
        n=len(ours),
        partial="" if first.scores["complete"] and second.scores["complete"] else "PARTIAL",
        judges="" if _judges(first) == _judges(second) else f"JUDGED BY {_judges(first)} AND BY {_judges(second)}",
    )


def figures_of(benchmark: Benchmark, answers: Sequence[Marked]) -> Figures:
    """Make the figures over all of these answers."""
    kinds = benchmark.named((answer.kind, answer.mark) for answer in answers)
    return benchmark.overall(kinds, add_up(answer.mark for answer in answers))


def _judges(result: Result) -> str:
    normal = result.scores["modes"].get("normal", {})
    return ", ".join(normal.get("judge", {}).get("names", []))
