"""A real process in a real pseudo-terminal, typed into and read from as a person does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from types import TracebackType

ESCAPES = re.compile(r"\x1b\[\?2004l\r|\x1b\[[0-9;?]*[a-zA-Z]")  # the first: what readline ends a line with


def _as_a_login_does() -> None:
    """Make Ctrl-C reach this process: by its terminal, and where the tests run as `pytest &` in a script, for which
    shells ignore the signal, by minding it again (POSIX, Shell Command Language, 2.12)."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class PseudoTerminal:
    """`llava-lite ARGUMENTS` with a terminal of its own, of 200 columns."""

    def __init__(self, *arguments: str, environ: Mapping[str, str]) -> None:
        self.seen = ""
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from llava_lite.cli import main; main()", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "COLUMNS": "", "LINES": "", **environ},  # the size is the terminal's
            start_new_session=True,
            preexec_fn=_as_a_login_does,
        )
        os.close(inner)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def interrupt(self, told: str) -> str:
        """Press Ctrl-C until a text is shown: Python's `input` overlooks it in the moment before it waits for a key.

        All that was typed must have been shown before. Ctrl-C makes a terminal forget keys that nobody has read yet,
        and where `input` was just told of one, it waits for the next, whatever the signals (CPython 3.11, readline.c).
        """
        for _ in range(6):
            self.type("\x03")
            with contextlib.suppress(TimeoutError):
                return self.wait_for(told, seconds=3)
        raise TimeoutError(f"pressed Ctrl-C six times, and {told!r} was not shown")

    def wait_for(self, text: str, *, seconds: float = 60) -> str:
        """Return all that is shown up to and with a text, without colours; it counts as read."""
        deadline = time.monotonic() + seconds
        while text not in ESCAPES.sub("", self.seen):
            ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self._end, 65536).decode(errors="replace")
        before, _, self.seen = ESCAPES.sub("", self.seen).partition(text)
        return before.replace("\r\n", "\n") + text

    def say(self, line: str) -> str:
        """Type a line at the prompt and return what is shown until the next prompt."""
        self.type(f"{line}\n")
        self.wait_for(f"{line}\r\n")
        return self.wait_for(">>> ").removesuffix(">>> ")

    def leave(self) -> int:
        """Wait for the end of the process, which must be leaving, and return its exit code."""
        while True:
            try:
                if not (read := os.read(self._end, 65536)):
                    break
            except OSError:  # how Linux says that nobody holds the other end
                break
            self.seen += read.decode(errors="replace")
        return self.process.wait(timeout=60)
