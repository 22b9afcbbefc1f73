"""How an answer is held against those of ten people: VQA accuracy, its two official normalisers and its two rules.

VQAv2's own evaluation (github.com/GT-Vision-Lab/VQA) and EvalAI's, as M4C and LLaVA use it for TextVQA and for what
they submit, share the tables and the steps below. They differ in possessives and in whether all is normalised always.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llava_lite.evaluation.files import EvaluationError

MARKS = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = ("a", "an", "the")
ENOUGH = 3  # of the other people must have said it too
MAX_PERIODS = 32  # official: a flag of `re` was passed where `sub` takes the number of replacements

_MARK = re.compile(f"[{re.escape(MARKS)}]")
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # official has a misspelt look-behind, too, which is always true

_CONTRACTED = """
    ain't aren't can't couldn't couldn't've could've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've shouldn't shouldn't've should've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've weren't we've what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't wouldn't
    wouldn't've would've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def agreement(said: str, answers: Sequence[str]) -> float:
    """Return the share of VQA accuracy that an answer earns, from 0 to 1: enough with three of nine people.

    Each of the people is left out in turn; it is the mean of what the others make of it. Of ten, one gives .3, two .6,
    three .9, four and more 1. Compares letter by letter.
    """
    alike = answers.count(said)
    with_left_out = alike * min(1, max(0, alike - 1) / ENOUGH)  # one of those who said it is left out
    return (with_left_out + (len(answers) - alike) * min(1, alike / ENOUGH)) / len(answers)


def vqa_compared(text: str, answers: Sequence[str], *, strict: bool = False) -> tuple[str, list[str]]:
    """Return an answer and those of people as VQAv2's evaluation compares them.

    Official: where all people's answers are letter by letter the same, nothing is normalised, so that "Yes" is not
    "yes". strict: always normalised.
    """
    said, given = on_one_line(text), [on_one_line(answer) for answer in answers]
    if strict or len(set(given)) > 1:
        forms = {answer: normalise(answer, strict=strict) for answer in {said, *given}}  # people often say the same
        said, given = forms[said], [forms[answer] for answer in given]
    return said, given


def textvqa_compared(text: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Return an answer and those of people as M4C's evaluation of TextVQA compares them."""
    return normalise_evalai(text), [normalise_evalai(answer) for answer in answers]


def people_said(answers: Sequence[Any], where: str) -> tuple[str, ...]:
    """Read people's answers as annotations hold them: texts, or objects with an "answer" each.

    Raises EvaluationError that names `where` for anything else, and where there are none.
    """
    said: list[Any] = [answer.get("answer") if isinstance(answer, dict) else answer for answer in answers]
    if not said or not all(isinstance(answer, str) for answer in said):
        raise EvaluationError(f"{where}: needs people's answers, as texts; is this the right file?")
    return tuple(said)


def normalise(text: str, *, strict: bool = False) -> str:
    """Rewrite an answer as VQAv2's evaluation does: "Two red/blue dogs." becomes "2 red blue dogs".

    strict: all periods go that no digit follows, not only the first MAX_PERIODS.
    """
    return _without_articles(_without_marks(on_one_line(text), strict=strict))


def normalise_evalai(text: str) -> str:
    """Rewrite an answer as EvalAI's processor does: "The man's hats" becomes "man 's hats"."""
    return normalise(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def on_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_marks(text: str, *, strict: bool) -> str:
    """Take the marks out. One beside a space leaves nothing behind, another a space, unless there is a number as 1,000
    anywhere in the text."""
    cleaned = text
    if _MARK.search(text):  # most answers have none
        thousands = _THOUSANDS.search(text) is not None
        for mark in MARKS:
            gone = thousands or f"{mark} " in text or f" {mark}" in text
            cleaned = cleaned.replace(mark, "" if gone else " ")
    return _PERIOD.sub("", cleaned, count=0 if strict else MAX_PERIODS)


def _without_articles(text: str) -> str:
    """Take the articles out, write numbers as digits, give contractions their apostrophes."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _contractions() -> dict[str, str]:
    """Each word with any one apostrophe left out -> with all; the official table says the same in 120 entries, of which
    some are never met: words as they are, and words with a capital. One is odd, and stays so."""
    table = {"somebody'd": "somebodyd"}
    for word in _CONTRACTED.split():
        for place, letter in enumerate(word):
            if letter == "'":
                table[word[:place] + word[place + 1 :]] = word
    return table


CONTRACTIONS = _contractions()
