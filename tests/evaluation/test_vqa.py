"""VQA accuracy: both normalisers and both rules, on golden pairs and on rows scored by the official code."""

import json
from pathlib import Path

import pytest

from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.vqa import (
    CONTRACTIONS,
    agreement,
    normalise,
    normalise_evalai,
    people_said,
    textvqa_compared,
    vqa_compared,
)

ROWS = Path(__file__).parents[3] / "shared" / "reference_scores" / "rows" / "vqa_1500.json"
EVALAI = {
    "The Dog.": "dog", "Two dogs": "2 dogs", "a man's hat": "man 's hat", "1,000 dogs!": "1000 dogs", "$3.50": "$3.50",
    "3.50.": "3.50", "9:30": "9:30", "dont": "don't", "yes, it is": "yes it is", "red/blue": "red blue", "x - y": "x y",
    "U.S.A.": "usa", "none": "0", "an apple\tpie\n": "apple pie", "(left)": "left", "10%": "10%", "what's": "what 's",
    "ten o'clock": "10 o'clock", "e-mail@a.com": "e mail acom", "No. 5": "no 5", "isn't?": "isn't", "": "", "a": "",
}  # fmt: skip
VQA = {
    "a man's hat": "man's hat", "1,000 red/blue dogs": "1000 redblue dogs", "1, 2": "1 2", "red,blue": "red blue",
    "22.": "22", ".5": ".5", "Somebody'd": "somebodyd", "couldnt've": "couldn't've", "yall'd've": "y'all'd've",
    "lets": "lets", "im": "im", "twas ten": "'twas 10", "The\nDog": "dog", "it's?": "it's", "x-b [c] {d}": "x b c d",
}  # fmt: skip


@pytest.mark.parametrize(("text", "normalised"), EVALAI.items())
def test_answers_are_normalised_as_evalai_does(text: str, normalised: str) -> None:
    assert normalise_evalai(text) == normalised


@pytest.mark.parametrize(("text", "normalised"), VQA.items())
def test_answers_are_normalised_as_vqas_evaluation_does(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_only_the_first_32_periods_go_unless_strict() -> None:
    assert normalise("." * 40 + "x") == "." * 8 + "x"
    assert normalise("." * 40 + "x", strict=True) == "x"
    assert normalise("3.50", strict=True) == "3.50"


@pytest.mark.parametrize(("alike", "earned"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_an_answer_earns_by_how_many_of_ten_people_gave_it(alike: int, earned: float) -> None:
    assert agreement("x", ["x"] * alike + ["y"] * (10 - alike)) == pytest.approx(earned, abs=1e-12)


def test_nothing_is_normalised_where_all_people_agree_unless_strict() -> None:
    assert agreement(*vqa_compared("Yes", ["yes"] * 10)) == 0
    assert agreement(*vqa_compared(" yes\n", [" yes"] * 10)) == 1
    assert agreement(*vqa_compared("Yes", ["yes"] * 9 + ["Yes"])) == 1
    assert agreement(*vqa_compared("Yes", ["yes"] * 10, strict=True)) == 1
    assert agreement(*textvqa_compared("Yes", ["yes"] * 10)) == 1


def test_possessives_are_split_on_both_sides_or_on_none() -> None:
    assert textvqa_compared("Coca Cola's", ["coca cola's"]) == ("coca cola 's", ["coca cola 's"])
    assert vqa_compared("Coca Cola's", ["coca cola's", "pepsi"]) == ("coca cola's", ["coca cola's", "pepsi"])


def test_every_contraction_lacks_one_apostrophe_of_its_word() -> None:
    assert len(CONTRACTIONS) == 114  # the official 120 without two words as they are and four with a capital
    assert {word.count("'") - key.count("'") for key, word in CONTRACTIONS.items() if key != "somebody'd"} == {1}


@pytest.mark.parametrize("answers", [[], [{"text": "x"}], [None], ["x", 3]])
def test_annotations_without_peoples_answers_are_named(answers: list) -> None:
    with pytest.raises(EvaluationError, match="question 7: needs people's answers"):
        people_said(answers, "question 7")
    assert people_said([{"answer": "x", "answer_id": 1}, "y"], "") == ("x", "y")


@pytest.mark.skipif(not ROWS.is_file(), reason=f"no reference scores at {ROWS}")
def test_rows_scored_by_the_official_code_come_out_the_same() -> None:
    rows = json.loads(ROWS.read_text())["rows"]
    assert len(rows) == 1500
    for row in rows:
        text, answers = row["prediction"], row["answers"]
        assert (normalise(text), normalise_evalai(text)) == (row["vqa_norm"], row["evalai"])
        assert round(100 * agreement(*vqa_compared(text, answers)), 2) == row["vqa_acc"]
        assert agreement(*textvqa_compared(text, answers)) == pytest.approx(row["textvqa_acc"], abs=1e-12)
