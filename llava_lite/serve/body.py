"""The body of a request, from clients that may send too much, too slowly, or half of it."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request
from starlette.types import Receive

from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal

_DROP_SECONDS = 1.0


async def read_body(request: Request, config: ServerConfig) -> bytes:
    """Return the body, of which no more is held than may come. Raises Refusal, or ClientDisconnect."""
    try:
        _check_headers(request, config)
        return await asyncio.wait_for(_collect(request, config), config.body_timeout)
    except asyncio.TimeoutError:
        raise Refusal(
            f"the body has not arrived within {config.body_timeout:g} s; send it faster", status=408, code="timeout"
        ) from None
    except Refusal:
        await drop_body(request.receive)
        raise


async def drop_body(receive: Receive) -> None:
    """Let a body come for a while and drop it, before it is refused.

    Who is still sending does not read yet, and a connection that is closed on unread bytes loses the answer.
    """

    async def drop() -> None:
        while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(drop(), _DROP_SECONDS)


def _check_headers(request: Request, config: ServerConfig) -> None:
    # a web page of another origin may send any other type without asking first
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("send the body as Content-Type: application/json", status=415, code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("compressed bodies are not read; send it as it is", status=415, code="unsupported_media_type")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > config.max_body_bytes:
        raise _too_large(config)


async def _collect(request: Request, config: ServerConfig) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > config.max_body_bytes:
            raise _too_large(config)
        body += chunk
    return bytes(body)


def _too_large(config: ServerConfig) -> Refusal:
    return Refusal(
        f"the body is larger than {config.max_body_bytes} bytes; send fewer or smaller images",
        status=413,
        code="request_too_large",
    )
