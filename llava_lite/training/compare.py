"""Where two runs part: settings, the first step whose loss differs, and whether it learnt from the same records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

AROUND = 3
# where a run's files go and how it was started say nothing of what it learns
_PLACES = frozenset({"output_dir", "overwrite", "resume", "log"})


class CompareError(ValueError):
    """Folders whose runs cannot be compared."""


@dataclass(frozen=True)
class Run:
    """What a run told of itself. rows: of log.jsonl, by step; settings: of train.yaml, by dotted key."""

    folder: Path
    rows: dict[int, dict[str, Any]]
    settings: dict[str, Any]


def read_run(folder: Path) -> Run:
    """Read log.jsonl and train.yaml of an output_dir. Raises CompareError naming what is not there."""
    log, config = folder / "log.jsonl", folder / "train.yaml"
    for path in (log, config):
        if not path.is_file():
            raise CompareError(f"{folder}: no {path.name} here; give the output_dir of a run that has begun")
    rows = {}
    for number, line in enumerate(log.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[int(row["step"])] = {**row, "loss": float(row["loss"])}
        except (ValueError, KeyError, TypeError):
            if line.startswith("{") and line.endswith("}"):
                raise CompareError(f"{log}, line {number}: not a step of ours; was the file changed?") from None
            continue  # cut off while it was written
    if not rows:
        raise CompareError(f"{log}: holds no step yet; wait for the first")
    return Run(folder, rows, dict(_dotted(yaml.safe_load(config.read_text(encoding="utf-8")) or {})))


def compare_runs(one: Run, other: Run, *, tolerance: float = 0.0, console: Console) -> bool:
    """Print where two runs differ; return whether they do not.

    tolerance: the largest difference of losses that counts as none; 0: every bit counts. Raises CompareError if they
    logged no step in common.
    """
    steps = sorted(one.rows.keys() & other.rows.keys())
    if not steps:
        raise CompareError(f"{one.folder} and {other.folder} logged no step in common; see log.every_steps")
    for name, run in (("A", one), ("B", other)):
        console.print(f"{name}  {escape(str(run.folder))}: logged {len(run.rows)} steps, the last is {max(run.rows)}")
    _print_settings(one.settings, other.settings, console)
    differs = [step for step in steps if not _gap(one, other, step) <= tolerance]
    if differs:
        _print_parting(one, other, steps, differs[0], console)
        return False
    within = "equal" if tolerance == 0 else f"within {tolerance:g}"
    count = f"all {len(steps)} steps that both logged" if len(steps) > 1 else "the one step that both logged"
    console.print(f"losses: {within} in {count}")
    if other_batch := next((step for step in steps if _same_batch(one, other, step) is False), None):
        console.print(f"but step {other_batch} learnt from other records")
        return False
    if max(one.rows) != max(other.rows):
        console.print(f"but {'A' if max(one.rows) > max(other.rows) else 'B'} goes further")
        return False
    return True


def _print_settings(one: Mapping[str, Any], other: Mapping[str, Any], console: Console) -> None:
    keys = [key for key in sorted(one.keys() | other.keys()) if key.partition(".")[0] not in _PLACES]
    changed = [key for key in keys if key not in one or key not in other or one[key] != other[key]]
    if not changed:
        return console.print("settings: equal")
    table = Table(title="settings that differ", title_justify="left", title_style="", box=None, pad_edge=False)
    for name in ("key", "A", "B"):
        table.add_column(name, overflow="fold")
    for key in changed:
        table.add_row(key, *(escape(json.dumps(run[key])) if key in run else "(none)" for run in (one, other)))
    console.print(table)


def _print_parting(one: Run, other: Run, steps: list[int], first: int, console: Console) -> None:
    console.print(f"first difference: step {first}, whose losses are {_gap(one, other, first):.2g} apart")
    same = _same_batch(one, other, first)
    if same is None:
        console.print("whether it learnt from the same records is not known: a log has no `batch`")
    elif same:
        console.print("it learnt from the same records: look at settings, weights, packages and devices")
    else:
        earliest = next(step for step in steps if _same_batch(one, other, step) is False)
        since = "" if earliest == first else f", as those since step {earliest} did"
        console.print(f"it learnt from other records{since}: look at data, seed and batch")
    table = Table(box=None, pad_edge=False)
    for name in ("step", "loss of A", "loss of B", "apart", "records"):
        table.add_column(name, justify="left" if name == "records" else "right")
    place = steps.index(first)
    for step in steps[max(0, place - AROUND) : place + AROUND]:
        a, b = one.rows[step]["loss"], other.rows[step]["loss"]
        records = {True: "same", False: "other", None: "?"}[_same_batch(one, other, step)]
        table.add_row(str(step), f"{a:.10g}", f"{b:.10g}", f"{abs(a - b):.2g}" if a != b else "", records)
    console.print(table)


def _gap(one: Run, other: Run, step: int) -> float:
    return abs(one.rows[step]["loss"] - other.rows[step]["loss"])


def _same_batch(one: Run, other: Run, step: int) -> bool | None:
    """Whether a step learnt from the same records; None where a log does not say it."""
    batches = [run.rows[step].get("batch") for run in (one, other)]
    return None if None in batches else batches[0] == batches[1]


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
