"""ChatModel: all that evaluation, chat and serving know of a model. A local model or a remote endpoint can stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llava_lite.conversation.message import Conversation


class GenerationError(ValueError):
    """A question that cannot be answered: too long, badly sampled, or beyond what this model can do."""


class TooLong(GenerationError):
    """The conversation leaves no room for an answer in the model's context."""


class Busy(GenerationError):
    """As many are waiting for an answer as may wait; ask again later."""


class Closed(GenerationError):
    """A shared model that answers no more."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. Greedy by default.

    max_new_tokens: the longest answer; it ends earlier where the model's context does
    temperature: 0 takes the likeliest token each time; else at least 1e-6, so that the logits stay numbers
    top_p, top_k: draw only from the likeliest tokens that together have this probability; from so many (0: all)
    repetition_penalty: above 1, what was said before becomes less likely (Keskar et al., 2019)
    seed:   of the drawing; the answer depends on it and not on what else is answered at the time
    stop:   texts that end an answer, and are not part of it
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = {
            "max_new_tokens": self.max_new_tokens >= 1,
            "temperature": self.temperature == 0 or 1e-6 <= self.temperature <= 100,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "repetition_penalty": 1e-3 <= self.repetition_penalty <= 100,
            "stop": all(self.stop),
        }
        if wrong := [f"{name}={getattr(self, name)!r}" for name, right in bounds.items() if not right]:
            raise GenerationError(f"out of range: {', '.join(wrong)}")


class ChatModel(Protocol):
    """Anything that answers conversations which end with a user's turn."""

    @property
    def name(self) -> str:
        """What to call this model in reports: a folder, a hub id or an endpoint's model name."""
        ...

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        """Answer each conversation; the answers come in the order asked."""
        ...

    def replies(
        self, batches: Iterable[Sequence[Conversation]], sampling: Sampling = Sampling()
    ) -> Iterator[list[str]]:
        """Answer batch after batch, as `reply` does. One who can opens the next one's images meanwhile."""
        for batch in batches:
            yield self.reply(batch, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        """Answer one conversation piece by piece; the pieces joined are the whole answer. Stop reading to stop it."""
        ...


@dataclass(frozen=True)
class Score:
    """How likely a model holds an answer: the natural log-probability of each of its tokens, its end mark included."""

    tokens: tuple[str, ...]
    log_probs: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log-probability of the whole answer."""
        return sum(self.log_probs)


Choice = tuple[Conversation, Sequence[str]]
"""A question, and what an answer to it may begin with."""


class ScoringModel(ChatModel, Protocol):
    """A ChatModel that also tells how likely it holds a given answer."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """Score the last answer of each conversation, which ends with it, given all before. Raises GenerationError."""
        ...

    def score_options(self, batches: Iterable[Sequence[Choice]]) -> Iterator[list[list[float]]]:
        """Tell of each question how likely an answer to it begins with each of its options: log-probabilities, without
        an end mark. Batch after batch, as `replies`. Raises GenerationError.
        """
        ...


@dataclass(frozen=True)
class Finish:
    """How an answer ended.

    reason: stop, at its end or a stop text; length, at max_new_tokens or the end of the context; cancelled
    num_prompt_tokens, num_answer_tokens: visual tokens counted, the end mark too
    num_reused_tokens: of the prompt, those that were computed for an earlier turn
    num_dropped_turns: turns left out at the start because the conversation was longer than the context
    """

    reason: Literal["stop", "length", "cancelled"]
    num_prompt_tokens: int
    num_answer_tokens: int
    num_reused_tokens: int = 0
    num_dropped_turns: int = 0


Event = str | Finish | Exception
"""Of an answer under way: pieces of its text, then one Finish, or the exception that it failed with."""


class Ticket(Protocol):
    """One answer under way."""

    def cancel(self) -> None:
        """Stop it and free its place, from any thread. Its Finish says cancelled, unless it had ended before."""
        ...


@dataclass(frozen=True)
class Load:
    """What a shared model is doing: answers under way and waiting, and how many of each there can be."""

    num_answering: int
    num_waiting: int
    max_answering: int
    max_waiting: int


class SharedModel(ChatModel, Protocol):
    """A ChatModel that many ask at the same time, from any thread; it answers them together."""

    def submit(self, conversation: Conversation, sampling: Sampling, listen: Callable[[Event], None]) -> Ticket:
        """Ask without waiting. `listen` gets the Events, in order, from another thread, and must return at once.

        Opens the conversation's images and writes its prompt before it returns, so that what is wrong with them is
        raised here: ConversationError, ImageError, ProcessorError, GenerationError; Busy where too many wait; Closed.
        """
        ...

    def load(self) -> Load:
        """Tell how much there is to do. Raises Closed where nothing is done any more."""
        ...

    def close(self) -> None:
        """Cancel what is under way and stop answering."""
        ...
