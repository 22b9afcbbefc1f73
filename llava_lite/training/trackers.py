"""The same figures elsewhere: TensorBoard, trackio, Weights & Biases. Their packages are imported when asked for.

TensorBoard and trackio keep everything on this machine; W&B does with WANDB_MODE=offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

Name = Literal["tensorboard", "trackio", "wandb"]
PROJECT = "llava-lite"
IDS = "trackers.json"


class Tracker(Protocol):
    """Takes the figures of a step, by flat names."""

    def log(self, figures: dict[str, float], step: int) -> None: ...
    def finish(self) -> None: ...


def find_missing(names: Sequence[Name]) -> list[Name]:
    """Return those of the trackers whose package is not installed."""
    return [name for name in names if find_spec(name) is None]


def open_trackers(names: Sequence[Name], folder: Path, config: Mapping[str, Any], *, start: int) -> list[Tracker]:
    """Open the trackers of a run whose output_dir is `folder`; with start > 0 they continue what they have of it.

    config: what the run was told. W&B and trackio know the run again by an id in `folder`/trackers.json.
    """
    if not names:
        return []
    known = folder / IDS
    if start == 0 or not known.is_file():
        known.write_text(json.dumps({"run": f"{folder.absolute().name}-{uuid4().hex[:8]}"}), encoding="utf-8")
    run = json.loads(known.read_text(encoding="utf-8"))["run"]
    return [_OPEN[name](run, folder, config, start) for name in names]


def flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Name the numbers of a row: {"lr": {"projector": 1}} gives lr/projector."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


class _TensorBoard:
    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # what a former process wrote of the steps that are done again is hidden
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


def _open_tensorboard(run: str, folder: Path, config: Mapping[str, Any], start: int) -> Tracker:
    return _TensorBoard(folder, start)


def _open_trackio(run: str, folder: Path, config: Mapping[str, Any], start: int) -> Tracker:
    import trackio

    return trackio.init(project=PROJECT, name=run, config=dict(config), resume="allow")


def _open_wandb(run: str, folder: Path, config: Mapping[str, Any], start: int) -> Tracker:
    import wandb

    return wandb.init(project=PROJECT, id=run, name=run, config=dict(config), dir=str(folder), resume="allow")


_OPEN = {"tensorboard": _open_tensorboard, "trackio": _open_trackio, "wandb": _open_wandb}
