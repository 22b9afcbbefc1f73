"""Relaxed correctness of ChartQA: numbers may be off by 5%, texts may not (Masry et al. 2022, arXiv:2203.10244)."""

from __future__ import annotations

import re

TOLERANCE = 0.05
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?")
_YEAR = re.compile(r"(19|20)\d\d")


def relaxed_match(text: str, target: str) -> bool:
    """Decide as the code that came to be everyone's does (pix2struct), quirks included.

    A number is what Python's float() reads, over 100 where it ends with a percent sign. Anything else, and any target
    of 0, is compared as text, in which only the case of letters does not count.
    """
    said, true = _official_number(text), _official_number(target)
    if said is not None and true:
        return abs(said - true) / abs(true) <= TOLERANCE
    return text.lower() == target.lower()


def careful_match(text: str, target: str) -> bool:
    """Decide what the paper means, whatever way numbers are written.

    White space, a final period, thousands separators and signs of currency do not count; a percentage is right as
    written (7 for 7%) and as a share (0.07); 0 is 0.0; a year, of which 5% would be a century, has to be exact.
    """
    if _YEAR.fullmatch(target.strip()):
        return _plain(text) == target.strip()
    said, true = _numbers(text), _numbers(target)
    if said and true:
        return any(abs(a - b) <= TOLERANCE * abs(b) * (1 + 1e-9) for a in said for b in true)
    return _plain(text) == _plain(target)


def _official_number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _numbers(text: str) -> set[float]:
    """What a text may mean as a number; nothing where it is none."""
    written = re.sub(r"[\s$€£¥]|(?<=\d),(?=\d{3})", "", _plain(text))
    digits = written.removesuffix("%")
    if not _NUMBER.fullmatch(digits):
        return set()
    return {float(digits)} if digits == written else {float(digits), float(digits) / 100}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
