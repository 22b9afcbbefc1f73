"""How a conversation is written down for a language model, and which of its characters are to be learnt.

Spans are in characters, never in tokens: the processor maps them through the tokenizer's offsets, so that no mask ever
depends on how a prefix happens to be cut into tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from llava_lite.conversation.message import Conversation, ConversationError, Image, Message

IMAGE_MARK = "<image>"

Span = tuple[int, int]


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation.

    text:    the whole string; each image stands in it as `<image>`
    answers: spans to learn, each with the template's end mark
    content: spans of people's own words; what spells a special token in there is text, not markup
    images:  where each image stands, and which
    """

    text: str
    answers: tuple[Span, ...]
    content: tuple[Span, ...]
    images: tuple[tuple[Span, Image], ...]


@dataclass(frozen=True)
class ChatTemplate:
    """The strings around each turn; `{}` marks where the words go.

    `user` ends with the assistant's header, so that a prompt that ends with a question is ready to be answered.
    `user_text=False` drops the user's words and keeps the images (LLaVA's stage-one format).
    """

    name: str
    user: str
    answer: str
    system: str = ""
    system_text: str = ""
    user_text: bool = True

    @property
    def end(self) -> str:
        """What closes an answer."""
        return self.answer.split("{}")[1]

    def render(self, conversation: Conversation) -> Prompt:
        """Write the conversation down. Raises ConversationError where this template cannot express it."""
        if not conversation.messages:
            raise ConversationError("the conversation is empty; ask something first")
        writer = _Writer()
        system = self.system_text if conversation.system is None else conversation.system
        if system and not self.system:
            raise ConversationError(f"template {self.name!r} has no place for a system text")
        if system:
            before, after = self.system.split("{}")
            writer.markup(before)
            writer.content(system)
            writer.markup(after)
        for message in conversation.messages:
            if message.role == "user":
                self._write_user(writer, message)
            else:
                self._write_answer(writer, message)
        return Prompt(writer.text, tuple(writer.answers), tuple(writer.words), tuple(writer.images))

    def _write_user(self, writer: _Writer, message: Message) -> None:
        if not self.user_text and not message.images:
            raise ConversationError(f"template {self.name!r} needs an image in every user turn")
        before, after = self.user.split("{}")
        writer.markup(before)
        parts = message.content if self.user_text else message.images
        for i, part in enumerate(parts):
            if isinstance(part, str):
                writer.content(part)
            else:
                writer.image(part)
                if self.user_text and i < message.num_leading_images and i + 1 < len(parts):
                    writer.markup("\n")
        writer.markup(after)

    def _write_answer(self, writer: _Writer, message: Message) -> None:
        before, after = self.answer.split("{}")
        start = len(writer.text)
        writer.markup(before)
        writer.content(message.text)
        writer.markup(after)
        writer.answers.append((start, len(writer.text)))


class _Writer:
    """The text so far, and the spans in it."""

    def __init__(self) -> None:
        self.text = ""
        self.answers: list[Span] = []
        self.words: list[Span] = []
        self.images: list[tuple[Span, Image]] = []

    def markup(self, text: str) -> None:
        self.text += text

    def content(self, text: str) -> None:
        self.words.append((len(self.text), len(self.text) + len(text)))
        self.text += text

    def image(self, image: Image) -> None:
        self.images.append(((len(self.text), len(self.text) + len(IMAGE_MARK)), image))
        self.text += IMAGE_MARK
