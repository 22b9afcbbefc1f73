"""How Penn Treebank tokens are written: brackets by name, quotes as in LaTeX, spaces inside a token unbreakable."""

from __future__ import annotations

import re

_NAMES = {
    **{"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">"},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{
        "¢": "cents",
        "£": "#",
        "€": "$",
        "\u0080": "$",
        "₠": "$",
        "¤": "$",
    },  # as the Wall Street Journal's text had them
}
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


def dash(token: str) -> str:
    return "--" if len(token) in (3, 4) or token.strip("-") else token


def ellipsis(token: str) -> str:
    return "..."


def opening_quote(token: str) -> str:
    return _straight(token.replace("&apos;", "'").replace("'", "`").replace("&quot;", '"').replace('"', "``"))


def closing_quote(token: str) -> str:
    return _straight(token.replace("&apos;", "'").replace("&quot;", '"').replace('"', "''"))


def _straight(token: str) -> str:
    for curly, straight in _CURLY:
        token = re.sub(f"[{curly}]", straight, token)
    return token
