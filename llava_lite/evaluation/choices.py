"""What an answer chose: a letter among options, or yes or no. Readings that more than one benchmark shares.

They are strict: what an answer does not say beyond doubt, it does not say. The official readings, which guess, stand in
the files of their benchmarks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

# a letter that the answer begins with: "B", "(B)", "**B.**", "B) a cat"; not "A cat"
_LEADING = re.compile(r"[\s(\[*\"']*([A-Z])(?:[.):\]*]|[\s\"',]*$)")
# a letter that the answer is said to be: "The answer is (B)"; not "The answer is a cat" nor "... is A cat"
_STATED = re.compile(r"(?i:\b(?:answer|option|choice)\b(?: is)?):?\s*[(\[*\"']*([A-Z])(?!\w|['’]|\s+[a-z])")


def option_lines(options: Sequence[str]) -> str:
    """Write options as `A. text`, a line each."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


def stated_letter(text: str, options: Sequence[str]) -> str | None:
    """Return the letter that an answer states, or whose option's text it is, word for word but for case and a period.

    None where it states none, several, or one beyond the options.
    """
    letters = ascii_uppercase[: len(options)]
    if leading := _LEADING.match(text):
        found = {leading[1]}
    else:
        found = set(_STATED.findall(text))
    found = found or {letter for letter, option in zip(letters, options, strict=True) if _plain(option) == _plain(text)}
    return found.pop() if len(found) == 1 and found <= set(letters) else None


def says_yes(text: str) -> bool | None:
    """Decide what an answer says by its words alone; None where it says both yes and no, or neither."""
    words = set(re.findall(r"\w+", text.lower()))
    yes, no = "yes" in words, bool(words & {"no", "not"})
    return None if yes == no else yes


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").lower()
