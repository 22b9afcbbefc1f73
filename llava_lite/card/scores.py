"""The card's sections on what a model was measured to do, how far to trust it, and what was not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    gains = any(result.gain for result in results)
    columns = ["benchmark", "figure", *modes, *(["visual gain"] if gains else []), "questions"]
    rows = [row for result in results for row in _figures(result, modes, gains)]
    blocks = ["## Scores", table(columns, rows), _legend(results, modes)]
    if kinds := [block for result in results for block in _kinds(result)]:
        blocks += ["<details><summary>By kind of question</summary>", *kinds, "</details>"]
    return [*blocks, "### How it was asked", _asked(results)]


def limits_section(results: Sequence[Result], gone: Sequence[str]) -> list[str]:
    """Say what is not known of the model; gone: what it started from whose training is not recorded."""
    lines = [f"**{escape(r.benchmark)} is {escape(r.partial)} questions**: no result." for r in results if r.partial]
    done = {result.benchmark.partition("-")[0] for result in results}  # a variant is called after its benchmark
    if others := [escape(name) for name in names("eval") if name not in done]:
        lines.append(f"Not evaluated with: {', '.join(others)}.")
    if guessed := [escape(r.benchmark) for r in results if not {"normal", "blind"} <= r.modes.keys()]:
        lines.append(f"How much of it may be guessed without the pictures was not measured: {', '.join(guessed)}.")
    lines += [f"How {escape(name)} was trained, which this training started from, is not recorded." for name in gone]
    lines.append("Safety, bias and privacy were not tested, nor any use that the scores above do not cover.")
    return ["## Limits", "\n".join(f"- {line}" for line in lines)]


def _figures(result: Result, modes: Sequence[Mode], gains: bool) -> Iterator[list[str]]:
    """Yield a row for each figure over all questions, those of strict scoring last."""
    scores = list(result.modes.values())
    counts = " / ".join(dict.fromkeys(f"{s.n:,}" if s.complete else f"{s.n:,} of {s.total:,}" for s in scores))
    for figure in dict.fromkeys(name for own in scores for name in own.figures):
        cells = [_cell(result.modes.get(mode), figure) for mode in modes]
        gain = result.gain if figure == result.gain.get("figure") else {}
        last = [f"{gain['overall']:+.3f}{_interval(gain.get('ci95'))}" if gain else ""] if gains else []
        yield [escape(result.benchmark), escape(figure), *cells, *last, counts]
    for figure in dict.fromkeys(name for own in scores for name in own.strict):
        found = [result.modes[mode].strict.get(figure) if mode in result.modes else None for mode in modes]
        cells = ["" if value is None else number(value) for value in found]
        yield [escape(result.benchmark), f"{escape(figure)}, strict", *cells, *([""] if gains else []), counts]


def _cell(scores: ModeScores | None, figure: str) -> str:
    if scores is None or figure not in scores.figures:
        return ""
    shown = number(scores.figures[figure]) + _interval(scores.intervals.get(figure))
    return shown if scores.complete else f"{shown} PARTIAL"


def _interval(ends: Sequence[float] | None) -> str:
    return f" ({number(ends[0])} to {number(ends[1])})" if ends else ""


def _legend(results: Sequence[Result], modes: Sequence[Mode]) -> str:
    told = [f"{mode}: asked {_MEANING[mode]}" for mode in modes]
    if any(result.gain for result in results):
        told.append("visual gain: normal minus blind, over the questions that both answered")
    if any(scores.intervals for result in results for scores in result.modes.values()):
        told.append("in brackets: the interval of 95 %")
    told.append("scored as the benchmark's official script does")
    if any(scores.strict for result in results for scores in result.modes.values()):
        told.append("strict: with what is known to be wrong in that corrected")
    return f"{'; '.join(told).capitalize()}."


def _kinds(result: Result) -> list[str]:
    """Draw a benchmark's headline figure by kind, in each mode, where there are several kinds."""
    kinds = list(dict.fromkeys(kind for scores in result.modes.values() for kind in scores.kinds))
    if len(kinds) < 2:
        return []
    rows = []
    for kind in kinds:
        known: list[Mapping[str, float]] = [scores.kinds.get(kind, {}) for scores in result.modes.values()]
        figures = [number(own[result.headline]) if result.headline in own else "" for own in known]
        counts = dict.fromkeys(f"{own['n']:,}" for own in known if "n" in own)
        rows.append([escape(kind), *figures, " / ".join(counts)])
    title = f"{escape(result.benchmark)}, {escape(result.headline)}:"
    return [title, table(["", *result.modes, "questions"], rows)]


def _asked(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        origin = result.origin
        hashes = [escape(origin[name][:12]) for name in ("prompts_sha256", "data_sha256")]
        decoding, versions = (
            escape(", ".join(f"{key} {value}" for key, value in origin[name].items()))
            for name in ("decoding", "versions")
        )
        unparsed = " / ".join(dict.fromkeys(f"{scores.unparsed:,}" for scores in result.modes.values()))
        rows.append([escape(result.benchmark), *hashes, decoding, unparsed, versions])
    columns = ["benchmark", "SHA-256 of prompts", "of data", "decoding", "answers not understood", "versions"]
    return table(columns, rows)
