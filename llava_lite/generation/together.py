"""One ChatModel of all the processes of a run: the main one asks, and each answers its share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llava_lite import distributed
from llava_lite.conversation.message import Conversation
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import ChatModel, Sampling


class Together(ChatModel):
    """The main process asks it as any ChatModel, within `with`, where the others follow until it is done.

    Each process is asked as often as any other, so that weights which are shared out can be gathered for all of them:
    see `Assistant`, `in_step`.
    """

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    @property
    def name(self) -> str:
        return self.assistant.name

    def __enter__(self) -> Together:
        while not distributed.is_main():
            asked = distributed.gather(None)[0]
            if asked is None:
                break
            self._answer(*asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if distributed.is_main() and kind is None:  # else it ends, and the others with it, wherever they wait
            distributed.gather(None)

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer conversations; of the main process alone."""
        distributed.gather((conversations, sampling))
        return self._answer(conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation, in one piece."""
        yield from self.reply([conversation], sampling)

    def _answer(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[str]:
        """Answer every n-th conversation, and the first once more where there is none left; return all answers."""
        share = conversations[distributed.rank() :: distributed.world_size()]
        parts = distributed.gather(self.assistant.reply(share or conversations[:1], sampling))
        answers = [""] * len(conversations)
        for rank, part in enumerate(parts):
            answers[rank :: distributed.world_size()] = part[: len(answers[rank :: distributed.world_size()])]
        return answers
