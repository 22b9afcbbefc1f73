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

    user:           ends with the assistant's header, so that a prompt that ends with a question is ready to be answered
    answer:         learnt, with what closes it
    system:         around a system text; "": no place for one
    system_text:    the template's own system text
    system_in_user: the system text stands inside the first user turn, before its words (Llama 2)
    opening:        stands at the start where there is no system text
    between:        stands before each round but the first
    image:          around each image
    user_text:      False drops the user's words and keeps the images (LLaVA's stage-one format)
    trim:           drops white space around the words of every turn and of the system text
    bos:            whether the text stands behind a BOS token; None: as the tokenizer does it
    """

    name: str
    user: str
    answer: str
    system: str = ""
    system_text: str = ""
    system_in_user: bool = False
    opening: str = ""
    between: str = ""
    image: str = "{}"
    user_text: bool = True
    trim: bool = False
    bos: bool | None = None

    def __post_init__(self) -> None:
        for text in (self.user, self.answer, self.image, self.system or "{}"):
            if text.count("{}") != 1:
                raise ConversationError(
                    f"template {self.name!r}: {text!r} must say once, with {{}}, where the words go"
                )

    def most_markup(self, num_messages: int, num_images: int) -> int:
        """Return a number of characters that what is written around so many turns and images does not exceed."""
        a_round = len(self.user + self.answer + self.between)
        an_image = len(self.image + IMAGE_MARK) + 1
        return len(self.system + self.opening) + num_messages * a_round + num_images * an_image

    @property
    def end(self) -> str:
        """What closes an answer."""
        return self.answer.split("{}")[1]

    def check(self, conversation: Conversation) -> str:
        """Return the system text that is written. Raises ConversationError where this template cannot express all."""
        if not conversation.messages:
            raise ConversationError("the conversation is empty; ask something first")
        system = self.system_text if conversation.system is None else conversation.system
        if system and not self.system:
            raise ConversationError(f"template {self.name!r} has no place for a system text; leave it out")
        if not self.user_text and not all(m.images for m in conversation.messages if m.role == "user"):
            raise ConversationError(f"template {self.name!r} needs an image in every user turn")
        return system

    def render(self, conversation: Conversation) -> Prompt:
        """Write the conversation down. Raises ConversationError as `check` does."""
        system = self.check(conversation)
        writer = _Writer(self.trim)
        if not system:
            writer.markup(self.opening)
        elif not self.system_in_user:
            writer.around(self.system, system)
        for i, message in enumerate(conversation.messages):
            if message.role == "user":
                writer.markup(self.between if i else "")
                self._write_user(writer, message, system if self.system_in_user and not i else "")
            else:
                start = len(writer.text)
                writer.around(self.answer, message.text)
                writer.answers.append((start, len(writer.text)))
        return Prompt(writer.text, tuple(writer.answers), tuple(writer.words), tuple(writer.images))

    def _write_user(self, writer: _Writer, message: Message, system: str) -> None:
        before, after = self.user.split("{}")
        writer.markup(before)
        if system:
            writer.around(self.system, system)
        before_image, after_image = self.image.split("{}")
        parts = message.content if self.user_text else message.images
        for i, part in enumerate(parts):
            if isinstance(part, str):
                writer.content(part, first=i == 0, last=i + 1 == len(parts))
            else:
                writer.markup(before_image)
                writer.image(part)
                writer.markup(after_image)
                if self.user_text and i < message.num_leading_images and i + 1 < len(parts):
                    writer.markup("\n")
        writer.markup(after)


class _Writer:
    """The text so far, and the spans in it."""

    def __init__(self, trim: bool) -> None:
        self.trim = trim
        self.text = ""
        self.answers: list[Span] = []
        self.words: list[Span] = []
        self.images: list[tuple[Span, Image]] = []

    def markup(self, text: str) -> None:
        self.text += text

    def around(self, template: str, words: str) -> None:
        before, after = template.split("{}")
        self.markup(before)
        self.content(words)
        self.markup(after)

    def content(self, text: str, *, first: bool = True, last: bool = True) -> None:
        """Write people's words; first, last: whether they begin or end their turn."""
        if self.trim:
            text = text.lstrip() if first else text
            text = text.rstrip() if last else text
        self.words.append((len(self.text), len(self.text) + len(text)))
        self.text += text

    def image(self, image: Image) -> None:
        self.images.append(((len(self.text), len(self.text) + len(IMAGE_MARK)), image))
        self.text += IMAGE_MARK
