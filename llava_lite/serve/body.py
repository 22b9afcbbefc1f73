"""The body of a request, from clients that may send too much, too slowly, or half of it."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request

from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal

_DROP_SECONDS = 1.0


async def read_body(request: Request, config: ServerConfig) -> bytes:
    """Return the body, of which no more is held than may come. Raises Refusal, or ClientDisconnect."""
    # a web page of another origin may send any other type without asking first
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("send the body as Content-Type: application/json", status=415, code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("compressed bodies are not read; send it as it is", status=415, code="unsupported_media_type")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > config.max_body_bytes:
        raise await _too_large(request, config)
    try:
        body = await asyncio.wait_for(_collect(request, config), config.body_timeout)
    except asyncio.TimeoutError:
        raise Refusal(
            f"the body has not arrived within {config.body_timeout:g} s; send it faster", status=408, code="timeout"
        ) from None
    if body is None:
        raise await _too_large(request, config)
    return body


async def _collect(request: Request, config: ServerConfig) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > config.max_body_bytes:
            return None
        body += chunk
    return bytes(body)


async def _too_large(request: Request, config: ServerConfig) -> Refusal:
    """Drop for a while what still comes: who is sending does not read, and closing on them would lose the answer."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_drop(request), _DROP_SECONDS)
    return Refusal(
        f"the body is larger than {config.max_body_bytes} bytes; send fewer or smaller images",
        status=413,
        code="request_too_large",
    )


async def _drop(request: Request) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
