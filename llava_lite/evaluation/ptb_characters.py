"""The characters beyond ASCII, as the rules of Penn Treebank tokens tell them apart.

The rules read the shadow of a text: the same text with one letter in place of all letters beyond ASCII, one digit for
all digits and so on, which keeps their classes of characters short. A shadow is as long as its text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

LETTER, MARK, DIGIT, SYMBOL, UNREAD = "\u00aa", "\u0300", "\u0660", "\u00a7", "\u0001"
SPACE, DASH = "\u3000", "\u2013"

# Ranges of code points in hexadecimal. Each character of the first is named in a rule, at its place in Unicode or in
# Windows' code page 1252; marks are what belongs to words without being a letter.
_TOLD_APART = (
    "80 85 91-94 a0 a2-a5 ab ad b2-b3 b9 bb-be 58a 60b 66b-66c e3f 2010-2011 2018-201f 2026 2039-203a 2044 2070 "
    "2074-207b 2080-208b 20a0 20a4 20ac 2153-215e 3001 ffe0-ffe1 ffe5-ffe6"
)
_SPACES = "2000-200a 3000"
_DASHES = "96-97 2013-2015"
_SYMBOLS = (
    "a1 a6-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60a 60c 614 61b 61e-61f 66a "
    "66d 6d4 700-70d 7f6-7f8 964-965 e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042 207c-207e 208c-208e "
    "2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b 2140-2144 214a-214d 214f "
    "2190-2bff 3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65"
)
_MARKS = (
    "2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 "
    "615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 962-963 "
    "981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 "
    "bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd"
)


def shadow(text: str) -> str:
    """Write for each character the one that the rules read in its place."""
    return re.sub("[^\x00-\x7f]", lambda found: _stand_in(found[0]), text)


@cache
def _stand_in(character: str) -> str:
    if character > "\uffff":  # Java reads two halves of it, neither of which is a letter
        return UNREAD
    for ranges, stand_in in ((_TOLD_APART, character), (_SPACES, SPACE), (_DASHES, DASH), (_SYMBOLS, SYMBOL)):
        if character in _expand(ranges):
            return stand_in
    if character in _expand(_MARKS):
        return MARK
    if character.isalpha():
        return LETTER
    return DIGIT if unicodedata.category(character) == "Nd" else UNREAD


@cache
def _expand(ranges: str) -> frozenset[str]:
    ends = [[int(end, 16) for end in part.split("-")] for part in ranges.split()]
    return frozenset(chr(code) for first, *last in ends for code in range(first, (last or [first])[0] + 1))
