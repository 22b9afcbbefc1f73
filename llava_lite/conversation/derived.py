"""A tokenizer's own chat template (Jinja) as a ChatTemplate: its strings are read off conversations of known words.

Jinja can do what fixed strings cannot (write into the last answer alone, drop thoughts, move words). So the strings
that were read are then held against the template's own text of other conversations, and whatever differs is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from llava_lite.conversation.families import TEMPLATES
from llava_lite.conversation.message import Conversation, ConversationError, Image
from llava_lite.conversation.template import IMAGE_MARK, ChatTemplate

Render = Callable[[list[dict[str, Any]], bool], str]
"""Chat messages, and whether the assistant's header shall follow them -> text."""

_Q1, _A1, _Q2, _A2, _SYSTEM = "Probe1q", "Probe1a", "Probe2q", "Probe2a", "Probe0s"
# Words that a template might change: white space at the ends, line breaks, marks that it might look for.
_TURNS = (
    ("What is it?", "A cat."),
    ("12 + 30 = {}", "42"),
    ("two\nlines\n\n& <b>\"marks\"</b> 'too'", "one\ntwo"),
    ("  spaces around \n", "\n spaces around  "),
    ("and?", "<think>\nwell\n</think>\n\nyes"),
)
_SYSTEMS = ("Be brief.", "\n Be\nbrief. ")
_IMAGE = Image(None)  # written, never opened


def derive_template(
    name: str, render: Render, bos_token: str | None, *, image_token: str | None = None
) -> ChatTemplate:
    """Read a template's strings off what `render` writes; `bos` of the result says whether it writes `bos_token` first.

    A system text that it refuses, or writes in no fixed place, gets no place. Raises ConversationError where fixed
    strings do not give the same text, and says what differs.

    image_token: what it writes for an image, where it is a processor's: messages then hold lists of texts and images,
    as transformers' processors take them. A turn's images come first and a newline follows each, or it is refused;
    turns of images alone, or with images between words, are not compared.
    """
    source = _Source(render, bos_token, image_token)
    template = _read_turns(name, source)
    if image_token is not None:
        template = _read_image(template, source)
    template = replace(template, bos=source.bos)
    attempts = []
    for attempt in (template, replace(template, trim=True)):
        agreed, difference = _compare(attempt, source, [None], images=(0,) if image_token is None else (0, 1, 2))
        if not difference:
            return _with_system(attempt, source)
        attempts.append((agreed, difference))
    raise _refusal(max(attempts, key=lambda attempt: attempt[0])[1])


class _Source:
    """What the template itself writes, a leading BOS taken off."""

    def __init__(self, render: Render, bos_token: str | None, image_token: str | None) -> None:
        self.render = render
        self.image_token = image_token
        self.bos_token = bos_token or ""
        self.bos = False
        self.bos = bool(bos_token) and self.write(Conversation().ask(_Q1)).startswith(self.bos_token)

    def write(self, conversation: Conversation) -> str:
        messages = [{"role": "system", "content": self._content([conversation.system])}] if conversation.system else []
        messages += [
            {"role": message.role, "content": self._content(message.content)} for message in conversation.messages
        ]
        try:
            text = self.render(messages, conversation.awaits_answer)
        except Exception as error:  # a template may raise anything
            raise _refusal(f"it fails ({error})") from error
        if self.bos and not text.startswith(self.bos_token):
            raise _refusal(f"it begins with {self.bos_token!r} only at times")
        text = text.removeprefix(self.bos_token) if self.bos else text
        return text.replace(self.image_token, IMAGE_MARK) if self.image_token else text

    def _content(self, parts: Sequence[str | Image]) -> str | list[dict[str, str]]:
        if self.image_token is None:
            return "".join(part for part in parts if isinstance(part, str))
        return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]

    def cut(self, conversation: Conversation, *words: str) -> list[str]:
        """Write a conversation and return the strings around these words."""
        rest = self.write(conversation)
        pieces = []
        for word in words:
            if rest.count(word) != 1:
                raise _refusal(f"it does not write every turn once and in order: {_short(rest)}")
            piece, rest = rest.split(word)
            pieces.append(piece)
        if any("{}" in piece for piece in (*pieces, rest)):
            raise _refusal("it writes {} itself")
        return [*pieces, rest]


