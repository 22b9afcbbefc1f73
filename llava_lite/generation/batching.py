"""One model for many who ask at the same time: whoever comes joins the batch that is under way, at its next token."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from llava_lite import distributed
from llava_lite.conversation.message import Conversation
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Busy, Closed, Event, Finish, Load, Sampling, SharedModel, Ticket
from llava_lite.generation.decoding import Row

CLOSED = "the model has been closed; start it again"


class _Asked:
    """One answer under way, as the batcher holds it."""

    def __init__(self, row: Row, listen: Callable[[Event], None]) -> None:
        self.row = row
        self.cancelled = False
        self._listen = listen
        self._ended = False

    def cancel(self) -> None:
        self.cancelled = True

    def tell(self, event: Event) -> None:
        """Hand an event on, the last one once. One who cannot be told any more is gone."""
        if self._ended:
            return
        self._ended = not isinstance(event, str)
        try:
            self._listen(event)
        except Exception:
            self.cancelled = True

    def tell_all(self) -> None:
        """Hand on what is new of the answer."""
        if self.row.piece:
            self.tell(self.row.piece)
            self.row.piece = ""
        if self.row.reason is not None:
            self.tell(self.row.finish)

    def fail(self, error: Exception) -> None:
        self.row.cancel()
        self.tell(error)


class Batcher(SharedModel):
    """An Assistant as a SharedModel. One thread of its own does all that needs the model.

    max_answering: answers made together; max_waiting: those that may wait for one of these places
    """

    def __init__(self, assistant: Assistant, *, max_answering: int = 8, max_waiting: int = 32) -> None:
        self._assistant = assistant
        self._max_answering = max_answering
        self._max_waiting = max_waiting
        self._waiting: deque[_Asked] = deque()
        self._answering: list[_Asked] = []
        self._preparing = 0
        self._closed = False
        self._changed = threading.Condition()
        self._decoder = assistant.decoder(keep=True)
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._assistant.name

    def submit(self, conversation: Conversation, sampling: Sampling, listen: Callable[[Event], None]) -> Ticket:
        """Ask without waiting; see SharedModel."""
        with self._changed:
            self._refuse_if_closed()
            ahead = len(self._answering) + len(self._waiting) + self._preparing
            if ahead >= self._max_answering + self._max_waiting:
                raise Busy(f"{self._max_waiting} are waiting for an answer, as many as may; ask again later")
            self._preparing += 1  # which holds its place
        row = None
        try:
            row = self._assistant.prepare(conversation, sampling, watched=True)
        finally:
            with self._changed:
                self._preparing -= 1
                if row is not None:
                    self._refuse_if_closed()
                    self._waiting.append(asked := _Asked(row, listen))
                    self._changed.notify()
        return asked

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer conversations; each takes its place among all that others ask."""
        with ThreadPoolExecutor(self._max_answering) as pool:
            return list(pool.map(lambda conversation: "".join(self.stream(conversation, sampling)), conversations))

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation piece by piece. Stop reading to stop it."""
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = self.submit(conversation, sampling, events.put)
        try:
            while not isinstance(event := events.get(), Finish):
                if isinstance(event, Exception):
                    raise event
                yield event
            if event.reason == "cancelled":
                raise Closed(CLOSED)  # half an answer is none
        finally:
            ticket.cancel()

    def load(self) -> Load:
        with self._changed:
            self._refuse_if_closed()
            return Load(
                len(self._answering), len(self._waiting) + self._preparing, self._max_answering, self._max_waiting
            )

    def close(self) -> None:
        """Cancel what is under way and stop answering."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Closed(CLOSED)

    def _work(self) -> None:
        try:
            while self._wait():
                self._advance(self._admit())
        finally:  # closed, or broken for good, as by a device that fails whatever it is asked
            with self._changed:
                self._closed = True
                ended = [*self._answering, *self._waiting]
                self._answering, self._waiting = [], deque()
            for asked in ended:
                asked.row.cancel()
                asked.tell_all()

    def _wait(self) -> bool:
        """Wait until there is something to do; return whether there is, or the model has been closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._answering or self._closed)
            return not self._closed

    def _admit(self) -> list[_Asked]:
        """Give those who wait their places, in turn; those who have gone meanwhile are let go."""
        joining: list[_Asked] = []
        with self._changed:
            gone = [asked for asked in self._waiting if asked.cancelled]
            self._waiting = deque(asked for asked in self._waiting if not asked.cancelled)
            while self._waiting and len(self._answering) < self._max_answering:
                joining.append(asked := self._waiting.popleft())
                self._answering.append(asked)
        for asked in gone:
            asked.row.cancel()
            asked.tell_all()
        return joining

    def _advance(self, joining: Sequence[_Asked]) -> None:
        """Bring all answers on by a token, and tell those who asked. Those whom an error hits learn of it."""
        for asked in self._answering:
            if asked.cancelled:
                asked.row.cancel()
        try:
            if self._decoder.release():
                self._decoder.step()
        except Exception as error:  # such as no memory left: the next ones start anew
            self._fail([asked for asked in self._answering if asked not in joining], error)
            self._decoder = self._assistant.decoder(keep=True)
        try:
            self._decoder.join([asked.row for asked in joining if asked.row.reason is None])
        except Exception as error:  # those under way go on
            self._fail(joining, error)
        for asked in self._answering:
            asked.tell_all()
        self._forget()

    def _fail(self, failed: Sequence[_Asked], error: Exception) -> None:
        """Tell of an error. It may be memory that lacks, so what is kept for next turns is given up, and what the
        error's frames hold of the computation.
        """
        distributed.logger.error("answers failed", exc_info=error)
        self._assistant.forget()
        error.__traceback__ = None
        for asked in failed:
            asked.fail(error)

    def _forget(self) -> None:
        """Free the places of those whose answers have ended."""
        with self._changed:
            self._answering = [asked for asked in self._answering if asked.row.reason is None]
