"""A model behind any OpenAI-compatible endpoint (vLLM, SGLang, `llava-lite serve`, ...) as a ChatModel.

The official client asks, waits and tries again; what comes back is read here as plain JSON, because that client makes
its objects of whatever a server says, unchecked. An answer is whole or an error: never a piece that looks like one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llava_lite.conversation.message import Conversation, ConversationError, Image
from llava_lite.generation.chat_model import GenerationError, Sampling, Score
from llava_lite.images.loading import image_file

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_WHOLE = ("stop", "length")  # how an answer ends that is one
_REMEDIES = {
    401: "give the server's key as api_key or in OPENAI_API_KEY",
    403: "give the server's key as api_key or in OPENAI_API_KEY",
    404: "check the address, /v1 included, and the model's name",
    429: "ask fewer at once (concurrency), or later",
}


class RemoteChat:
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
        return self._pieces(self._request(conversation, sampling))

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """Raise GenerationError: endpoints of chats do not tell how likely a given answer is."""
        raise GenerationError(
            f"{self.name}: an endpoint does not tell how likely its model holds a given answer; open the checkpoint's "
            "folder instead"
        )

    async def _reply(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[str]:
        places = asyncio.Semaphore(self.concurrency)

        async def ask(client: AsyncOpenAI, i: int, conversation: Conversation) -> str:
            where = f"conversations[{i}]: {self.name}"
            async with places:
                request = self._request(conversation, sampling)
                with _told(where):
                    response = await client.chat.completions.with_raw_response.create(**request)
                    text = response.text
            return _answer(text, where)

        async with self._async_client() as client:
            tasks = [asyncio.create_task(ask(client, *numbered)) for numbered in enumerate(conversations)]
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
                choice = _choice(chunk.to_dict(warnings=False) if isinstance(chunk, BaseModel) else chunk, self.name)
                _check_refusal(choice.get("delta"), self.name)
                finish = choice.get("finish_reason") or finish
                match choice:
                    case {"delta": {"content": str(piece)}} if piece:
                        yield piece
        _check_finish(finish, self.name)

    def _request(self, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
        """Write a request down. What OpenAI's own endpoint does not know is named only where it is asked for."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": _messages(conversation),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        beyond: dict[str, float] = {}
        if sampling.top_k:
            beyond["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1:
            beyond["repetition_penalty"] = sampling.repetition_penalty
        return {**request, "extra_body": beyond} if beyond else request

    def _only_model(self) -> str:
        where = f"{self.base_url}/models"
        with _told(where):
            text = self.client.models.with_raw_response.list().text
        match _parse(text, where):
            case {"data": list(rows)}:
                names = [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
            case body:
                raise GenerationError(f"{where}: no list of models in {_short(body)}; name one: {self.base_url}#MODEL")
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


def _messages(conversation: Conversation) -> list[Any]:
    """Write a conversation as OpenAI's messages: words alone as a string, with images as parts in their order."""
    messages: list[Any] = []
    if conversation.system is not None:
        messages.append({"role": "system", "content": conversation.system})
    for message in conversation.messages:
        content = [_part(part) for part in message.content] if message.images else message.text
        messages.append({"role": message.role, "content": content})
    return messages


def _part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = image_file(part.source)
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _answer(text: str, where: str) -> str:
    """Read the answer from the text of a response. Raises GenerationError where there is none, or half of one."""
    choice = _choice(_parse(text, where), where)
    _check_refusal(choice.get("message"), where)
    _check_finish(choice.get("finish_reason"), where)
    match choice:
        case {"message": {"content": str(answer)}}:
            return answer
    raise GenerationError(f"{where}: no words in the answer {_short(choice)}; see the server's log")


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise GenerationError(f"{where}: no JSON but {_short(text)}; check the address, /v1 included") from None


def _choice(body: object, where: str) -> dict[str, Any]:
    match body:
        case {"choices": [dict(choice), *_]}:
            return choice
        case {"choices": [], "usage": dict()}:  # the last chunk of a stream, where figures were asked for
            return {}
    raise GenerationError(f"{where}: no answer in {_short(body)}; is this an OpenAI-compatible endpoint?")


def _check(conversation: Conversation) -> None:
    if not conversation.awaits_answer:
        raise ConversationError("the conversation ends with an answer; ask something first")


def _check_refusal(message: object, where: str) -> None:
    match message:
        case {"refusal": str(words)} if words:
            raise GenerationError(f"{where}: refuses to answer: {_short(words)}; ask differently")


def _check_finish(finish: object, where: str) -> None:
    if finish not in _WHOLE:
        ended = f"ended with finish_reason {finish!r}" if finish else "was cut off"
        raise GenerationError(f"{where}: the answer {ended}, so it is not whole; see the server's log")


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
        raise GenerationError(f"{where}: {status}: {_short(words)}; {remedy}") from None
    except openai.APITimeoutError:
        raise GenerationError(f"{where}: no answer in time; see the server's log, or allow a longer timeout") from None
    except openai.APIConnectionError as error:
        reason = f"the connection failed ({error.__cause__ or error})"
        raise GenerationError(f"{where}: {reason}; check that the server runs") from None
    except openai.APIError as error:  # told in the middle of a stream
        raise GenerationError(f"{where}: {_short(error.message)}; see the server's log") from None
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
        raise GenerationError(f"{_short(base_url.rpartition('@')[2])}: not an address; give http://HOST:PORT/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise GenerationError(
            f"{parts.scheme}://{parts.hostname}: an endpoint's address has no user, password, query or #; give its key "
            "as api_key or in OPENAI_API_KEY, and the model as model"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path or '/v1'}"


def _short(words: object) -> str:
    """Show the beginning of what a server said, on one line."""
    text = " ".join((words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
