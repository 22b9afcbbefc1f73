"""A model behind any OpenAI-compatible endpoint (vLLM, SGLang, `llava-lite serve`, ...) as a ChatModel.

The official client asks, waits and tries again. What comes back is read as plain JSON (`completions`), because that
client makes its objects of whatever a server says, unchecked.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.generation.chat_model import Choice, GenerationError, Sampling, Score, ScoringModel
from llava_lite.generation.completions import check_finish, read_answer, read_models, read_piece, short, write_request

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_REMEDIES = {
    401: "give the server's key as api_key or in OPENAI_API_KEY",
    403: "give the server's key as api_key or in OPENAI_API_KEY",
    404: "check the address, /v1 included, and the model's name",
    429: "ask fewer at once (concurrency), or later",
}


class RemoteChat(ScoringModel):
    """Asks an endpoint, several conversations at once.

    base_url: http(s)://HOST:PORT, where /v1 is added, or with the path that it has
    model: as the endpoint calls it; by default the only one that it serves
    api_key: by default what OPENAI_API_KEY holds
    timeout: seconds without a sign of the server, for each attempt
    max_retries: how often a request is sent again that met 429, 5xx, no connection or no answer in time; after as long
        as the server says (Retry-After), or longer each time
    concurrency: how many requests of one `reply` are under way at a time

    Raises GenerationError for no address, and where the endpoint serves several models and none is named.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 5,
        concurrency: int = 8,
    ) -> None:
        try:
            from openai import OpenAI, Timeout
        except ImportError:
            raise GenerationError("asking an endpoint needs a package; pip install 'llava-lite[remote]'") from None
        if timeout <= 0 or max_retries < 0 or concurrency < 1:
            given = f"timeout={timeout}, max_retries={max_retries}, concurrency={concurrency}"
            raise GenerationError(f"out of range: {given}; the least are above 0, 0 and 1")
        self.base_url = _read_address(base_url)
        self.concurrency = concurrency
        self.client = OpenAI(
            base_url=self.base_url,
            api_key=api_key or os.environ.get("OPENAI_API_KEY") or "none",  # the client insists on one
            timeout=Timeout(timeout, connect=min(timeout, 10.0)),
            max_retries=max_retries,
        )
        self.model = model or self._only_model()

    @property
    def name(self) -> str:
        return f"{self.model} at {self.base_url}"

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer conversations, `concurrency` at a time, in the order asked.

        Raises GenerationError for the first that stays without an answer, which it names as `conversations[i]`; the
        others are then given up.
        """
        from anyio.from_thread import start_blocking_portal

        for conversation in conversations:
            _check(conversation)
        # A thread with an event loop: inside a notebook this one has its own, and an interruption ends all requests.
        with start_blocking_portal() as portal:
            return portal.call(self._reply, conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation piece by piece. Stop reading to close the connection."""
        _check(conversation)
        return self._pieces(write_request(self.model, conversation, sampling))

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """Raise GenerationError: endpoints of chats do not tell how likely a given answer is."""
        raise GenerationError(
            f"{self.name}: an endpoint does not tell how likely its model holds a given answer; open the checkpoint's "
            "folder instead"
        )

    def score_options(self, batches: Iterable[Sequence[Choice]]) -> Iterator[list[list[float]]]:
        """Raise GenerationError, as `score` does."""
        self.score([])
        return iter(())

    async def _reply(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[str]:
        places = asyncio.Semaphore(self.concurrency)

        async def ask(client: AsyncOpenAI, i: int, conversation: Conversation) -> str:
            where = f"conversations[{i}]: {self.name}"
            async with places:
                request = write_request(self.model, conversation, sampling)
                with _told(where):
                    response = await client.chat.completions.with_raw_response.create(**request)
                    text = response.text
            return read_answer(text, where)

        async with self._async_client() as client:
            tasks = [asyncio.create_task(ask(client, i, asked)) for i, asked in enumerate(conversations)]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _pieces(self, request: dict[str, Any]) -> Iterator[str]:
        from openai import BaseModel

        finish = None
        with _told(self.name), self.client.chat.completions.create(**request, stream=True) as chunks:
            for chunk in chunks:
                body = chunk.to_dict(warnings=False) if isinstance(chunk, BaseModel) else chunk
                piece, ended = read_piece(body, self.name)
                finish = ended or finish
                if piece:
                    yield piece
        check_finish(finish, self.name)

    def _only_model(self) -> str:
        where = f"{self.base_url}/models"
        with _told(where):
            text = self.client.models.with_raw_response.list().text
        names = read_models(text, where)
        if len(names) != 1:
            raise GenerationError(f"{where}: serves {', '.join(names) or 'none'}; name one: {self.base_url}#MODEL")
        return names[0]

    def _async_client(self) -> AsyncOpenAI:
        """Open a client for one `reply`: its connections belong to an event loop, and end with it."""
        from openai import AsyncOpenAI

        mine = self.client
        return AsyncOpenAI(
            base_url=self.base_url, api_key=mine.api_key, timeout=mine.timeout, max_retries=mine.max_retries
        )


def _check(conversation: Conversation) -> None:
    if not conversation.awaits_answer:
        raise ConversationError("the conversation ends with an answer; ask something first")


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Tell what the client gives up on as a GenerationError."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        match error.body:
            case {"message": str(words)} | str(words):
                pass
            case body:
                words = json.dumps(body)
        remedy = _REMEDIES.get(error.status_code, "see the server's log")
        status = f"{error.status_code} {error.response.reason_phrase}".strip()
        raise GenerationError(f"{where}: {status}: {short(words)}; {remedy}") from None
    except openai.APITimeoutError:
        raise GenerationError(f"{where}: no answer in time; see the server's log, or allow a longer timeout") from None
    except openai.APIConnectionError as error:
        reason = f"the connection failed ({error.__cause__ or error})"
        raise GenerationError(f"{where}: {reason}; check that the server runs") from None
    except openai.APIError as error:  # told in the middle of a stream
        raise GenerationError(f"{where}: {short(error.message)}; see the server's log") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GenerationError(f"{where}: broken JSON ({error}); see the server's log") from None


def _read_address(base_url: str) -> str:
    """Return the address that requests go to. Raises GenerationError that does not repeat what may be secret."""
    try:
        parts = urlsplit(base_url.rstrip("/"))
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise GenerationError(f"{short(base_url.rpartition('@')[2])}: not an address; give http://HOST:PORT/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise GenerationError(
            f"{parts.scheme}://{parts.hostname}: an endpoint's address has no user, password, query or #; give its key "
            "as api_key or in OPENAI_API_KEY, and the model as model"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path or '/v1'}"
