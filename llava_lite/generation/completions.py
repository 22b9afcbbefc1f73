"""OpenAI's chat completions as plain JSON: conversations into requests, responses into answers.

An answer is whole or an error: never a piece that looks like one. `where` names in errors who was asked, and what.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from llava_lite.conversation.message import Conversation, Image
from llava_lite.generation.chat_model import GenerationError, Sampling
from llava_lite.images.loading import image_file

_WHOLE = ("stop", "length")  # how an answer ends that is one


def write_request(model: str, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
    """Write a request as the openai client takes it; what OpenAI's own endpoint does not know only where asked for.

    Raises ImageError for an image that cannot be opened.
    """
    request: dict[str, Any] = {
        "model": model,
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


def read_answer(text: str, where: str) -> str:
    """Read the answer from the text of a response. Raises GenerationError where there is none, or half of one."""
    choice = _choice(_read(text, where), where)
    _check_refusal(choice.get("message"), where)
    check_finish(choice.get("finish_reason"), where)
    match choice:
        case {"message": {"content": str(answer)}}:
            return answer
    raise GenerationError(f"{where}: no words in the answer {short(choice)}; see the server's log")


def read_piece(body: object, where: str) -> tuple[str, object]:
    """Read one event of a stream: its piece of the answer, and how the answer ends, if it does.

    Raises GenerationError where it is no such event, or a refusal.
    """
    choice = _choice(body, where)
    _check_refusal(choice.get("delta"), where)
    match choice:
        case {"delta": {"content": str(piece)}}:
            return piece, choice.get("finish_reason")
    return "", choice.get("finish_reason")


def check_finish(finish: object, where: str) -> None:
    """Raise GenerationError for an answer that did not end by itself or at its full length."""
    if finish not in _WHOLE:
        ended = f"ended with finish_reason {finish!r}" if finish else "was cut off"
        raise GenerationError(f"{where}: the answer {ended}, so it is not whole; see the server's log")


def read_models(text: str, where: str) -> list[str]:
    """Read the names of the models that an endpoint serves. Raises GenerationError where the text is no such list."""
    match _read(text, where):
        case {"data": list(rows)}:
            return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
        case body:
            raise GenerationError(f"{where}: no list of models in {short(body)}; name the model: ADDRESS#MODEL")


def short(words: object) -> str:
    """Show the beginning of what a server said, on one line and without what a terminal would obey."""
    text = words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
    text = "".join(filter(str.isprintable, " ".join(text.split())))
    return text if len(text) <= 300 else f"{text[:300]}..."


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Write words alone as a string, and words with images as parts in their order."""
    messages: list[dict[str, Any]] = []
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


def _read(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise GenerationError(f"{where}: no JSON but {short(text)}; check the address, /v1 included") from None


def _choice(body: object, where: str) -> dict[str, Any]:
    match body:
        case {"choices": [dict(choice), *_]}:
            return choice
        case {"choices": [], "usage": dict()}:  # the last event of a stream, where figures were asked for
            return {}
    raise GenerationError(f"{where}: no answer in {short(body)}; is this an OpenAI-compatible endpoint?")


def _check_refusal(message: object, where: str) -> None:
    match message:
        case {"refusal": str(words)} if words:
            raise GenerationError(f"{where}: refuses to answer: {short(words)}; ask differently")
