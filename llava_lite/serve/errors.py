"""What goes wrong, in the shape that OpenAI's clients read: {"error": {message, type, param, code}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from llava_lite.conversation.message import ConversationError
from llava_lite.generation.chat_model import Busy, Closed, TooLong
from llava_lite.images.loading import ImageError

RETRY_AFTER = {"Retry-After": "1"}
NO_RETRY = {"X-Should-Retry": "false"}
"""What keeps OpenAI's client from asking again, which it otherwise does at every status from 500 on."""


class Refusal(ValueError):
    """A request that is not answered: an HTTP status, and why.

    param: the field at fault, as messages[0].content; code: a word for programs
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, object]:
        """The error as JSON says it."""
        error = {"message": str(self), "type": _kind(self.status), "param": self.param, "code": self.code}
        return {"error": error}


def refusal_of(error: Exception) -> Refusal | None:
    """Say what a model's error means for a client; None where it is no fault of the client's.

    A client's mistake is a ValueError of a class that llava_lite defines: each room raises its own.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Busy):
        return Refusal(str(error), status=429, code="rate_limit_exceeded", headers=RETRY_AFTER)
    if isinstance(error, Closed):
        return Refusal(str(error), status=503, code="unavailable")
    if isinstance(error, TooLong):
        return Refusal(str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, ImageError):
        return Refusal(str(error), param="messages", code="invalid_image")
    if isinstance(error, ConversationError):
        return Refusal(str(error), param="messages", code="invalid_messages")
    if isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == "llava_lite":
        return Refusal(str(error), code="invalid_request")
    return None


def no_model(wanted: str, name: str) -> Refusal:
    """Say that a server has no such model, but the one called `name`."""
    return Refusal(
        f"there is no model {wanted[:200]!r}; this server has {name!r}",
        status=404,
        param="model",
        code="model_not_found",
    )


def broken() -> Refusal:
    """What a client hears of a bug; the traceback is in the server's log alone."""
    return Refusal("something broke in the server; its log says what", status=500, code="internal_error")


def of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """Say a plain HTTP error, such as an unknown path, in this shape."""
    return Refusal(detail, status=status, code=HTTPStatus(status).phrase.lower().replace(" ", "_"), headers=headers)


def to_json(value: object) -> bytes:
    """Write JSON in UTF-8; half a character, which a client may have sent and hears back, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _kind(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"
