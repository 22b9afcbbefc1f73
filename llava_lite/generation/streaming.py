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
    """Receives ids from `generate` and hands on text as soon as it can no longer change.

    end_text: what `decode` cuts an answer off at; a text that may be about to become it waits
    """

    def __init__(self, decode: Callable[[list[int]], str], end_text: str = "") -> None:
        self.decode = decode
        self.end_text = end_text
        self.ids: list[int] = []
        self.sent = ""
        self.pieces: queue.Queue[object] = queue.Queue()

    def put(self, value: torch.Tensor) -> None:
        """Take the next ids (long [1] or [1, n])."""
        self.ids.extend(value.flatten().tolist())
        text = self.decode(self.ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # the bytes of one character may come in several tokens
            self._send(self._settled(text))

    def end(self) -> None:
        self._send(self.decode(self.ids))
        self.pieces.put(_DONE)

    def _settled(self, text: str) -> str:
        """Leave out at the end what the next tokens may complete to `end_text`."""
        for length in range(len(self.end_text) - 1, 0, -1):
            if text.endswith(self.end_text[:length]):
                return text[:-length].rstrip()
        return text

    def _send(self, text: str) -> None:
        if text.startswith(self.sent) and len(text) > len(self.sent):
            self.pieces.put(text[len(self.sent) :])
            self.sent = text


class Ended(StoppingCriteria):
    """Stops each row of `generate` where its answer ends in a text instead of a special token."""

    def __init__(self, before_end: Callable[[list[int]], tuple[str, bool]]) -> None:
        self.before_end = before_end

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.Tensor:
        ended = [self.before_end(row)[1] for row in input_ids.tolist()]
        return torch.tensor(ended, device=input_ids.device, dtype=torch.bool)


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
