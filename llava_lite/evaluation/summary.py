"""What the modes of one run say together: the content of scores.json, and the table people look at."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from llava_lite.evaluation.answers import answers_path, read_answers
from llava_lite.evaluation.benchmark import Answer, Benchmark, Figures, Question, Scores
from llava_lite.evaluation.intervals import Interval, Marked, difference_intervals, intervals, marked
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.origin import Origin
from llava_lite.evaluation.page import Table, number
from llava_lite.evaluation.reviews import Verdicts, read_verdicts

PACKAGES = ("llava-lite", "transformers", "tokenizers", "torch", "pillow")


@dataclass(frozen=True)
class Gain:
    """Normal minus blind in the headline figure, over the questions that both answered; ci95: of `overall`."""

    figure: str
    overall: float
    kinds: dict[str, float]
    n: int
    ci95: Interval | None


@dataclass(frozen=True)
class Summary:
    """Scores of every mode answered so far, in the order of MODES; `gain` needs both normal and blind.

    marks:     of each mode's answers
    strict:    scored as it should be, where that was asked for; `faults` says what differs
    intervals: of 95%, of each mode's figures over all questions
    verdicts:  what a judge said of each mode's answers, where its words are what is marked
    """

    origin: Origin
    scores: dict[Mode, Scores]
    gain: Gain | None
    marks: dict[Mode, list[Marked]]
    intervals: dict[Mode, dict[str, Interval]]
    strict: dict[Mode, Scores]
    faults: str
    verdicts: dict[Mode, Verdicts]

    @property
    def complete(self) -> bool:
        return all(scores.complete for scores in self.scores.values())

    @property
    def partial(self) -> str:
        """Say what is unanswered; empty where nothing is."""
        missing = [f"{mode} {s.n} of {s.total} questions" for mode, s in self.scores.items() if not s.complete]
        return f"PARTIAL: {', '.join(missing)}" if missing else ""

    @property
    def unjudged(self) -> str:
        """Say which answers wait for a judge; empty where none do."""
        waiting = [mode for mode, own in self.verdicts.items() if not own.judged]
        return f"NOT JUDGED: {', '.join(waiting)}" if waiting else ""

    @property
    def notes(self) -> list[str]:
        """What is to be said of the figures below them."""
        return [f"{mode}: {note}" for mode, own in self.verdicts.items() if (note := own.note(mode))]

    @property
    def whole(self) -> str:
        """What to call the figures over everything that is answered."""
        return "all" if self.complete else "PARTIAL"

    @property
    def title(self) -> str:
        parts = (self.origin.benchmark, self.origin.model, self.partial, self.unjudged)
        return " · ".join(part for part in parts if part)

    def as_dict(self) -> dict[str, Any]:
        """The content of scores.json."""
        origin = asdict(self.origin)
        del origin["mode"]
        modes = {}
        for mode, scores in self.scores.items():
            modes[mode] = {
                "complete": scores.complete,
                "n": scores.n,
                "total": scores.total,
                "figures": dict(scores.figures),
                "ci95": {figure: list(interval) for figure, interval in self.intervals[mode].items()},
                "unparsed": scores.unparsed,
                "kinds": {kind: dict(figures) for kind, figures in scores.kinds.items()},
                "groups": {group: dict(figures) for group, figures in scores.groups.items()},
            }
            if mode in self.strict:
                modes[mode]["strict"] = dict(self.strict[mode].figures)
            if mode in self.verdicts:
                modes[mode]["judge"] = self.verdicts[mode].as_dict()
        gain = asdict(self.gain) if self.gain else None
        return {**origin, "complete": self.complete, "modes": modes, "visual_gain": gain, "versions": _versions()}

    def table(self) -> Table:
        """One mode: all its figures. Several: the headline figure of each, and the visual gain."""
        if len(self.scores) == 1:
            return self._figures_of(next(iter(self.scores)))
        columns = ["", "n", *self.scores, *(["visual gain"] if self.gain else [])]
        kinds = dict.fromkeys(kind for scores in self.scores.values() for kind in scores.kinds)
        rows = [self._row(kind) for kind in kinds]
        return Table(f"{self.title} · {self.figure}", columns, [*rows, self._row(None)])

    def groups(self, mode: Mode) -> Table | None:
        """The further cuts of one mode; None where there are none."""
        scores = self.scores[mode]
        names = _ratios(scores.figures)
        rows = [[group, *_cells(figures, names)] for group, figures in scores.groups.items()]
        return Table("Groups", ["", "n", *names], rows, sums_up=False) if rows else None

    @property
    def figure(self) -> str:
        """The name of the headline figure; "" where nothing could be scored."""
        return next((name for scores in self.scores.values() for name in scores.figures), "")

    def _figures_of(self, mode: Mode) -> Table:
        scores = self.scores[mode]
        names = _ratios(scores.figures)
        rows = [[kind, *_cells(figures, names)] for kind, figures in scores.kinds.items()]
        if mode in self.strict:
            strict = self.strict[mode]
            rows.append([f"{self.whole}, strict", str(strict.n), *_cells(strict.figures, names)[1:]])
        cells = _cells(scores.figures, names)[1:]
        cells[:1] = [_with_interval(cell, self.intervals[mode].get(self.figure)) for cell in cells[:1]]
        return Table(self.title, ["", "n", *names], [*rows, [self.whole, str(scores.n), *cells]])

    def _row(self, kind: str | None) -> list[str]:
        """The headline of one kind, or of all, in each mode."""
        cells, counts = [], []
        for mode, scores in self.scores.items():
            figures = scores.figures if kind is None else scores.kinds.get(kind, {})
            interval = self.intervals[mode].get(self.figure) if kind is None else None
            cells.append(_with_interval(number(headline(figures)), interval) if figures else "")
            counts.append(scores.n if kind is None else int(figures.get("n", 0)))
        if self.gain:
            gain = self.gain.overall if kind is None else self.gain.kinds.get(kind)
            interval = self.gain.ci95 if kind is None else None
            cells.append("" if gain is None else _with_interval(f"{gain:+.3f}", interval))
        label = self.whole if kind is None else kind
        return [label, "/".join(str(count) for count in dict.fromkeys(counts)), *cells]


def summarise(
    benchmark: Benchmark, questions: Sequence[Question], out: Path, origin: Origin, *, strict: bool = False
) -> Summary:
    """Score every file of answers in `out`, or what a judge said of them, strictly as well where asked for; and compare
    seeing with guessing. Raises EvaluationError for reviews of other answers.
    """
    answers = {mode: read_answers(path) for mode in MODES if (path := answers_path(out, mode)).exists()}
    answers = {mode: given for mode, given in answers.items() if given}
    judging = benchmark.judging()
    verdicts = {} if judging is None else read_verdicts(judging, questions, answers, out)
    texts = answers | {mode: own.texts for mode, own in verdicts.items()}
    texts = {mode: texts[mode] for mode in MODES if mode in texts}
    scores = {mode: benchmark.score(questions, said) for mode, said in texts.items()}
    for mode, own in verdicts.items():
        if not own.judged:
            scores[mode] = replace(scores[mode], n=len(answers[mode]))
    marks = {mode: marked(questions, own.marks) for mode, own in scores.items()}
    gain = None
    if "normal" in texts and "blind" in texts:
        gain = _gain(benchmark, questions, texts["normal"], texts["blind"])
    readable = texts | {mode: own.readable for mode, own in verdicts.items()}
    return Summary(
        origin=origin,
        scores=scores,
        gain=gain,
        marks=marks,
        intervals={mode: intervals(benchmark, own) for mode, own in marks.items()},
        strict={mode: benchmark.score(questions, readable[mode], strict=True) for mode in texts if strict},
        faults=benchmark.faults if strict else "",
        verdicts=verdicts,
    )


def headline(figures: Figures) -> float:
    """The figure that stands for all of them: the first."""
    return next(iter(figures.values()))


def _gain(
    benchmark: Benchmark, questions: Sequence[Question], normal: Sequence[Answer], blind: Sequence[Answer]
) -> Gain | None:
    both = {answer.question_id for answer in normal} & {answer.question_id for answer in blind}
    asked = [question for question in questions if question.id in both]
    seeing = benchmark.score(asked, [answer for answer in normal if answer.question_id in both])
    guessing = benchmark.score(asked, [answer for answer in blind if answer.question_id in both])
    if not seeing.figures:
        return None
    figure = next(iter(seeing.figures))
    both_marked = [marked(asked, scores.marks) for scores in (guessing, seeing)]
    return Gain(
        figure=figure,
        overall=headline(seeing.figures) - headline(guessing.figures),
        kinds={kind: headline(seeing.kinds[kind]) - headline(guessing.kinds[kind]) for kind in seeing.kinds},
        n=len(asked),
        ci95=difference_intervals(benchmark, *both_marked).get(figure),
    )


def _ratios(figures: Figures) -> list[str]:
    """The figures that are not counts."""
    return [name for name, value in figures.items() if isinstance(value, float)]


def _cells(figures: Figures, names: Sequence[str]) -> list[str]:
    shown = [number(figures[name]) if name in figures else "" for name in names]
    return [str(int(figures.get("n", 0))), *shown]


def _with_interval(cell: str, interval: Interval | None) -> str:
    return cell if interval is None else f"{cell} [{number(interval[0])}, {number(interval[1])}]"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
