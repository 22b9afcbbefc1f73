"""What a run says of itself: who trains at which rate, a progress line, and one JSON object a step in `log.jsonl`.

`starts.jsonl` has one for each time that it was started or gone on with: from which step, on what, with what.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from llava_lite import __version__, distributed
from llava_lite.training.config import RunConfig
from llava_lite.training.engine import StepResult
from llava_lite.training.throughput import Costly, Meter, Work, device_name
from llava_lite.training.trackers import Tracker, flat, open_trackers

STARTS = "starts.jsonl"
_AROUND = 37  # the columns beside the description: step 12345/12345, a bar of 8, left 0:00:00


def print_parts(rows: Sequence[Mapping[str, object]]) -> None:
    """Show what each part is to the run (see `Engine.describe`)."""
    table = Table(title="what trains", title_justify="left")
    for name in ("part", "parameters", "trains", "dtype", "learning rate"):
        table.add_column(name, justify="left" if name in ("part", "dtype") else "right")
    for row in rows:
        rate = f"{row['lr']:g}" if row["trains"] else "frozen"
        table.add_row(str(row["part"]), f"{row['parameters']:,}", f"{row['trains']:,}", str(row["dtype"]), rate)
    _console().print(table)


class RunLog:
    """The progress line, the log file and the trackers. Steps before `start` stay in the log.

    Of the main process alone; the others only help to count.
    """

    def __init__(self, config: RunConfig, module: Costly, *, start: int, num_steps: int) -> None:
        self.path = config.output_dir / "log.jsonl"
        self.every_steps = config.log.every_steps
        self.num_steps = num_steps
        self.meter = Meter(module)
        self.console = _console()
        self.rates: list[str] = []
        self.progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=8),
            TextColumn("{task.description}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=num_steps, completed=start)
        self.trackers: list[Tracker] = []
        devices = Counter(distributed.gather(device_name(self.meter.device)))
        if distributed.is_main():
            _cut(self.path, start)
            _note_start(config.output_dir / STARTS, start, devices)
            told = config.model_dump(mode="json")
            self.trackers = open_trackers(config.log.to, config.output_dir, told, start=start)

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
        for tracker in self.trackers:
            tracker.finish()

    def step(self, number: int, result: StepResult, work: Work, *, seconds: float, waited: float) -> None:
        """Record step `number` (counted from 1). work: of this rank; seconds: of the step, with `waited` for data."""
        self.meter.add(work, seconds=seconds, waited=waited)
        due = number % self.every_steps == 0 or number == self.num_steps
        if due:
            row = {"step": number, "loss": result.loss, "grad_norm": result.grad_norm, "lr": result.learning_rates}
            row |= self.meter.read()
            self.rates = describe_rates(row)
            self._write(row)
        words = [f"loss {result.loss:.4f}", *self.rates]
        self.progress.update(self.task, completed=number, description=fit_in(self.console.width - _AROUND, words))
        if due and not self.console.is_terminal and (number % 50 == 0 or number == self.num_steps):
            self.console.print("  ".join([f"step {number}/{self.num_steps}", *words]), soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to another progress line."""
        self.progress.stop()
        try:
            yield
        finally:
            self.progress.start()

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Show what an evaluation found (see `Validation.run`)."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row["figures"].items())
        self.console.print(f"step {row['step']}: {figures}{'  (best)' if row['best'] else ''}", soft_wrap=True)
        for tracker in self.trackers:
            tracker.log({f"evaluation/{name}": value for name, value in row["figures"].items()}, row["step"])

    def _write(self, row: Mapping[str, Any]) -> None:
        if not distributed.is_main():
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for tracker in self.trackers:
            tracker.log({name: value for name, value in flat(row) if name != "step"}, row["step"])


def describe_rates(row: Mapping[str, Any]) -> list[str]:
    """Say a row's rates, the most telling first."""
    tokens = row["tokens_per_s"]
    rate = tokens.get("text", 0) + tokens.get("image", 0)
    words = [f"{rate:,.0f} tokens/s", f"data wait {row['data_wait'] / row['seconds']:.0%}"]
    words += [f"MFU {row['mfu']:.0%}"] if "mfu" in row else [f"{row['tflops']:.3g} TFLOP/s"]
    words.append(f"{row['samples_per_s']:,.1f} samples/s")
    return words + [f"{row[name]:.1f} GiB" for name in ("gpu_peak_gib", "process_peak_gib") if name in row]


def fit_in(width: int, words: Sequence[str]) -> str:
    """Join the first of the words, as many as one line takes."""
    line = words[0]
    for word in words[1:]:
        if len(line) + 2 + len(word) > width:
            break
        line += f"  {word}"
    return line


def _note_start(path: Path, step: int, devices: Mapping[str, int]) -> None:
    """Write down that the steps after `step` are done now; devices: how many processes compute on each kind."""
    _cut(path, step - 1)
    row = {"step": step, "devices": devices, "dtype": str(distributed.dtype()).removeprefix("torch.")}
    row |= {"llava_lite": __version__, "torch": torch.__version__}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _cut(path: Path, start: int) -> None:
    """Keep a log's rows up to `start`: the steps after it are about to be done again."""
    rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [row for row in rows if row.endswith("}") and json.loads(row)["step"] <= start]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _console() -> Console:
    return Console(stderr=True, quiet=not distributed.is_main())
