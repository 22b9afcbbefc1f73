"""Strict readings of choices: what leaves no doubt, and nothing else."""

import pytest

from llava_lite.evaluation.choices import option_lines, says_yes, stated_letter

OPTIONS = ["A red cat.", "a dog", "both"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ('"B"', "B"),
        ("B. a dog", "B"),
        ("B) a dog, not A", "B"),
        ("(B) because A is wrong", "B"),
        ("B: a dog", "B"),
        ("**B.** a dog", "B"),
        ("The answer is B", "B"),
        ("The answer is (B).", "B"),
        ("Answer: **B**", "B"),
        ("So it is option C, not a dog", "C"),
        ("the correct choice is A.", "A"),
        ("A dog", "B"),
        ("a red cat", "A"),
        ("BOTH.", "C"),
        ("A red dog", None),
        ("The answer is A dog with a hat", None),
        ("the answer is a", None),
        ("The answer is B's", None),
        ("A or B", None),
        ("A, B", None),
        ("Answer: A. No, the answer is B.", None),
        ("b", None),
        ("D", None),
        ("The answer is E.", None),
        ("Both of them", None),
        ("", None),
    ],
)
def test_a_letter_counts_only_where_it_is_stated_beyond_doubt(text: str, letter: str | None) -> None:
    assert stated_letter(text, OPTIONS) == letter


def test_options_are_lines_with_letters() -> None:
    assert option_lines(["one", "two"]) == "A. one\nB. two"


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("YES!", True),
        ("I would say yes", True),
        ("no.", False),
        ("NO", False),
        ("It is not.", False),
        ("yes and no", None),
        ("not yes", None),
        ("nothing", None),
        ("I know", None),
        ("eyes", None),
        ("", None),
    ],
)
def test_yes_and_no_count_as_words_and_not_together(text: str, yes: bool | None) -> None:
    assert says_yes(text) is yes
