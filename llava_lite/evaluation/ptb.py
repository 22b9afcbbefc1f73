"""The tokens of captions as the official scorers count them: Penn Treebank tokens in lower case, punctuation dropped.

COCO's scorer (pycocoevalcap) has a Java program cut its captions, Stanford CoreNLP 3.4.1. Here are the same tokens
without Java, but for four things. What else ends a line there, as a carriage return or U+2028 do, shifts every caption
after it by one; here it is a space. Letters that came to Unicode after 6.0 are deleted there, and letters here. There
the letters that fold to k, s and i (U+212A, U+017F, U+0130, U+0131) spell listed words such as `Mrs.`, too. And there a
character beyond U+FFFF has the length of two, which a URL that ends in `/` and one emoji shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from llava_lite.evaluation import ptb_spelling as spelling
from llava_lite.evaluation.ptb_characters import shadow
from llava_lite.evaluation.ptb_rules import SEVERAL_READINGS, Rule, rules

DROPPED = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."))
"""What does not count. Official quirk: brackets do, for their names are in lower case when they are looked up here."""

_LINE_BREAK = re.compile("[\r\n\v\f\u2028\u2029]")
_BLANKS = re.compile("[ \t\u00a0\u3000]+")
_PLAIN_WORD = re.compile("[A-Za-z]+(?=,? )|[A-Za-z]{2,}(?=[.]?[ \n])")


def tokenize(captions: Sequence[str]) -> list[str]:
    """Cut captions into tokens, with a space between two.

    The captions of one call are read as one text, as there. It matters to few: whether the period belongs to the token
    in `plan b.` depends on the first word of the next caption, as if that began a new sentence or did not.
    """
    if not captions:
        return []
    lines = "".join(_write("\n".join(_LINE_BREAK.sub(" ", caption) for caption in captions))).split("\n")
    return [" ".join(token for token in line.rstrip().split(" ") if token not in DROPPED) for line in lines]


def _write(text: str) -> Iterator[str]:
    """Yield the tokens of a text and what stands between them: a space, or the end of a line."""
    shape, in_order = shadow(text), rules()
    start, between = 0, ""
    while start < len(text):
        if shape[start] == "\n":
            yield "\n"
            start, between = start + 1, ""
        elif blanks := _BLANKS.match(shape, start) if shape[start] == " " else None:
            start = blanks.end()
        else:
            end, spell = _next(shape, start, in_order)
            token = spell(text[start:end]) if spell else None
            if token is not None:
                yield between + token.lower()
                between = " "
            start = end


def _next(shape: str, start: int, in_order: tuple[Rule, ...]) -> tuple[int, Callable[[str], str | None] | None]:
    """Find the end of the token at `start`, and how it is spelled: not at all where no rule reads it."""
    plain = _PLAIN_WORD.match(shape, start)
    if plain and plain[0].lower() not in SEVERAL_READINGS:  # a short cut past sixty rules, which find the same
        return plain.end(), spelling.as_it_is
    longest, end, spell = start, start + 1, None
    for rule in in_order:
        found = rule.pattern.match(shape, start)
        if found and found.end() > longest:
            longest, end, spell = found.end(), found.end(found.lastindex or 0), rule.spell
    return end, spell
