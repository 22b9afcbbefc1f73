"""What a chat prints. Nothing that a model, a file or a server says can steer the terminal: see `printable`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

from PIL import Image as PilImage
from rich.console import Console
from rich.text import Text

from llava_lite.chat.preview import draw, supported

# Unicode has pictures of the first control characters
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_VISIBLE |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def printable(text: str) -> str:
    """Make control characters visible, newlines and tabs excepted, so that no text holds an escape sequence."""
    return text.translate(_VISIBLE)


def print_answer(pieces: Iterable[str], out: TextIO) -> None:
    """Print an answer and a newline: into a terminal as it comes and made printable, else whole and as it is."""
    for text in map(printable, pieces) if out.isatty() else ["".join(pieces)]:
        print(text, end="", file=out, flush=True)
    print(file=out)


class Screen:
    """Answers, and what is asked for, go to standard output; errors to standard error; notes only to a person.

    interactive: a person reads along
    """

    def __init__(self, *, interactive: bool, environ: Mapping[str, str]) -> None:
        self.interactive = interactive
        self.num_errors = 0
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._kind = supported(self._console, environ) if interactive else None

    @property
    def styled(self) -> bool:
        """Whether the terminal knows bold letters and may show them."""
        return self.interactive and self._console.color_system is not None and not self._console.no_color

    def piece(self, text: str) -> None:
        """Print a piece of an answer at once; as it is where it does not go to a terminal."""
        print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)

    def tell(self, text: str) -> None:
        """Print what was asked for."""
        _print(self._console, Text(printable(text)))

    def note(self, text: str) -> None:
        """Print what a person may want to know."""
        if self.interactive:
            _print(self._console, Text(printable(text), "dim"))

    def error(self, message: str) -> None:
        """Print what went wrong, in one line."""
        self.num_errors += 1
        text = Text.assemble(("error: ", "red"), " ".join(printable(message).split()))
        _print(self._errors, text)

    def picture(self, image: PilImage.Image, caption: str) -> None:
        """Draw an image where the terminal can, and note what it is."""
        if self._kind is not None:
            draw(image, self._kind, self._console)
        self.note(caption)


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=not console.is_terminal)  # in a file a line stays a line
