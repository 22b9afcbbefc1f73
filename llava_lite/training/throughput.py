"""Honest rates: what all ranks did, exactly counted, over the seconds it took, waiting for data included."""

from __future__ import annotations

import hashlib
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from llava_lite import distributed
from llava_lite.flops import DEVICES, Cost

GIB = 2**30


class Work(Protocol):
    """What there is to count in this rank's share of a step (see `data.loader.Step`)."""

    @property
    def num_targets(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def tokens(self) -> Mapping[str, int]: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def documents(self) -> Sequence[int]: ...
    @property
    def num_tiles(self) -> int: ...
    @property
    def tile_size(self) -> int: ...


class Costly(Protocol):
    """A module that knows what a pass through it costs (see `models.cost`)."""

    def cost(self, tile_size: int) -> Cost: ...


class Meter:
    """Adds up what this rank does, step by step; `read` adds up the ranks and starts anew."""

    def __init__(self, module: Costly) -> None:
        self.module = module
        self.device = distributed.device()
        self.peak = _all_sum([peak_flops(self.device)], self.device)[0]
        self._cost: Cost | None = None
        self._clear()

    def _clear(self) -> None:
        self.seconds = self.waited = 0.0
        self.num_steps = self.num_samples = self.flops = 0
        self.tokens: dict[str, int] = {}

    def add(self, work: Work, *, seconds: float, waited: float) -> None:
        """Count a step; seconds: all it took, `waited` of them for data."""
        if self._cost is None:
            self._cost = self.module.cost(work.tile_size)
        self.seconds += seconds
        self.waited += waited
        self.num_steps += 1
        self.num_samples += work.num_samples
        self.flops += self._cost.flops(work.documents, num_targets=work.num_targets, num_tiles=work.num_tiles)
        for sort, count in work.tokens.items():
            self.tokens[sort] = self.tokens.get(sort, 0) + count
        self.last = work

    def read(self) -> dict[str, object]:
        """Return the rates of all ranks since the last call, and what the last step learnt from. All ranks call it."""
        counts = [self.num_samples, self.flops, *self.tokens.values()]
        total = _all_sum([*counts, *_sum_of_ids(self.last.ids)], self.device)
        num_samples, flops, *tokens = total[: len(counts)]
        row = {
            "seconds": round(self.seconds / self.num_steps, 4),
            "data_wait": round(self.waited / self.num_steps, 4),
            "samples_per_s": round(num_samples / self.seconds, 2),
            "tokens_per_s": {
                sort: round(count / self.seconds, 1) for sort, count in zip(self.tokens, tokens, strict=True)
            },
            "tflops": float(f"{flops / self.seconds / distributed.world_size() / 1e12:.4g}"),
            **({"mfu": round(flops / self.seconds / self.peak, 4)} if math.isfinite(self.peak) else {}),
            **_peak_memory(self.device),
            "batch": hashlib.sha256(repr(total[len(counts) :]).encode()).hexdigest()[:12],
        }
        self._clear()
        return row


def device_name(device: torch.device) -> str:
    """Name what computes, as its maker does."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def peak_flops(device: torch.device) -> float:
    """Return a device's bf16 operations a second; not a number where that is not known: it is never guessed."""
    if device.type != "cuda":
        return math.nan
    known = DEVICES.get(device_name(device))
    return known.tflops * 1e12 if known and known.tflops else math.nan


def _sum_of_ids(ids: Sequence[str]) -> list[int]:
    """Return four sums over the ids' digests: the same for any order, and summed over any number of ranks.

    Each sum is of 32-bit words, so that it is exact in double precision for two million ids.
    """
    digests = [hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).digest() for sample_id in ids]
    return [sum(int.from_bytes(digest[n : n + 4], "big") for digest in digests) for n in range(0, 16, 4)]


def _all_sum(values: Sequence[float], device: torch.device) -> list[float]:
    return distributed.all_sum(torch.tensor(values, dtype=torch.float64, device=device)).tolist()


def _peak_memory(device: torch.device) -> dict[str, float]:
    """The most that the main process has held so far: of its GPU (by torch's allocator), or else of the machine."""
    if device.type == "cuda":
        return {"gpu_peak_gib": round(torch.cuda.max_memory_allocated(device) / GIB, 2)}
    if sys.platform == "win32":
        return {}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return {"process_peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)}
