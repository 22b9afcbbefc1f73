"""The card's sections on what a model was measured to do, how far to trust it, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llava_lite.card.markdown import escape, table
from llava_lite.card.results import ModeScores, Result
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.page import number
from llava_lite.recipes import names

_MEANING: dict[Mode, str] = {
    "normal": "with its pictures",
    "blind": "without them: what is right then was guessed",
    "shuffled": "with those of other questions",
}


def scores_section(results: Sequence[Result]) -> list[str]:
    """Write the blocks of the section, in order."""
    if not results:
        return ["## Scores", "None: this model was not evaluated."]
    modes = [mode for mode in MODES if any(mode in result.modes for result in results)]
    told = [f"{mode}: asked {_MEANING[mode]}" for mode in modes]
    if any(result.gain for result in results):
        told.append("visual gain: normal minus blind, over the questions that both answered")
    if any(scores.intervals for result in results for scores in result.modes.values()):
        told.append("in brackets: the interval of 95 %")
    blocks = ["## Scores", _figures(results, modes), f"{'; '.join(told).capitalize()}."]
    if kinds := [block for result in results if len(result.first.kinds) > 1 for block in _kinds(result)]:
        blocks += ["<details><summary>By kind of question</summary>", *kinds, "</details>"]
    return [*blocks, "### How it was asked", _asked(results)]


def limits_section(results: Sequence[Result], gone: Sequence[str]) -> list[str]:
    """Say what is not known of the model; gone: what it started from whose training is not recorded."""
    done = {result.benchmark for result in results}
    lines = [
        f"**{escape(result.benchmark)} is {escape(result.partial)}**: no result."
        for result in results
        if result.partial
    ]
    if others := [escape(name) for name in names("eval") if name not in done]:
        lines.append(f"Not evaluated with: {', '.join(others)}.")
    if guessed := [escape(result.benchmark) for result in results if not {"normal", "blind"} <= result.modes.keys()]:
        lines.append(f"How much of it may be guessed without the pictures was not measured: {', '.join(guessed)}.")
    lines += [f"How {name} was trained, from which this training started, is not recorded." for name in gone]
    lines.append("Safety, bias and privacy were not tested, nor any use that the scores above do not cover.")
    return ["## Limits", "\n".join(f"- {line}" for line in lines)]


def _figures(results: Sequence[Result], modes: Sequence[Mode]) -> str:
    gains = any(result.gain for result in results)
    rows = []
    for result in results:
        for figure in dict.fromkeys(name for scores in result.modes.values() for name in scores.figures):
            cells = [_cell(result.modes.get(mode), figure) for mode in modes]
            gain = result.gain if figure == result.gain.get("figure") else {}
            last = [_with_interval(f"{gain['overall']:+.3f}", gain.get("ci95")) if gain else ""] if gains else []
            rows.append([escape(result.benchmark), escape(figure), *cells, *last, _count(result)])
    return table(["benchmark", "figure", *modes, *(["visual gain"] if gains else []), "questions"], rows)


def _cell(scores: ModeScores | None, figure: str) -> str:
    if scores is None or figure not in scores.figures:
        return ""
    shown = _with_interval(number(scores.figures[figure]), scores.intervals.get(figure))
    return shown if scores.complete else f"{shown} PARTIAL"


def _with_interval(value: str, interval: Sequence[float] | None) -> str:
    return f"{value} ({number(interval[0])} to {number(interval[1])})" if interval else value


def _count(result: Result) -> str:
    counts = {f"{s.n:,}" if s.complete else f"{s.n:,} of {s.total:,}" for s in result.modes.values()}
    return " / ".join(sorted(counts))


def _kinds(result: Result) -> list[str]:
    """Draw a benchmark's headline figure by kind, in each mode."""
    kinds = dict.fromkeys(kind for scores in result.modes.values() for kind in scores.kinds)
    rows = []
    for kind in kinds:
        known: list[Mapping[str, float]] = [scores.kinds.get(kind, {}) for scores in result.modes.values()]
        figures = [
            next(((name, value) for name, value in of.items() if isinstance(value, float)), None) for of in known
        ]
        counts = dict.fromkeys(str(of["n"]) for of in known if "n" in of)
        rows.append([escape(kind), *(number(figure[1]) if figure else "" for figure in figures), "/".join(counts)])
    title = f"{escape(result.benchmark)}, {escape(result.headline)}:"
    return [title, table(["", *result.modes, "questions"], rows)]


def _asked(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        origin = result.origin
        decoding = ", ".join(f"{name} {value}" for name, value in origin["decoding"].items())
        versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
        hashes = (escape(origin[name][:12]) for name in ("prompts_sha256", "data_sha256"))
        rows.append([escape(result.benchmark), escape(result.scoring), *hashes, escape(decoding), escape(versions)])
    return table(["benchmark", "scoring", "prompts", "data", "decoding", "versions"], rows)
