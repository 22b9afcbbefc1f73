"""What a person types, with history and completion, or a pipe brings: lines, blocks of lines, and the wish to leave.

A block stands between two lines that are `\"""`. It is never a command, so its leading slash comes doubled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava_lite.chat.screen import Screen

BLOCK = '"""'
HISTORY_LENGTH = 1000

Arguments = Mapping[str, "Sequence[str] | None"]
"""Of each command the words that may follow it; None: names of files."""


class BlockError(ValueError):
    """A block of lines that does not end."""


class Keyboard:
    """Reads from standard input; with readline where a person types."""

    def __init__(self, arguments: Arguments, *, screen: Screen, environ: Mapping[str, str]) -> None:
        self._screen = screen
        self._history = _edit_lines(arguments, history_path(environ)) if screen.interactive else None

    def read(self, prompt: str) -> str | None:
        """Return the next message or command; None at the end of the input and where the user interrupts it twice.

        Raises BlockError, and KeyboardInterrupt where nobody types.
        """
        interrupted = False
        while True:
            try:
                line = self._read(prompt)
                self._remember()
                return line
            except EOFError:
                self._screen.note("")
                return None
            except KeyboardInterrupt:
                if not self._screen.interactive:
                    raise
                self._screen.note("" if interrupted else "\nCtrl-C again or Ctrl-D leaves")
                if interrupted:
                    return None
                interrupted = True

    def _read(self, prompt: str) -> str:
        line = self._line(prompt)
        if line.strip() != BLOCK:
            return line
        lines: list[str] = []
        try:
            while (line := self._line("... ")).strip() != BLOCK:
                lines.append(line)
        except EOFError:
            raise BlockError('the input ends within a block of lines; close it with """') from None
        text = "\n".join(lines)
        return f"/{text}" if text.startswith("/") else text

    def _line(self, prompt: str) -> str:
        if not self._screen.interactive:
            return input()
        return input(f"\001\033[1m\002{prompt}\001\033[0m\002" if self._screen.styled else prompt)

    def _remember(self) -> None:
        if self._history is not None:
            import readline

            try:  # after each line, for a terminal may be closed at any time
                readline.write_history_file(self._history)
            except OSError:
                self._history = None


def history_path(environ: Mapping[str, str]) -> Path | None:
    """Return where the lines of earlier chats are kept (XDG Base Directory Specification); None without a home."""
    home = Path(os.path.expanduser("~")) / ".local" / "state"
    folders = [folder for folder in (Path(environ.get("XDG_STATE_HOME", "")), home) if folder.is_absolute()]
    return folders[0] / "llava_lite" / "chat_history" if folders else None


def _edit_lines(arguments: Arguments, history: Path | None) -> Path | None:
    """Give `input` its keys; return the file of the history, None where there can be none."""
    try:
        import readline
    except ImportError:  # as on Windows
        return None
    libedit = "libedit" in (readline.__doc__ or "")  # as on macOS
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    if not libedit:
        readline.parse_and_bind("set enable-bracketed-paste on")  # lines that are pasted are one message
    readline.set_completer_delims(" \t\n")
    found: list[str] = []

    def next_completion(text: str, number: int) -> str | None:
        if number == 0:
            found[:] = complete(readline.get_line_buffer()[: readline.get_endidx()], readline.get_begidx(), arguments)
        return found[number] if number < len(found) else None

    readline.set_completer(next_completion)
    if history is None:
        return None
    try:
        history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        history.touch(mode=0o600)
        readline.read_history_file(history)
    except OSError:
        return None
    readline.set_history_length(HISTORY_LENGTH)
    return history


def complete(line: str, begin: int, arguments: Arguments) -> list[str]:
    """Return what may stand in a line from `begin` on, where its last word begins; the cursor is at its end."""
    command, space, rest = line.partition(" ")
    if not space:
        return [f"/{name} " for name in arguments if line.startswith("/") and f"/{name}".startswith(line)]
    words = arguments.get(command.removeprefix("/"), ()) if command.startswith("/") else ()
    if words is not None:
        return [f"{word} " for word in words if word.startswith(line[begin:])]
    start, quote, path = _last_argument(rest)
    start += len(command) + 1
    given = line[start:begin]
    names = [_written(name, quote) for name in _files(path)]
    return [name[len(given) :] for name in names if name.startswith(given)]


def _last_argument(text: str) -> tuple[int, str, str]:
    """Return where the last argument begins, the quote that is open in it or "", and what it means."""
    start, quote, path, escaped = 0, "", "", False
    for i, letter in enumerate(text):
        if escaped or (quote and letter not in (quote, "\\")):
            path, escaped = path + letter, False
        elif letter == "\\":
            escaped = True
        elif letter in "\"'":
            quote = "" if quote else letter
        elif letter == " ":
            start, path = i + 1, ""
        else:
            path += letter
    return start, quote, path


def _files(path: str) -> list[str]:
    """Return the files and folders that begin so; hidden ones only where the dot is typed."""
    folder, slash, prefix = path.rpartition("/")
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder + slash) or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    return [
        f"{folder}{slash}{entry.name}{'/' * entry.is_dir()}"
        for entry in entries
        if entry.name.startswith(prefix) and (prefix or not entry.name.startswith("."))
    ]


def _written(path: str, quote: str) -> str:
    """Write a path as an argument, in the quotes that are open or with backslashes."""
    special = f"{quote}\\" if quote else " \t\"'\\"
    text = "".join(f"\\{letter}" if letter in special else letter for letter in path)
    return quote + text + ("" if path.endswith("/") else quote or " ")
