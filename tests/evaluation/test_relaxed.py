"""Relaxed correctness: everyone's code, quirks included, and what the paper means."""

import json

import pytest

from llava_lite.evaluation.relaxed import careful_match, relaxed_match
from tests.eval.benchmark_files import REFERENCE, needs_reference


@needs_reference
def test_every_reference_row_is_judged_as_by_the_code_everyone_uses() -> None:
    rows = json.loads((REFERENCE / "rows" / "relaxed_700.json").read_text())["rows"]
    assert [relaxed_match(row["prediction"], row["target"]) for row in rows] == [row["correct"] for row in rows]


@pytest.mark.parametrize(
    ("text", "target", "official", "careful"),
    [
        ("5.25", "5", True, True),
        ("5.26", "5", False, False),
        ("4.75", "5", True, True),
        ("5", "5.26", True, True),  # of the target, not of what was said
        ("-5", "5", False, False),
        ("0.07", "7%", True, True),
        ("7", "7%", False, True),
        ("7%", "7", False, True),
        ("52.5%", "50%", False, True),  # 0.05 and a bit, in floating point
        ("1,200", "1200", False, True),
        ("$1,200", "1200", False, True),
        ("1,2", "12", False, False),
        ("0.0", "0", False, True),
        ("0", "0", True, True),
        ("0.01", "0", False, False),
        ("yes", "Yes", True, True),
        ("Yes.", "Yes", False, True),
        (" male ", "Male", False, True),
        ("nan", "nan", False, True),
        ("1950", "2010", True, False),  # 5% of a year is a century
        ("2010.", "2010", True, True),
        ("1_000", "1000", True, False),  # what float() reads
        ("no", "yes", False, False),
        ("", "Yes", False, False),
    ],
)
def test_numbers_may_be_off_by_five_percent(text: str, target: str, official: bool, careful: bool) -> None:
    assert relaxed_match(text, target) is official
    assert careful_match(text, target) is careful