def _read_turns(name: str, source: _Source) -> ChatTemplate:
    """Split the strings around two rounds. Where they differ from round to round a guess will do: it is compared."""
    one_round = Conversation().ask(_Q1)
    two_rounds = one_round.answer(_A1).ask(_Q2).answer(_A2)
    _, header = source.cut(one_round, _Q1)
    before, answering, between_rounds, _, after = source.cut(two_rounds, _Q1, _A1, _Q2, _A2)
    header = _shared(header, answering)
    end = _shared(after, between_rounds)
    if not end:
        raise _refusal("nothing closes an answer that comes last")
    between = between_rounds[len(end) :]
    user = _shared(before[::-1], between[::-1])[::-1]
    return ChatTemplate(
        name=name,
        user=f"{user}{{}}{header}",
        answer=f"{answering.removeprefix(header)}{{}}{end}",
        opening=before.removesuffix(user),
        between=between.removesuffix(user),
    )


def _read_image(template: ChatTemplate, source: _Source) -> ChatTemplate:
    """Read what stands around an image; the newline before the words is written by every template of ours."""
    words_alone, _ = source.cut(Conversation().ask(_Q1), _Q1)
    before, after, _ = source.cut(Conversation().ask(_Q1, [_IMAGE]), IMAGE_MARK, _Q1)
    if not before.startswith(words_alone) or not after.endswith("\n"):
        raise _refusal(
            f"it writes {_short(before + IMAGE_MARK + after)} where a turn's image comes first, then a newline"
        )
    return replace(template, image=f"{before.removeprefix(words_alone)}{{}}{after[:-1]}")


def _with_system(template: ChatTemplate, source: _Source) -> ChatTemplate:
    """Return the template with a place for a system text, if it has one."""
    try:
        before, after, _ = source.cut(replace(Conversation().ask(_Q1), system=_SYSTEM), _SYSTEM, _Q1)
        for found in (_inside_user(template, before, after), _before_user(template, before, after)):
            if found and not _compare(found, source, [None, *_SYSTEMS])[1]:
                return found
    except ConversationError:  # it refuses a system text
        pass
    return template


def _before_user(template: ChatTemplate, before: str, after: str) -> ChatTemplate | None:
    user, _ = template.user.split("{}")
    if not after.endswith(user):
        return None
    return _own_system(replace(template, system=f"{before}{{}}{after.removesuffix(user)}"))


def _inside_user(template: ChatTemplate, before: str, after: str) -> ChatTemplate | None:
    """What a later round begins with stands before the system text."""
    user, header = template.user.split("{}")
    later = template.between + user
    start = next((i for i in range(len(later)) if before.startswith(later[i:])), len(later))
    inner = later[start:]
    if not inner:
        return None
    return _own_system(
        replace(
            template,
            user=f"{inner}{{}}{header}",
            system=f"{before.removeprefix(inner)}{{}}{after}",
            system_in_user=True,
            opening=(template.opening + user).removeprefix(inner),
            between=later[:start],
        )
    )


def _own_system(template: ChatTemplate) -> ChatTemplate:
    """Find the template's own system text in its opening."""
    before, after = template.system.split("{}")
    text = template.opening.removeprefix(before).removesuffix(after)
    if text and before + text + after == template.opening:
        return replace(template, opening="", system_text=text)
    return template


def _compare(
    template: ChatTemplate, source: _Source, systems: Sequence[str | None], images: Sequence[int] = (0,)
) -> tuple[int, str]:
    """Hold a template against its source: how many conversations agree, and how the first other one differs.

    images: how many come first in each turn
    """
    agreed = 0
    for system, num_images in product(systems, images):
        conversation = Conversation(system=system)
        for question, answer in _TURNS:
            conversation = conversation.ask(question, [_IMAGE] * num_images)
            for probe in (conversation, conversation.answer(answer)):
                ours, theirs = template.render(probe).text, source.write(probe)
                if ours != theirs:
                    return agreed, _difference(ours, theirs)
                agreed += 1
            conversation = conversation.answer(answer)
    return agreed, ""


def _difference(ours: str, theirs: str) -> str:
    start = max(0, len(_shared(ours, theirs)) - 20)
    return f"it writes {_short(theirs[start:])} where fixed strings give {_short(ours[start:])}"


def _shared(a: str, b: str) -> str:
    """Return what both begin with."""
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _refusal(what: str) -> ConversationError:
    return ConversationError(
        f"the tokenizer's own chat template cannot be written as fixed strings around the turns: {what}; "
        f"choose one of the table: {', '.join(sorted(TEMPLATES))}"
    )
