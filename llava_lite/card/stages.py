"""What a model's training wrote down of itself, stage by stage: settings, data, log, machines, and where each started.

finetune/train.yaml   model.checkpoint: runs/align          a folder with a train.yaml: the stage before
align/train.yaml      model.language_model: lmsys/vicuna    no folder: of the hub, or not at hand
"""

from __future__ import annotations

import json
import os.path
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from llava_lite.checkpoint.parts import read_json
from llava_lite.data.dataset import LEFT_OUT, LINEAGE
from llava_lite.training.compare import Run, read_run
from llava_lite.training.progress import STARTS

_PARTS = ("checkpoint", "vision_tower", "language_model", "clip")
LAST_STEPS = 50
"""A loss is told as the mean of at most so many logged steps, and of no more than the last tenth."""


class CardError(ValueError):
    """A card that cannot be written, or not without losing or claiming something."""


@dataclass(frozen=True)
class Start:
    """A part that a stage started from.

    part:   what the stage calls it; `checkpoint` is a whole model or an aligned projector
    name:   a hub id or a path, as the stage was told
    folder: where it is, seen from the stage's folder; None where it is not here
    hub:    whether it is known to have come from the hub
    """

    part: str
    name: str
    folder: Path | None
    hub: bool

    @property
    def short(self) -> str:
        """Its hub id, or its folder's name alone."""
        return self.name if self.hub else Path(self.name).name


@dataclass(frozen=True)
class Totals:
    """What a stage did, added up from the rates in its log, which are rounded."""

    steps: int
    seconds: float
    samples: float
    tokens: dict[str, float]
    loss: float


@dataclass(frozen=True)
class Stage:
    """One run.

    lineage:  of its data; None where the recipe writes none
    left_out: what of the data was not learnt from, (what, why)
    machines: one row for each time that it was started or gone on with
    held_out: the loss on held-out data when it was last measured
    """

    run: Run
    starts: tuple[Start, ...]
    lineage: dict[str, Any] | None
    left_out: tuple[tuple[str, str], ...]
    machines: tuple[dict[str, Any], ...]
    held_out: float | None

    @property
    def name(self) -> str:
        return self.run.folder.resolve().name

    @property
    def learns(self) -> list[str]:
        """The parts that had a learning rate."""
        return list(self.run.rows[max(self.run.rows)].get("lr", {}))

    @cached_property
    def totals(self) -> Totals:
        steps = sorted(self.run.rows)
        seconds, samples, tokens = 0.0, 0.0, Counter[str]()
        for before, step in zip([0, *steps], steps, strict=False):
            row = self.run.rows[step]  # its rates are of all steps since the row before
            spent = (step - before) * row["seconds"]
            seconds += spent
            samples += spent * row["samples_per_s"]
            tokens.update({sort: spent * rate for sort, rate in row["tokens_per_s"].items()})
        last = [self.run.rows[step]["loss"] for step in steps[-min(LAST_STEPS, -(-len(steps) // 10)) :]]
        return Totals(steps[-1], seconds, samples, dict(tokens), sum(last) / len(last))


def read_stages(folders: Iterable[Path]) -> list[Stage]:
    """Read the runs in these output_dirs, each after the runs that it started from, as far as these are here.

    Raises CardError or CompareError where one of `folders` holds no run.
    """
    stages: dict[Path, Stage] = {}
    for folder in folders:
        if not (folder / "train.yaml").is_file():
            raise CardError(f"{folder}: no train.yaml says how it was trained; name the run that did it: --run DIR")
        _walk(folder, stages, ())
    return list(stages.values())


def not_at_hand(stages: Sequence[Stage]) -> list[Start]:
    """Return the checkpoints that stages started from whose own training is not among them, nor on the hub."""
    known = {str(stage.run.settings["output_dir"]) for stage in stages}
    places = {stage.run.folder.resolve() for stage in stages}
    return [
        start
        for stage in stages
        for start in stage.starts
        if start.part == "checkpoint" and not start.hub and start.name not in known
        if start.folder is None or start.folder.resolve() not in places
    ]


def _walk(folder: Path, stages: dict[Path, Stage], above: tuple[Path, ...]) -> None:
    place = folder.resolve()
    if place in stages or place in above:
        return
    run = read_run(folder)
    starts = _starts(run)
    for start in starts:
        if start.folder and all((start.folder / name).is_file() for name in ("train.yaml", "log.jsonl")):
            _walk(start.folder, stages, (*above, place))
    stages[place] = Stage(
        run=run,
        starts=starts,
        lineage=read_json(folder / LINEAGE) if (folder / LINEAGE).is_file() else None,
        left_out=tuple(_left_out(folder)),
        machines=tuple(_rows(folder / STARTS)),
        held_out=next((row["figures"].get("held_out") for row in reversed(_rows(folder / "evaluations.jsonl"))), None),
    )


def _starts(run: Run) -> tuple[Start, ...]:
    named = ((part, run.settings.get(f"model.{part}")) for part in _PARTS)
    return tuple(_start(run, part, str(name)) for part, name in named if name)


def _start(run: Run, part: str, name: str) -> Start:
    """Look for a part where the run had it: from its output_dir, and from the working folder."""
    out = Path(run.settings["output_dir"])
    places = [Path(name)]
    if out.is_absolute() == Path(name).is_absolute():
        places.insert(0, Path(os.path.normpath(run.folder / os.path.relpath(name, out))))
    folder = next((place for place in places if place.is_dir()), None)
    return Start(part, name, folder, hub=folder is None and (_recorded(run.folder, name) or _cached(name)))


def _recorded(folder: Path, name: str) -> bool:
    """Whether a checkpoint's own record of its parts says that this one was no folder."""
    if not (folder / "config.json").is_file():
        return False
    about = read_json(folder / "config.json").get("llava_lite", {})
    parts = [about.get("checkpoint"), *about.get("parts", {}).values()]
    return any(
        part["path"] == name and not part["folder"] for part in parts if isinstance(part, dict) and "path" in part
    )


def _cached(name: str) -> bool:
    """Whether the hub client has had it: that `a/b` is an id and no folder that has gone, its form cannot tell."""
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no form of an id
        return False


def _left_out(folder: Path) -> list[tuple[str, str]]:
    """What planning left out, and what failed while training."""
    planned = [(row["what"], row["why"]) for row in _rows(folder / LEFT_OUT)]
    failed = {row["sample"]: row["why"] for row in _rows(folder / "failed.jsonl")}
    return planned + [("could not be read while training", why) for why in failed.values()]


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last may be cut off
