"""ChatModel: all that evaluation, chat and serving know of a model. A local model or a remote endpoint can stand in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llava_lite.conversation.message import Conversation


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. Greedy by default."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class ChatModel(Protocol):
    """Anything that answers conversations which end with a user's turn."""

    @property
    def name(self) -> str:
        """What to call this model in reports: a folder, a hub id or an endpoint's model name."""
        ...

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer each conversation; the answers come in the order asked."""
        ...

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation piece by piece; the pieces joined are the whole answer."""
        ...
