"""The web application: OpenAI's paths, health, metrics and the page, and who may enter."""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llava_lite.generation.chat_model import SharedModel
from llava_lite.serve.body import drop_body
from llava_lite.serve.completions import Completions
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal, broken, no_model, of_status, to_json
from llava_lite.serve.metrics import CONTENT_TYPE, Metrics
from llava_lite.serve.page import page_routes


def create_app(model: SharedModel, config: ServerConfig) -> FastAPI:
    """Put a model behind OpenAI's interface. The app does not close the model."""
    metrics = Metrics(model)
    completions = Completions(model, config, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        completions.close()

    # no pages of documentation: they would load scripts from elsewhere
    app = FastAPI(title="llava_lite", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_bug)
    app.router.routes.append(Route("/v1/chat/completions", completions, methods=["POST"]))
    _add_models(app, config.model_name or model.name)
    _add_watching(app, model, metrics)
    app.router.routes.extend(page_routes(config))
    if config.api_key is not None:
        app.add_middleware(KeyCheck, key=config.api_key)
    if config.allow_origins:  # outermost, as browsers ask beforehand without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "X-Dropped-Turns"],
        )
    return app


class KeyCheck:
    """Let only those who show the key into /v1/; health, metrics and the page are for everyone.

    A comparison takes as long whichever letter of the key is wrong.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = b"bearer " + key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/") and not self._may_enter(scope):
            refusal = Refusal(
                "no API key, or a wrong one; send it as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await drop_body(receive)
            await _response(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + key.strip(), self._expected)


def _add_models(app: FastAPI, name: str) -> None:
    entry = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "llava_lite"}

    @app.get("/v1/models")
    async def models() -> Response:
        return _json({"object": "list", "data": [entry]})

    @app.get("/v1/models/{wanted:path}")
    async def model(wanted: str) -> Response:
        if wanted != name:
            raise no_model(wanted, name)
        return _json(entry)


def _add_watching(app: FastAPI, model: SharedModel, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        try:
            load = model.load()
        except Exception as error:  # whatever it is, nothing will be answered
            raise Refusal(f"the model does not answer ({error})", status=503, code="unavailable") from error
        return _json({"status": "ok", "answering": load.num_answering, "waiting": load.num_waiting})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _response(error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{error.detail}: {request.method} {request.url.path}"
    return _response(of_status(error.status_code, detail, error.headers))


async def _answer_bug(request: Request, error: Exception) -> Response:
    return _response(broken())  # who runs the app logs the error


def _response(refusal: Refusal) -> Response:
    return _json(refusal.body, status=refusal.status, headers=refusal.headers)


def _json(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status_code=status, headers=headers, media_type="application/json")
