"""What a line means: a command that begins with a slash, or a message."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llava_lite.chat.talk import Talk
from llava_lite.chat.transcript import save
from llava_lite.config import nearest
from llava_lite.generation.chat_model import Sampling, TooLong


class CommandError(ValueError):
    """A command that does not exist, or that cannot be followed."""


@dataclass(frozen=True)
class Command:
    """One command.

    follow:    does it, with what stands behind its name
    argument:  how that is called
    told:      what `/help` says
    completes: words that may stand behind its name; None: names of files
    """

    follow: Callable[[Talk, str], None]
    argument: str
    told: str
    completes: Sequence[str] | None = ()


def take(talk: Talk, line: str) -> None:
    """Answer a message or follow a command, and tell what goes wrong: the chat goes on."""
    try:
        if not line.startswith("/") or line.startswith("//"):
            if line.strip():
                talk.ask(line[1:] if line.startswith("//") else line)
            return
        name, rest = _first_word(line[1:])
        if name not in COMMANDS:
            known = nearest(name, list(COMMANDS))
            remedy = f"did you mean /{known}?" if known else "see /help"
            raise CommandError(f"/{name}: no such command; {remedy} (a message that begins with / begins with //)")
        COMMANDS[name].follow(talk, rest.rstrip())
    except TooLong as error:
        talk.screen.error(f"{error}; /reset forgets the dialogue, /undo its last turn")
    except (ValueError, RuntimeError) as error:  # a RuntimeError is a device's, such as being out of memory
        talk.screen.error(str(error))


def _image(talk: Talk, rest: str) -> None:
    if rest:
        talk.attach(_paths(rest))
    elif talk.images:
        talk.screen.tell("\n".join(map(str, talk.images)))
    else:
        talk.screen.tell("no image is attached; /image FILE attaches one")


def _undo(talk: Talk, rest: str) -> None:
    talk.screen.note(f"took back {talk.take_back()}")


def _regenerate(talk: Talk, rest: str) -> None:
    if not talk.ask_again():
        raise CommandError("/regenerate: nothing was answered yet; ask something first")


def _reset(talk: Talk, rest: str) -> None:
    talk.start_anew()
    talk.screen.note("a new dialogue" + (", with the same system text" if talk.conversation.system is not None else ""))


def _system(talk: Talk, rest: str) -> None:
    talk.conversation = replace(talk.conversation, system=rest or None)
    talk.screen.note("the system text is set" if rest else "the system text is the model's own")


def _set(talk: Talk, rest: str) -> None:
    name, value = _first_word(rest)
    settings = asdict(talk.sampling)
    if not rest:
        talk.screen.tell("\n".join(f"{name} {_shown(value)}" for name, value in settings.items()))
        return
    if name not in settings:
        known = nearest(name, list(settings))
        remedy = f"did you mean {known}?" if known else f"known: {', '.join(settings)}"
        raise CommandError(f"/set {name}: no such setting; {remedy}")
    talk.sampling = replace(talk.sampling, **{name: _value(name, value, type(settings[name]))})
    talk.screen.note(f"{name} {_shown(asdict(talk.sampling)[name])}")


def _shown(value: object) -> str:
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def _value(name: str, text: str, kind: type) -> Any:
    if kind is tuple:
        return tuple(_words(text))
    try:
        return kind(text)
    except ValueError:
        raise CommandError(f"/set {name}: should be {'a whole' if kind is int else 'a'} number, not {text!r}") from None


def _save(talk: Talk, rest: str, *, overwrite: bool = False) -> None:
    paths = _paths(rest)
    if len(paths) != 1:
        raise CommandError("/save: name one file; .md gives Markdown, any other JSON")
    if not talk.conversation.messages:
        raise CommandError("/save: nothing was said yet")
    save(talk.conversation, paths[0], model=talk.model.name, overwrite=overwrite)
    talk.screen.note(f"saved {paths[0]}")


def _save_over(talk: Talk, rest: str) -> None:
    _save(talk, rest, overwrite=True)


def _help(talk: Talk, rest: str) -> None:
    rows = [(f"/{name} {command.argument}", command.told) for name, command in COMMANDS.items()]
    width = max(len(name) for name, _ in (*rows, *KEYS))
    talk.screen.tell("\n".join(f"{name:<{width}}  {told}" for name, told in (*rows, *KEYS)))


def _quit(talk: Talk, rest: str) -> None:
    talk.over = True


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1) or [""]
    return word, "".join(rest)


def _paths(text: str) -> list[Path]:
    """Read names of files as a shell does: quotes and backslashes; a file that is called like all of it is meant."""
    whole = os.path.isfile(os.path.expanduser(text))
    return [Path(word).expanduser() for word in ([text] if whole else _words(text))]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise CommandError(f"{text}: {str(error).lower()}; put names with blanks or quotes between quotes") from None


COMMANDS = {
    "image": Command(_image, "FILE ...", "attach images to the next message; alone, list them", completes=None),
    "undo": Command(_undo, "", "take back the attached images or, where none is, the last question and answer"),
    "regenerate": Command(_regenerate, "", "answer the last question again, with the next seed"),
    "reset": Command(_reset, "", "forget the dialogue; the system text stays"),
    "system": Command(_system, "TEXT", "set the system text; alone, go back to the model's own"),
    "set": Command(
        _set, "NAME VALUE", "as temperature 0.7; alone, list all settings", completes=tuple(asdict(Sampling()))
    ),
    "save": Command(
        _save, "FILE", "write the dialogue: Markdown into .md, else JSON that can be trained on", completes=None
    ),
    "save!": Command(_save_over, "FILE", "the same, over a file that is there", completes=None),
    "help": Command(_help, "", "this"),
    "quit": Command(_quit, "", "leave"),
}
KEYS = (
    ("//...", "a message that begins with a slash"),
    ('"""', "begins and ends a message of several lines"),
    ("Ctrl-C", "stops an answer, which is kept as far as it came; at the prompt, twice, leaves"),
    ("Ctrl-D", "leaves"),
)
