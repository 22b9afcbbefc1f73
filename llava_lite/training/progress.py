"""What a run says of itself: who trains at which rate, a progress line, and one JSON object a step in `log.jsonl`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from llava_lite import distributed
from llava_lite.training.engine import StepResult


def print_parts(rows: Sequence[Mapping[str, object]]) -> None:
    """Show what each part is to the run (see `PlainEngine.describe`)."""
    table = Table(title="what trains", title_justify="left")
    for name in ("part", "parameters", "trains", "dtype", "learning rate"):
        table.add_column(name, justify="left" if name in ("part", "dtype") else "right")
    for row in rows:
        rate = f"{row['lr']:g}" if row["trains"] else "frozen"
        table.add_row(str(row["part"]), f"{row['parameters']:,}", f"{row['trains']:,}", str(row["dtype"]), rate)
    _console().print(table)


class RunLog:
    """The progress line and the log file; of the main process alone. Steps before `start` stay in the log."""

    def __init__(self, path: Path, *, start: int, num_steps: int, every_steps: int) -> None:
        self.path = path
        self.every_steps = every_steps
        self.num_steps = num_steps
        self.console = _console()
        self.progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=num_steps, completed=start)
        if distributed.is_main():
            _cut(path, start)

    def __enter__(self) -> RunLog:
        self.progress.start()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def step(
        self,
        number: int,
        result: StepResult,
        *,
        seconds: float,
        waited: float,
        num_samples: int,
        tokens: Mapping[str, int],
    ) -> None:
        """Record step `number` (counted from 1). tokens: of this rank; seconds: of the step, with `waited` for data.

        Rates count every rank alike.
        """
        ranks = distributed.world_size()
        row = {
            "step": number,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "lr": result.learning_rates,
            "seconds": round(seconds, 4),
            "data_wait": round(waited, 4),
            "samples_per_s": round(num_samples * ranks / seconds, 2),
            "tokens_per_s": {sort: round(count * ranks / seconds, 1) for sort, count in tokens.items()},
        }
        rate = (tokens.get("text", 0) + tokens.get("image", 0)) * ranks / seconds
        line = f"loss {result.loss:.4f}  {rate:,.0f} tokens/s  data wait {waited / seconds:.0%}"
        self.progress.update(self.task, completed=number, description=line)
        if not distributed.is_main() or (number % self.every_steps and number != self.num_steps):
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if not self.console.is_terminal and (number % 50 == 0 or number == self.num_steps):
            self.console.print(f"step {number}/{self.num_steps}  {line}")


def _cut(path: Path, start: int) -> None:
    """Keep the log's rows up to `start`: the steps after it are about to be done again."""
    rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [row for row in rows if row.endswith("}") and json.loads(row)["step"] <= start]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _console() -> Console:
    return Console(stderr=True, quiet=not distributed.is_main())
