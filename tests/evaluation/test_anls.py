"""ANLS: the server's way of counting and the paper's, and where they part."""

import json

import pytest

from llava_lite.evaluation.anls import anls, anls_of_the_paper, edit_distance
from tests.eval.benchmark_files import REFERENCE, needs_reference


@needs_reference
def test_every_reference_row_earns_what_the_server_gives() -> None:
    expected = json.loads((REFERENCE / "rows" / "anls_300.json").read_text())
    assert [anls(row["answer"], row["answers"]) for row in expected["rows"]] == [r["anls"] for r in expected["rows"]]


@pytest.mark.parametrize(
    ("text", "answers", "server", "paper"),
    [
        ("Chatswood", ["chatswood"], 1, 1),
        ("  two \n words ", ["Two words"], 1, 1),
        ("abcd", ["abxy"], 0.5, 0),  # the threshold itself
        ("abc", ["xyz", "abd"], 2 / 3, 2 / 3),  # the nearest of several
        ("abcd", ["wxyz"], 0, 0),
        ("abx ", ["aby"], 0.75, 2 / 3),  # the server divides by the length as it was written
        ("aßx", ["aßy"], 0.75, 2 / 3),  # ... in capitals: SS
        ("", ["a"], 0, 0),
        ("", [""], 1, 1),
    ],
)
def test_edits_are_counted_over_the_longer_text(text: str, answers: list[str], server: float, paper: float) -> None:
    assert anls(text, answers) == pytest.approx(server)
    assert anls_of_the_paper(text, answers) == pytest.approx(paper)


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 2), ("a", "bab", 2)]
)
def test_an_edit_inserts_deletes_or_replaces_one_letter(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == edits
