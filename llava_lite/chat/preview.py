"""A small view of an image in the terminal, by the best way that the environment vouches for.

The terminal is never asked: one that does not know the question may not answer, or print it. So there is no sixel,
which its environment does not give away.

    kitty graphics   https://sw.kovidgoyal.net/kitty/graphics-protocol/
    iTerm2 images    https://iterm2.com/documentation-images.html
    half blocks      two pixels a character, in the colours that there are
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Literal

from PIL import Image as PilImage
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

MAX_COLUMNS = 40
MAX_ROWS = 14
VIEW_SIZE = (MAX_COLUMNS * 20, MAX_ROWS * 40)
"""The most pixels that are shown: a character has 20 x 40 on a fine screen."""

Kind = Literal["kitty", "iterm2", "blocks"]

_KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
_ITERM2_PROGRAMS = ("iTerm.app", "WezTerm", "mintty")
_CHUNK = 4096  # the longest payload of one kitty command


def supported(console: Console, environ: Mapping[str, str]) -> Kind | None:
    """Return how images can be drawn there; None where they cannot, or where no colours are wanted."""
    if not console.is_terminal or console.is_dumb_terminal or console.no_color:
        return None
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" not in environ and not term.startswith(("screen", "tmux")):  # which do not pass images through
        # a program that was started from kitty's window inherits its number
        if term in _KITTY_TERMS or ("KITTY_WINDOW_ID" in environ and program in ("", "kitty")):
            return "kitty"
        if program in _ITERM2_PROGRAMS or environ.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    many_colors = console.color_system in ("truecolor", "256")
    return "blocks" if many_colors and console.encoding.startswith("utf") else None


def draw(image: PilImage.Image, kind: Kind, console: Console) -> None:
    """Draw an RGB image within MAX_COLUMNS x MAX_ROWS characters and half the terminal's height."""
    columns, rows = _fit(image.size, min(MAX_COLUMNS, console.width), min(MAX_ROWS, max(1, console.height // 2)))
    if kind == "blocks":
        console.print(_blocks(image.resize((columns, 2 * rows), reducing_gap=2.0)), soft_wrap=True)
        return
    small = image.copy()
    small.thumbnail(VIEW_SIZE)
    file = io.BytesIO()
    small.save(file, "PNG")
    written = _kitty(file.getvalue(), columns) if kind == "kitty" else _iterm2(file.getvalue(), columns)
    console.file.write(f"{written}\n")
    console.file.flush()


def _fit(size: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """Return columns and rows of an image, whose characters are twice as high as wide; it is not made larger."""
    width, height = size
    scale = min(columns / width, 2 * rows / height, 1)
    return max(1, round(width * scale)), max(1, round(height * scale / 2))


def _blocks(image: PilImage.Image) -> Text:
    text = Text()
    for y in range(0, image.height, 2):
        text.append("\n" if y else "")
        for x in range(image.width):
            above, below = (Color.from_rgb(*_rgb(image, x, row)) for row in (y, y + 1))
            text.append("▀", Style(color=above, bgcolor=below))
    return text


def _rgb(image: PilImage.Image, x: int, y: int) -> tuple[int, int, int]:
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


def _kitty(png: bytes, columns: int) -> str:
    return "".join(_kitty_commands(base64.b64encode(png).decode(), columns))


def _kitty_commands(data: str, columns: int) -> Iterator[str]:
    for start in range(0, len(data), _CHUNK):
        what = "" if start else f"a=T,f=100,c={columns},"
        more = int(start + _CHUNK < len(data))
        # q=2: it must not answer, for that would be read as if it were typed
        yield f"\x1b_G{what}q=2,m={more};{data[start : start + _CHUNK]}\x1b\\"


def _iterm2(png: bytes, columns: int) -> str:
    data = base64.b64encode(png).decode()
    return f"\x1b]1337;File=inline=1;size={len(png)};width={columns};preserveAspectRatio=1:{data}\a"
