"""POST /v1/chat/completions: the whole life of a request, from its place among many to its last byte.

What computes runs in a few threads (JSON, images, prompts) or in the model's own; the event loop only passes on.
Whatever ends a request, its ticket is cancelled: that frees its place, and does nothing to an answer that has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llava_lite import distributed
from llava_lite.conversation.message import Conversation
from llava_lite.generation.chat_model import Finish, SharedModel, Ticket
from llava_lite.serve.body import drop_body, read_body
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import RETRY_AFTER, Refusal, broken, refusal_of
from llava_lite.serve.events import Events
from llava_lite.serve.metrics import Metrics
from llava_lite.serve.pictures import fetch_pictures, is_address
from llava_lite.serve.question import Question, read_question
from llava_lite.serve.wire import Wire, error_event

T = TypeVar("T")
NUM_THREADS = 4  # each may hold a decoded image, of up to 300 MB
OUTCOMES = {408: "timeout", 429: "rejected", 500: "failed", 503: "cancelled", 504: "timeout"}


class Completions:
    """An ASGI application for one path. As many requests are open as can be answered or wait."""

    def __init__(self, model: SharedModel, config: ServerConfig, metrics: Metrics) -> None:
        self._model = model
        self._config = config
        self._metrics = metrics
        self._name = config.model_name or model.name
        load = model.load()
        self._num_places = load.max_answering + load.max_waiting
        self._num_open = 0
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="serve")

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or raise Refusal before anything is sent."""
        try:
            if self._num_open >= self._num_places:
                await drop_body(receive)
                raise self._busy()
            with self._place():
                await self._answer(Request(scope, receive), send)
        except ClientDisconnect:
            self._metrics.requests.labels("cancelled").inc()
        except Exception as error:
            raise self._counted(error) from error

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        self._num_open += 1
        self._metrics.open_requests.set(self._num_open)
        try:
            yield
        finally:
            self._num_open -= 1
            self._metrics.open_requests.set(self._num_open)

    def _busy(self) -> Refusal:
        return Refusal(
            f"{self._num_places} requests are open, as many as may be; ask again later",
            status=429,
            code="rate_limit_exceeded",
            headers=RETRY_AFTER,
        )

    async def _answer(self, request: Request, send: Send) -> None:
        began = time.monotonic()
        question = await self._read(request)
        events = Events(self._config.timeout)
        watcher = asyncio.create_task(events.watch(request.receive))
        try:
            ticket = await self._submit(question, events)
            try:
                pieces = self._counting(events.pieces(), began, num_images=len(question.conversation.images))
                question = replace(question, conversation=Conversation())  # its images may hold many MiB
                await self._write(question, pieces, request, send)
            finally:
                ticket.cancel()
        finally:
            watcher.cancel()

    async def _read(self, request: Request) -> Question:
        body = await read_body(request, self._config)
        return await self._work(lambda: read_question(body, self._config, self._name))

    async def _submit(self, question: Question, events: Events) -> Ticket:
        conversation = question.conversation
        if any(is_address(image) for image in conversation.images):
            # not in our few threads: other people's servers may take their time
            conversation = await asyncio.to_thread(fetch_pictures, conversation, self._config)
        return await self._work(lambda: self._model.submit(conversation, question.sampling, events.listen))

    async def _work(self, compute: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, compute)

    async def _counting(
        self, events: AsyncIterator[str | Finish], began: float, *, num_images: int
    ) -> AsyncIterator[str | Finish]:
        """Pass events on, and count them."""
        first = True
        async for event in events:
            if first:
                self._metrics.first_token.observe(time.monotonic() - began)
                first = False
            if isinstance(event, Finish):
                self._metrics.count(event, num_images=num_images, seconds=time.monotonic() - began)
            yield event

    async def _write(
        self, question: Question, pieces: AsyncIterator[str | Finish], request: Request, send: Send
    ) -> None:
        wire = Wire(self._name, question.include_usage)
        headers = {"X-Request-Id": wire.id, "Cache-Control": "no-store"}
        if question.stream:
            headers |= {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
            await self._stream(wire, pieces, headers, send)
            return
        text = ""
        async for event in pieces:
            if isinstance(event, str):
                text += event
                continue
            if event.num_dropped_turns:
                headers["X-Dropped-Turns"] = str(event.num_dropped_turns)
            response = Response(wire.whole(text, event), headers=headers, media_type="application/json")
            await response(request.scope, request.receive, send)

    async def _stream(
        self, wire: Wire, pieces: AsyncIterator[str | Finish], headers: dict[str, str], send: Send
    ) -> None:
        """Send an answer as it is made. An error after the first byte is a message of the stream, as OpenAI's are."""

        async def put(data: bytes, *, more: bool = True) -> None:
            message = {"type": "http.response.body", "body": data, "more_body": more}
            try:
                await asyncio.wait_for(send(message), self._config.timeout)
            except asyncio.TimeoutError:  # a client that reads nothing
                raise ClientDisconnect from None

        raw = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        try:
            await put(wire.opening())
            async for event in pieces:
                await put(wire.piece(event) if isinstance(event, str) else wire.ending(event))
        except ClientDisconnect:
            raise
        except Exception as error:
            await put(error_event(self._counted(error)))
        await put(b"", more=False)

    def _counted(self, error: Exception) -> Refusal:
        """Count a request that failed, and say what its client hears of it."""
        refusal = refusal_of(error)
        if refusal is None:
            distributed.logger.error("a request failed", exc_info=error)
            refusal = broken()
        self._metrics.requests.labels(OUTCOMES.get(refusal.status, "refused")).inc()
        return refusal
