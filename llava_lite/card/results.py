"""The scores.json files of evaluations that are of this very model, by the hash of its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_lite.card.stages import CardError
from llava_lite.checkpoint.parts import read_json
from llava_lite.evaluation.command import results_dir
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.origin import hash_model


@dataclass(frozen=True)
class ModeScores:
    """One mode's scores.

    figures:   over all questions, as the official scorer gives them; strict: the corrected ones, where these were made
    intervals: of 95 %, of those figures that have one
    kinds:     the figures of each kind of question, and of each other group
    unparsed:  of how many answers the scorer could make nothing
    """

    n: int
    total: int
    complete: bool
    figures: Mapping[str, float]
    strict: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]]
    kinds: Mapping[str, Mapping[str, float]]
    unparsed: int


@dataclass(frozen=True)
class Result:
    """What one scores.json says.

    modes:  those answered, in the order of MODES
    gain:   `figure`, `overall` and perhaps `ci95` of the visual gain; empty where it was not measured
    origin: everything else in the file
    """

    benchmark: str
    modes: Mapping[Mode, ModeScores]
    gain: Mapping[str, Any]
    origin: Mapping[str, Any]

    @property
    def headline(self) -> str:
        """The figure that stands for all: the first."""
        return next(name for scores in self.modes.values() for name in scores.figures)

    @property
    def partial(self) -> str:
        """Say what is unanswered; empty where nothing is."""
        missing = [f"{mode} {s.n:,} of {s.total:,}" for mode, s in self.modes.items() if not s.complete]
        return f"PARTIAL: {', '.join(missing)}" if missing else ""


def find_results(model: Path, folders: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """Read what `llava-lite eval` wrote of this model; return it, and what was left out and why.

    folders: with a scores.json, or with folders that have one; none: where they go by default for a model of this
    path, and there results of other weights are left out.
    Raises CardError for a named result of other weights, and for two results of one benchmark.
    """
    own = hash_model(str(model))
    found: dict[str, tuple[Path, Result]] = {}
    left_out = []
    for path in _files(folders) if folders else sorted(results_dir(str(model)).glob("*/scores.json")):
        content = read_json(path)
        if content.get("model_sha256") != own:
            problem = f"{path}: of other weights than {model}'s ({content.get('model')}); evaluate this folder"
            if folders:
                raise CardError(problem)
            left_out.append(problem)
            continue
        result = _read(path, content)
        if not any(scores.figures for scores in result.modes.values()):
            left_out.append(f"{path}: holds no figure yet")
            continue
        if result.benchmark in found:
            other = found[result.benchmark][0]
            raise CardError(f"{path} and {other} are both results of {result.benchmark}; name one of them: --scores")
        found[result.benchmark] = path, result
    return [result for _, result in found.values()], left_out


def _files(folders: Iterable[Path]) -> list[Path]:
    files = []
    for folder in folders:
        here = folder if folder.is_file() else folder / "scores.json"
        there = [here] if here.is_file() else sorted(folder.glob("*/scores.json"))
        if not there:
            raise CardError(f"{folder}: no scores.json in it or in its folders; give what llava-lite eval wrote")
        files += there
    return list(dict.fromkeys(files))


def _read(path: Path, content: dict[str, Any]) -> Result:
    try:
        given = content["modes"]
        modes = {mode: _read_mode(given[mode]) for mode in MODES if mode in given}
        for name in ("prompts_sha256", "data_sha256", "decoding", "versions"):
            content[name]
        gain = content["visual_gain"] or {}
        return Result(content["benchmark"], modes, gain, content)
    except (KeyError, TypeError, AttributeError):
        raise CardError(f"{path}: not as llava-lite eval writes it; evaluate again") from None


def _read_mode(scores: dict[str, Any]) -> ModeScores:
    return ModeScores(
        n=scores["n"],
        total=scores["total"],
        complete=scores["complete"],
        figures=_no_counts(scores["figures"]),
        strict=_no_counts(scores.get("strict", {})),
        intervals=scores.get("ci95", {}),
        kinds={**scores["kinds"], **scores.get("groups", {})},
        unparsed=len(scores.get("unparsed", ())),
    )


def _no_counts(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, float)}
