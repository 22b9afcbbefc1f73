"""How Penn Treebank tokens are written: brackets by name, quotes as in LaTeX, spaces inside a token unbreakable."""

from __future__ import annotations

import re

_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
_FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_CURRENCIES = {"¢": "cents", "£": "#", "€": "$", "\u0080": "$", "₠": "$", "¤": "$"}  # $ and # are all that the bank has
_NAMES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", **_BRACKETS, **_FRACTIONS, **_CURRENCIES}
_CURLY = (("\u0091‘‛‹", "`"), ("\u0092’›", "'"), ("\u0093“«", "``"), ("\u0094”»", "''"))


def as_it_is(token: str) -> str:
    return token


def nothing(token: str) -> None:
    return None


def by_name(token: str) -> str:
    return _NAMES.get(token.lower(), token)


def without_soft_hyphens(token: str) -> str:
    return token.replace("\u00ad", "") or "-"


def in_one_piece(token: str) -> str:
    return token.replace(" ", "\u00a0")


def with_ampersands(token: str) -> str:
    return re.sub("(?i)&amp;", "&", token)


def with_named_brackets(token: str) -> str:
    return token.replace("(", "-LRB-").replace(")", "-RRB-")


def telephone(token: str) -> str:
    return with_named_brackets(in_one_piece(token))


def as_punctuation(token: str) -> str:
    """Write what is dropped with the punctuation, such as dashes and dots in a row, as one of these."""
    return "..."


def dash(token: str) -> str:
    return token if len(token) > 4 else "--"


def quote(token: str) -> str:
    token = token.replace("&apos;", "'").replace("&quot;", '"').replace('"', "''")
    for curly, straight in _CURLY:
        token = re.sub(f"[{curly}]", straight, token)
    return token
