"""Work on many records at once: cut into chunks, and done by all processors."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from llava_lite import distributed

_SMALL = 4096
_CHUNK = 512
T = TypeVar("T")


def is_small(count: int) -> bool:
    """Whether so few records are worth neither several processes nor being remembered."""
    return count < _SMALL


def cut(numbers: np.ndarray, size: int = _CHUNK) -> list[np.ndarray]:
    """Cut what is to be done into chunks for `map_chunks`; smaller ones where a record is more work."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def map_chunks(
    check: Callable[[np.ndarray], T], chunks: list[np.ndarray], what: str, *, alone: bool = False
) -> Iterator[T]:
    """Apply `check` to each chunk, in order; to many, by as many processes as there are processors.

    alone: whether only one of a run's processes on this machine does it; else they share the processors.
    """
    console = Console(stderr=True, quiet=not distributed.is_main())
    sharing = 1 if alone else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = 1 if is_small(len(chunks) * _CHUNK) else (os.cpu_count() or 1) // sharing
    if workers <= 1:
        yield from track(map(check, chunks), what, total=len(chunks), console=console, transient=True)
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the processes are the parallelism
    with ProcessPoolExecutor(workers, get_context("fork"), initializer=_Work.take, initargs=(check,)) as pool:
        yield from track(pool.map(_Work.do, chunks), what, total=len(chunks), console=console, transient=True)


class _Work:
    """What a worker process does, inherited at the fork: sent with each chunk, a tokenizer would be built anew."""

    check: Callable[[np.ndarray], Any]

    @classmethod
    def take(cls, check: Callable[[np.ndarray], Any]) -> None:
        cls.check = check
        gc.freeze()  # what was inherited stays, and records make no circles: looking for them takes a tenth of the time
        gc.set_threshold(10_000)

    @classmethod
    def do(cls, chunk: np.ndarray) -> Any:
        return cls.check(chunk)
