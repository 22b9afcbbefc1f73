"""Conversations of text and images. Everything above and below speaks of these, never of "<image>" strings.

A message has one spelling: neighbouring texts are joined, a lone image comes first (as LLaVA trains), and the white
space around leading images is dropped, because the newline after a leading image is the template's, not the user's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "assistant"]


class ConversationError(ValueError):
    """A conversation that cannot be: wrong roles, wrong order, an image where none may stand."""


@dataclass(frozen=True)
class Image:
    """A picture by reference: a path, a data: URI, bytes or a PIL image. Opened only by `images.loading`."""

    source: object


@dataclass(frozen=True)
class Message:
    """One turn: its role, and what is said as texts and images in order."""

    role: Role
    content: tuple[str | Image, ...]

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise ConversationError(f"unknown role {self.role!r}; use 'user' or 'assistant'")
        if len(self.content) == 1 and isinstance(self.content[0], str) and self.content[0]:
            return
        if self.role == "assistant" and self.images:
            raise ConversationError("an assistant's turn holds an image; images belong to the user's turns")
        object.__setattr__(self, "content", _one_spelling(self.content))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(part for part in self.content if isinstance(part, Image))

    @property
    def text(self) -> str:
        """The words alone, images left out."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def num_leading_images(self) -> int:
        """How many images stand before the first word."""
        return next((i for i, part in enumerate(self.content) if isinstance(part, str)), len(self.content))


@dataclass(frozen=True)
class Conversation:
    """Turns of a user and an assistant, the user first. `system` replaces the template's own system text.

    Immutable: `Conversation().ask("What is this?", [image]).answer("A cat.").ask("Its color?")`.
    """

    messages: tuple[Message, ...] = ()
    system: str | None = None

    def __post_init__(self) -> None:
        for i, message in enumerate(self.messages):
            due = "assistant" if i % 2 else "user"
            if message.role != due:
                raise ConversationError(f"turn {i + 1} is the {message.role}'s where the {due}'s is due")

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple([part for message in self.messages for part in message.content if not isinstance(part, str)])

    @property
    def awaits_answer(self) -> bool:
        return bool(self.messages) and self.messages[-1].role == "user"

    def ask(self, text: str, images: Iterable[object] = ()) -> Conversation:
        """Append a user's turn; its images come before its text. An image is an `Image` or anything one is made of."""
        parts = [image if isinstance(image, Image) else Image(image) for image in images]
        return self._with(Message("user", (*parts, text)))

    def answer(self, text: str) -> Conversation:
        """Append the assistant's turn."""
        return self._with(Message("assistant", (text,)))

    def _with(self, message: Message) -> Conversation:
        return Conversation((*self.messages, message), self.system)


def _one_spelling(content: tuple[str | Image, ...]) -> tuple[str | Image, ...]:
    images = [part for part in content if isinstance(part, Image)]
    if len(images) == 1:
        text = "".join(part for part in content if isinstance(part, str)).strip()
        return (images[0], text) if text else (images[0],)
    parts: list[str | Image] = []
    for part in content:
        leading = bool(parts) and all(isinstance(p, Image) for p in parts)
        if isinstance(part, str):
            if leading or (images and not parts):  # between, before or right after leading images
                part = part.lstrip()
            if part and parts and isinstance(parts[-1], str):
                parts[-1] += part
                continue
        if part:
            parts.append(part)
    return tuple(parts)
