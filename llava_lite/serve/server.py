"""Start and end a server: the address is taken before a model is loaded, and what is under way may end.

What the extra `serve` brings is imported late, so that its absence is a message.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING

from llava_lite import distributed
from llava_lite.generation.chat_model import SharedModel
from llava_lite.serve.config import ServeError, ServerConfig

if TYPE_CHECKING:
    import uvicorn

GRACE = 10
"""Seconds that answers under way have when the server is told to stop."""

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def listen(host: str, port: int) -> socket.socket:
    """Take an address (port 0: any free one); nobody is heard before `serve`. Raises ServeError."""
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ServeError(f"serving needs {', '.join(missing)}; pip install 'llava-lite[serve]'")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except BaseException:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise ServeError(f"{host} port {port}: cannot be listened to ({error}); choose another") from None
    return listening


def make_server(model: SharedModel, config: ServerConfig) -> uvicorn.Server:
    """Return a server that runs on a socket of `listen`, in any thread, until its `should_exit` is set."""
    import uvicorn

    from llava_lite.serve.app import create_app

    options = uvicorn.Config(
        create_app(model, config),
        http="h11",  # what the tests run on; httptools may be there or not
        ws="none",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(options)


def serve(model: SharedModel, config: ServerConfig, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM, let what is under way end, for GRACE seconds, and close the model."""
    load, (host, port) = model.load(), listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    distributed.logger.info(
        "%s at http://%s:%d/v1, a page to chat at http://%s:%d/: %d answers at a time, %d more may wait; %s",
        config.model_name or model.name,
        *(shown, port, shown, port),
        load.max_answering,
        load.max_waiting,
        config.describe(),
    )
    if config.api_key is None and not ip_address(host).is_loopback:
        distributed.logger.warning("whoever reaches this machine may ask; an API key keeps others out")
    try:
        with _ended_by_signals():
            make_server(model, config).run(sockets=[listening])
    finally:
        model.close()
    distributed.logger.info("stopped")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Take SIGTERM as SIGINT, and both as an end: uvicorn raises them once more when it has shut down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
