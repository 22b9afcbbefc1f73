"""The Events of one answer, from the model's thread to the event loop, and what else ends it: time, or the client."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from llava_lite.generation.chat_model import Event, Finish
from llava_lite.serve.errors import NO_RETRY, Refusal


class Events:
    """Hears a ticket and hands its Events on. There are at most as many as tokens, so a slow reader stops nobody."""

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._timeout = timeout
        self._end = time.monotonic() + timeout

    def listen(self, event: Event) -> None:
        """Take an Event, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: there is nobody to tell
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def watch(self, receive: Receive) -> None:
        """Wait until the client goes away, and say so among the Events. The body must have been read."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._queue.put_nowait(ClientDisconnect())

    async def pieces(self) -> AsyncIterator[str | Finish]:
        """Give pieces of text, then the Finish.

        Raises what the answer failed with, ClientDisconnect, or Refusal where it takes too long or was cancelled.
        """
        while True:
            event = await self._next()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Finish) and event.reason == "cancelled":
                raise Refusal("the server is stopping", status=503, code="unavailable")
            yield event
            if isinstance(event, Finish):
                return

    async def _next(self) -> Event:
        if not self._queue.empty():  # there, whatever the time
            return self._queue.get_nowait()
        try:
            return await asyncio.wait_for(self._queue.get(), max(0.0, self._end - time.monotonic()))
        except asyncio.TimeoutError:
            raise Refusal(
                f"not answered within {self._timeout:g} s; ask for fewer tokens",
                status=504,
                code="timeout",
                headers=NO_RETRY,
            ) from None
