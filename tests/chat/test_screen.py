"""What reaches the terminal: answers without their control characters, and pictures as its environment allows."""

import base64
import io
import re

import pytest
from PIL import Image as PilImage
from rich.console import Console

from llava_lite.chat.preview import draw, supported
from llava_lite.chat.screen import print_answer, printable

HOSTILE = ["\x1b]52;c;cm0=\a\x1b", "[2J\x9b1mred\r\x7f\x08", "日本\t🦙\n"]


class Tty(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_an_answer_cannot_steer_the_terminal() -> None:
    out = Tty()
    print_answer(HOSTILE, out)
    assert out.getvalue() == "␛]52;c;cm0=␇␛[2J�1mred␍␡␈日本\t🦙\n\n"
    shown = printable("".join(map(chr, range(0x100))))
    assert [letter for letter in shown if not letter.isprintable() and letter not in "\xa0\xad"] == ["\t", "\n"]


def test_an_answer_into_a_file_is_as_it_is() -> None:
    out = io.StringIO()
    print_answer(HOSTILE, out)
    assert out.getvalue() == "".join(HOSTILE) + "\n"


def terminal(color_system: str | None = "truecolor", width: int = 80, **options) -> Console:
    return Console(
        file=Tty(), force_terminal=True, color_system=color_system, width=width, height=50, _environ={}, **options
    )


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1", "TERM_PROGRAM": "vscode"}, "blocks"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, "blocks"),
        ({"TERM": "xterm-256color"}, "blocks"),
    ],
)
def test_how_pictures_are_drawn_follows_from_the_environment(environ: dict[str, str], kind: str) -> None:
    assert supported(terminal(), environ) == kind


def test_no_picture_is_drawn_without_a_terminal_or_colors() -> None:
    kitty = {"TERM": "xterm-kitty"}
    assert supported(Console(file=io.StringIO(), _environ={}), kitty) is None
    assert supported(terminal(no_color=True), kitty) is None
    assert supported(Console(file=Tty(), force_terminal=True, _environ={"TERM": "dumb"}), kitty) is None
    assert supported(terminal("standard"), {"TERM": "xterm"}) is None


def drawn(image: PilImage.Image, kind, **options) -> str:
    console = terminal(**options)
    draw(image, kind, console)
    return console.file.getvalue()


def test_half_blocks_show_every_pixel() -> None:
    image = PilImage.new("RGB", (3, 4))
    image.putdata([(x * 80, y * 60, 7) for y in range(4) for x in range(3)])
    rows = drawn(image, "blocks").splitlines()
    pixel = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")
    cells = [[tuple(map(int, cell)) for cell in pixel.findall(row)] for row in rows]
    assert cells == [[(x * 80, y * 60, 7, x * 80, y * 60 + 60, 7) for x in range(3)] for y in (0, 2)]


@pytest.mark.parametrize("size", [(64, 64), (10_000, 50), (50, 10_000), (1, 1), (4000, 3000)])
@pytest.mark.parametrize("width", [1, 20, 200])
def test_a_picture_keeps_within_the_terminal(size: tuple[int, int], width: int) -> None:
    rows = drawn(PilImage.new("RGB", size), "blocks", width=width).splitlines()
    assert 1 <= len(rows) <= 14
    assert {row.count("▀") for row in rows} == {rows[0].count("▀")}
    assert 1 <= rows[0].count("▀") <= min(width, 40)


def test_kitty_gets_a_png_in_chunks_and_must_not_answer() -> None:
    image = PilImage.effect_noise((300, 200), 90).convert("RGB")
    written = drawn(image, "kitty")
    commands = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", written)
    assert len(commands) > 1 and all(len(data) <= 4096 and "q=2" in keys for keys, data in commands)
    assert commands[0][0] == "a=T,f=100,c=40,q=2,m=1" and commands[-1][0] == "q=2,m=0"
    png = base64.b64decode("".join(data for _, data in commands))
    assert PilImage.open(io.BytesIO(png)).convert("RGB").tobytes() == image.tobytes()
    assert re.sub(r"\x1b_G[^\x1b]*\x1b\\", "", written) == "\n"


def test_iterm2_gets_a_small_png() -> None:
    written = drawn(PilImage.new("RGB", (3000, 2000), "red"), "iterm2")
    head, size, data = re.fullmatch(r"\x1b\]1337;File=(inline=1;size=(\d+)[^:]*):(.*)\x07\n", written).groups()
    png = base64.b64decode(data)
    assert "width=40" in head and len(png) == int(size)
    assert PilImage.open(io.BytesIO(png)).size == (800, 533)
