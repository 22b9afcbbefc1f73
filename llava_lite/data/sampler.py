"""Which samples form a step: a pure function of (seed, step), so that a run resumes with no stored loader state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Order:
    """Shuffled epochs of `num_samples` laid end to end and cut into steps of `per_step`; the last step may be short.

    max_steps: stop there, instead of at the end of the epochs; the order is the same.
    """

    num_samples: int
    per_step: int
    seed: int
    epochs: float = 1.0
    max_steps: int | None = None

    @property
    def num_steps(self) -> int:
        if self.max_steps is not None:
            return self.max_steps
        return math.ceil(self._total / self.per_step)

    @property
    def _total(self) -> int:
        return self.max_steps * self.per_step if self.max_steps is not None else round(self.epochs * self.num_samples)

    def step(self, number: int) -> list[int]:
        """Return the samples of step `number`, counted from 0."""
        first = number * self.per_step
        return [self._at(i) for i in range(first, min(first + self.per_step, self._total))]

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, self.num_samples)
        return int(permutation(self.num_samples, self.seed, epoch)[within])


@lru_cache(maxsize=2)
def permutation(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of an epoch's samples: long [size]."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
