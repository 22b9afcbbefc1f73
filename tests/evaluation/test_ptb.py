"""Tokens of captions: those of the official scorer's Java program, recorded, and beside it where it is at hand."""

import random
from pathlib import Path

import pytest

from llava_lite.evaluation import ptb, ptb_rules
from llava_lite.evaluation.ptb import tokenize
from tests.evaluation.caption_cases import CASES, IMAGES, needs_java, tokenize_officially

CAPTIONS, TOKENS = zip(*CASES["tokens"], strict=True)


def test_tokens_are_those_that_the_official_program_gave() -> None:
    assert [*zip(CAPTIONS, tokenize(CAPTIONS), strict=True)] == [*zip(CAPTIONS, TOKENS, strict=True)]
    references = [caption for image in IMAGES for caption in image["references"]]
    assert tokenize(references) == [tokens for image in IMAGES for tokens in image["reference_tokens"]]
    assert tokenize([image["said"] for image in IMAGES]) == [image["said_tokens"] for image in IMAGES]


def test_no_rule_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = ptb_rules.rules()
    for left_out in rules:
        monkeypatch.setattr(ptb, "rules", lambda own=left_out: tuple(rule for rule in rules if rule is not own))
        assert tokenize(CAPTIONS) != list(TOKENS), left_out.pattern.pattern


def test_words_that_need_no_rules_are_cut_as_the_rules_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_PLAIN_WORD", ptb.re.compile("(?!)"))
    assert tokenize(CAPTIONS) == list(TOKENS)


def test_the_next_caption_decides_whose_period_it_is() -> None:
    assert tokenize(["Plan b.", "The end"])[0] == "plan b"
    assert tokenize(["Plan b.", "Ends here"])[0] == "plan b."
    assert tokenize(["Plan b."]) == ["plan b."]


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029"])
def test_a_line_break_inside_a_caption_shifts_no_other(line_break: str) -> None:
    assert tokenize([f"A dog.{line_break}It runs{line_break}", "A cat"]) == ["a dog it runs", "a cat"]


def test_there_are_as_many_texts_of_tokens_as_captions() -> None:
    assert tokenize([]) == []
    assert tokenize(["", " ", "."]) == ["", "", ""]


@needs_java
def test_tokens_are_those_of_the_official_program(tmp_path: Path) -> None:
    """Of the recorded captions, and of many more that are made of their words."""
    generator = random.Random(0)
    words = [word for caption in CAPTIONS for word in caption.split(" ")]
    gaps = [" "] * 8 + ["", "  ", ".", ", ", "-", "/", "'", ". The ", " 5", "\u00a0"]
    made = ["".join(generator.choice(words) + generator.choice(gaps) for _ in range(8)) for _ in range(5000)]
    captions = [*CAPTIONS, *made]
    official = tokenize_officially(captions, tmp_path)
    differing = [case for case in zip(captions, tokenize(captions), official, strict=True) if case[1] != case[2]]
    assert not differing
