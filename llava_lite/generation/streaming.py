"""Text while it is being generated: no broken characters, and the pieces joined are the whole answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

_DONE = object()


class TextQueue(BaseStreamer):
    """Receives ids from `generate` and hands on text as soon as it can no longer change."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.ids: list[int] = []
        self.sent = ""
        self.pieces: queue.Queue[object] = queue.Queue()

    def put(self, value: torch.Tensor) -> None:
        """Take the next ids (long [1] or [1, n])."""
        self.ids.extend(value.flatten().tolist())
        text = self.decode(self.ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # the bytes of one character may come in several tokens
            self._send(text)

    def end(self) -> None:
        self._send(self.decode(self.ids))
        self.pieces.put(_DONE)

    def _send(self, text: str) -> None:
        if text.startswith(self.sent) and len(text) > len(self.sent):
            self.pieces.put(text[len(self.sent) :])
            self.sent = text


class Cancelled(StoppingCriteria):
    """Stops `generate` once the reader has gone."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device, dtype=torch.bool)


def stream(texts: TextQueue, cancelled: Cancelled, generate: Callable[[], object]) -> Iterator[str]:
    """Run `generate` in a thread and yield its text piece by piece; a reader that leaves early stops it."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            generate()
        except BaseException as error:  # handed to the reader below
            failure.append(error)
            texts.pieces.put(_DONE)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := texts.pieces.get()) is not _DONE:
            yield str(piece)
    finally:
        cancelled.event.set()
        thread.join()
    if failure:
        raise failure[0]
