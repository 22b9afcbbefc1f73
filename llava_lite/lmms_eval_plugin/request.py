"""What lmms-eval asks, in our words: chat messages as a Conversation, gen_kwargs as a Sampling, requests in batches.

Imports nothing of lmms-eval. What cannot be asked as it stands is an error that says which document it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llava_lite.conversation.message import Conversation, ConversationError, Image, Message
from llava_lite.generation.chat_model import ChatModel, GenerationError, Sampling

MAX_NEW_TOKENS = 1024
"""Where a task does not say it: what lmms-eval's LLaVA classes take."""
_UNASKED_STOP = "\n\n"
"""lmms-eval puts this into the `until` of every task that has none, where it would cut answers of several paragraphs;
its LLaVA classes heed no `until` at all."""
_KNOWN = (
    *("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "seed", "repetition_penalty", "num_beams"),
    *("until", "image_aspect_ratio"),
)


class RequestError(ValueError):
    """A request of lmms-eval's that cannot be answered."""


@dataclass(frozen=True)
class Request:
    """One request.

    where:  its task and document, for messages
    length: of its words, so that batches are of like length
    read:   opens its document, pictures and all, when its turn comes
    """

    where: str
    length: int
    sampling: Sampling
    read: Callable[[], Conversation]


def answer(
    model: ChatModel, requests: Sequence[Request], *, batch_size: int, done: Callable[[int], object]
) -> list[str]:
    """Answer requests in batches, the longest first; the answers come in the order asked.

    done: told after each batch how many it had. Raises RequestError that names the document, or those of the batch.
    """
    answers = [""] * len(requests)
    groups: dict[Sampling, list[int]] = {}
    for i in sorted(range(len(requests)), key=lambda i: requests[i].length, reverse=True):
        groups.setdefault(requests[i].sampling, []).append(i)
    for sampling, group in groups.items():
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            conversations = [_read(requests[i]) for i in batch]
            with naming("; ".join(requests[i].where for i in batch)):
                replies = model.reply(conversations, sampling)
            for i, reply in zip(batch, replies, strict=True):
                answers[i] = reply
            done(len(batch))
    return answers


def read_conversation(messages: Iterable[Mapping[str, Any]], *, blind: bool = False) -> Conversation:
    """Read chat messages as `ChatMessages.to_hf_messages` writes them. blind: leave the images out.

    Raises ConversationError for videos and sounds.
    """
    system: str | None = None
    turns: list[Message] = []
    for message in messages:
        parts = [part for part in map(_read_part, message["content"]) if not (blind and isinstance(part, Image))]
        if message["role"] == "system" and system is None and not turns:
            system = "".join(part for part in parts if isinstance(part, str))
        else:
            turns.append(Message(message["role"], tuple(parts)))
    return Conversation(tuple(turns), system)


def read_sampling(asked: Mapping[str, Any], *, repetition: int = 0) -> Sampling:
    """Read gen_kwargs; as in lmms-eval's LLaVA classes, only a temperature above 0 makes an answer be drawn.

    repetition: how often the same was asked before; each time is drawn with another seed.
    `image_aspect_ratio` changes nothing: a model sees images as it was trained to.
    Raises GenerationError for what is not known or not possible here.
    """
    if unknown := sorted(asked.keys() - set(_KNOWN)):
        raise GenerationError(f"gen_kwargs {', '.join(unknown)}: not known here; there are: {', '.join(_KNOWN)}")
    given = {name: value for name, value in asked.items() if value is not None}
    if given.get("num_beams", 1) != 1:
        raise GenerationError("gen_kwargs num_beams: there is no beam search here; pass --gen_kwargs num_beams=1")
    until = given.get("until", ())
    drawn = given.get("do_sample", True) and given.get("temperature", 0) > 0
    return Sampling(
        max_new_tokens=given.get("max_new_tokens", MAX_NEW_TOKENS),
        temperature=given["temperature"] if drawn else 0.0,
        top_p=given.get("top_p", 1.0) if drawn else 1.0,
        top_k=given.get("top_k", 0) if drawn else 0,
        repetition_penalty=given.get("repetition_penalty", 1.0),
        seed=given.get("seed", 0) + repetition,
        stop=tuple(text for text in ([until] if isinstance(until, str) else until) if text != _UNASKED_STOP),
    )


def _read_part(part: Mapping[str, Any]) -> str | Image:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image", "image": source}:
            return Image(source)
    raise ConversationError(f"holds {part.get('type')}; models here see texts and images alone")


def _read(request: Request) -> Conversation:
    with naming(request.where):
        return request.read()


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Let a ValueError say of what it speaks, as a RequestError."""
    try:
        yield
    except ValueError as error:
        raise RequestError(f"{where}: {error}") from error
