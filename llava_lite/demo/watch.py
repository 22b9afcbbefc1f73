"""How much memory the demo takes at most, its loader processes included."""

from __future__ import annotations

import threading

import psutil


class MemoryWatch:
    """Samples the resident memory of this process and its children while open; shared pages count in each of them."""

    def __init__(self, every_seconds: float = 0.5) -> None:
        self.peak_mb = 0.0
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(self._every):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)
