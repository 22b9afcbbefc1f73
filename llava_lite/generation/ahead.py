"""Batches whose next one is made ready, in threads, while the model is busy with the one before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
NUM_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))  # more of them would be in the model's way


def ahead(batches: Iterable[Sequence[A]], prepare: Callable[[A], B]) -> Iterator[list[B]]:
    """Yield what `prepare` makes of each batch, in order. One batch is ahead of what is taken, and no more.

    What `prepare` raises is raised where its batch is due.
    """
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="ahead") as pool:
        ready: list[Future[B]] | None = None
        for batch in batches:
            ready, due = [pool.submit(prepare, item) for item in batch], ready
            if due is not None:
                yield [item.result() for item in due]
        if ready is not None:
            yield [item.result() for item in ready]
