"""Looking at the model while it learns: figures every so many steps, which step was the best, and when to stop.

    output_dir/evaluations.jsonl   one JSON object an evaluation: its step, its figures, and whether it was the best

What is measured, the recipe says. The best step's checkpoint is kept beside the newest, and resumes as any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from llava_lite import distributed
from llava_lite.config import Strict
from llava_lite.training.resume import RunError

HELD_OUT = "held_out"
"""The figure that is a loss: the less the better. Of all others more is better."""


class ValidationConfig(Strict):
    """When to look at the model, and what follows from it."""

    every_steps: int | None = Field(default=None, gt=0)
    """Evaluate before the first step, every so many steps, and at the end; null: never."""
    best_by: str = HELD_OUT
    """What the best checkpoint is the best by: held_out, the loss, or a benchmark's name, its first figure."""
    patience: int | None = Field(default=None, gt=0)
    """Stop after so many evaluations in a row that were not better than the best; null: never."""


class Validation:
    """evaluate: step -> figures by name, the same on all processes; rows: what was found so far."""

    def __init__(
        self, config: ValidationConfig, output_dir: Path, evaluate: Callable[[int], Mapping[str, float]]
    ) -> None:
        self.config = config
        self.path = output_dir / "evaluations.jsonl"
        self.evaluate = evaluate
        self.rows: list[dict[str, Any]] = []

    def begin(self, start: int | None) -> None:
        """Take up what was found up to the step that a run goes on from; what came after is done again.

        start: None for a run that begins. Raises RunError where it was not measured what is now the best.
        """
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() and start is not None else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        self.rows = [row for row in rows if row["step"] <= (start or 0)]
        if self.config.every_steps is not None:
            self._judge_anew()
        distributed.barrier()  # all have read it before one writes
        if distributed.is_main() and (self.rows or self.path.is_file()):
            draft = self.path.with_suffix(".draft")
            draft.write_text("".join(map(_line, self.rows)), encoding="utf-8")
            draft.replace(self.path)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to look now; a step that was looked at is not again."""
        every = self.config.every_steps
        return every is not None and (step % every == 0 or step == num_steps) and step not in self._steps

    def run(self, step: int) -> Mapping[str, Any]:
        """Evaluate, write the figures down and return them as a row. All processes call it together."""
        figures = dict(self.evaluate(step))
        best = self.best is None or self._worth(figures) > self._worth(self.best["figures"])
        row = {"step": step, "best": best, "figures": figures}
        self.rows.append(row)
        if distributed.is_main():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        return row

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The row of the best step so far."""
        return next((row for row in reversed(self.rows) if row["best"]), None)

    @property
    def has_settled(self) -> bool:
        """Whether `patience` is over."""
        since = self._steps[::-1].index(self.best["step"]) if self.best else 0
        return self.config.patience is not None and since >= self.config.patience

    @property
    def _steps(self) -> list[int]:
        return [row["step"] for row in self.rows]

    def _judge_anew(self) -> None:
        """Say which steps were the best by what is now the best."""
        best = -math.inf
        for number, row in enumerate(self.rows):
            worth = self._worth(row["figures"])
            row["best"] = number == 0 or worth > best
            best = max(best, worth)

    def _worth(self, figures: Mapping[str, float]) -> float:
        by = self.config.best_by
        found = [value for name, value in figures.items() if name == by or name.startswith(f"{by}.")]
        if not found:
            raise RunError(
                f"{self.path}: holds no figure of evaluate.best_by={by}, but of {', '.join(figures)}; "
                "set it back, or delete that file"
            )
        figure = found[0]
        worth = -figure if self.config.best_by == HELD_OUT else figure
        return worth if math.isfinite(worth) else -math.inf


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"
