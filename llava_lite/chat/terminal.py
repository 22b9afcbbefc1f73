"""`llava-lite chat`: read a line, answer it, until there is no more."""

from __future__ import annotations

import io
import os
import sys

from llava_lite.chat.commands import COMMANDS, take
from llava_lite.chat.keyboard import BlockError, Keyboard
from llava_lite.chat.screen import Screen
from llava_lite.chat.talk import Talk
from llava_lite.generation.chat_model import ChatModel, Sampling


def chat(model: ChatModel, *, sampling: Sampling = Sampling(), system: str | None = None, verbose: bool = False) -> int:
    """Talk with a model until the user leaves, and return the exit code.

    In a terminal mistakes are told and the code is 0. Where standard input or output is none, nothing but the answers
    goes to standard output, and the code is 1 if anything failed; an interruption then ends all, as KeyboardInterrupt.
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a letter that this terminal does not have is no reason to end
    screen = Screen(interactive=interactive, environ=os.environ)
    arguments = {name: command.completes for name, command in COMMANDS.items()}
    keyboard = Keyboard(arguments, screen=screen, environ=os.environ)
    talk = Talk(model, screen, sampling=sampling, system=system, verbose=verbose)
    screen.note(f"{model.name}\n/image FILE attaches an image, /help lists the rest, Ctrl-D leaves")
    while not talk.over:
        try:
            line = keyboard.read(_prompt(len(talk.images)))
            if line is None:
                break
            take(talk, line)
        except BlockError as error:
            screen.error(str(error))
        except KeyboardInterrupt:
            if not interactive:
                raise
            screen.note("\ninterrupted")
    return 0 if interactive else int(screen.num_errors > 0)


def _prompt(num_images: int) -> str:
    return f"[{num_images} image{'s' * (num_images > 1)}] >>> " if num_images else ">>> "
