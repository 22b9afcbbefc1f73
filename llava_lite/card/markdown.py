"""Text of others, and tables, in Markdown as the Hub shows it: what somebody named a file must not become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"([\\`*\[\]<>|~&$#!@]|(?<![^\W_])_|_(?![^\W_]))")  # within a word, _ is none
_PATH = re.compile(r"[^\s'\"(),;]*[/\\]([^\s/\\'\"(),;]*)")


def escape(text: object) -> str:
    """Write somebody's text as it is, on one line."""
    printable = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return _MARKUP.sub(r"\\\1", " ".join(printable.split()))


def names_only(text: str, folders: Iterable[str] = ()) -> str:
    """Take out of a message where a machine has its files: of paths and addresses the last name stays.

    folders: known ones, which may have spaces in their names
    """
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(f"{folder.rstrip('/')}/", "")
    return _PATH.sub(r"\1", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a table of cells that are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
