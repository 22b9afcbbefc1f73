"""ANLS, average normalised Levenshtein similarity: an answer that is nearly right earns nearly all.

Biten et al., Scene Text Visual Question Answering, ICCV 2019, arXiv:1905.13648. Implementations differ in what they
normalise and in the threshold, by several points: figures of two of them are never to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

THRESHOLD = 0.5


def anls(text: str, answers: Sequence[str]) -> float:
    """Return the similarity to the nearest of `answers` as the script of the RRC server (DocVQA, InfographicVQA) does.

    Case and white space do not count as edits, but the length that edits are divided by is that of the longer text as
    it was written, in capitals. Similarities below the threshold are 0; the threshold itself is kept.
    """
    shares = [_share(edit_distance(plain(text), plain(answer)), text.upper(), answer.upper()) for answer in answers]
    similarity = 1 - min(shares)
    return similarity if similarity >= THRESHOLD else 0.0


def anls_of_the_paper(text: str, answers: Sequence[str]) -> float:
    """Return the similarity to the nearest of `answers` as the paper defines it.

    Edits are divided by the longer of the two texts that were compared, and the threshold itself is 0.
    """
    pairs = [(plain(text), plain(answer)) for answer in answers]
    similarity = 1 - min(_share(edit_distance(*pair), *pair) for pair in pairs)
    return similarity if similarity > THRESHOLD else 0.0


def plain(text: str) -> str:
    """Write in small letters, with single spaces between words."""
    return " ".join(text.lower().split())


def edit_distance(a: str, b: str) -> int:
    """Count the letters to insert, delete or replace that make `a` into `b` (Levenshtein)."""
    if len(a) > len(b):
        a, b = b, a
    row = list(range(len(a) + 1))  # distances of each beginning of `a` to what has been read of `b`
    for number, letter in enumerate(b, start=1):
        above, row = row, [number]
        for i, own in enumerate(a):
            row.append(min(above[i] + (own != letter), above[i + 1] + 1, row[i] + 1))
    return row[-1]


def _share(edits: int, a: str, b: str) -> float:
    """Edits over the longer length; 0 where both are empty."""
    return edits / (max(len(a), len(b)) or 1)
