"""CIDEr-D, BLEU and ROUGE-L: the figures that pycocoevalcap gave, to the last digit, and sums that add up."""

from collections.abc import Sequence

import pytest

from llava_lite.evaluation.caption_metrics import bleu, bleu_counts, cider, rouge_l
from tests.evaluation.caption_cases import CASES, IMAGES, REFERENCES, SAID

EXACT = 1e-12


def bleu_of(numbers: Sequence[int]) -> dict[str, float]:
    counts = [bleu_counts(SAID[number], REFERENCES[number]) for number in numbers]
    return bleu({name: sum(own[name] for own in counts) for name in counts[0]})


def test_cider_is_the_official_one_of_every_image() -> None:
    scores = cider(SAID, REFERENCES)
    assert scores == pytest.approx([image["cider"] for image in IMAGES], abs=EXACT)
    assert sum(scores) / len(scores) == pytest.approx(CASES["figures"]["cider"], abs=EXACT)


def test_bleu_is_the_official_one_of_all_images() -> None:
    official = {name: value for name, value in CASES["figures"].items() if name.startswith("bleu")}
    assert bleu_of(range(len(SAID))) == pytest.approx(official, abs=EXACT)


def test_rouge_is_the_official_one_of_every_image() -> None:
    scores = [rouge_l(said, own) for said, own in zip(SAID, REFERENCES, strict=True)]
    assert scores == pytest.approx([image["rouge_l"] for image in IMAGES], abs=EXACT)


def test_an_n_gram_that_all_images_have_weighs_nothing() -> None:
    assert cider(["a dog runs", "a cat sleeps"], [["a dog runs"], ["a dog runs"]]) == [0.0, 0.0]
    first, second = cider(["a dog runs", "a cat sleeps"], [["a dog runs"], ["a cat sleeps"]])
    assert (first, second) == (pytest.approx(7.5), pytest.approx(7.5))  # three words have no n-gram of four
    assert cider(["a dog"], [["a dog"]]) == [0.0]  # of one image


def test_repeating_a_word_earns_once() -> None:
    said = bleu_counts("dog dog dog", ["a dog", "the dog of a dog"])
    assert (said["said_1"], said["found_1"], said["found_2"]) == (3, 2, 0)
    once, often, _ = cider(["dog", "dog dog dog", "x"], [["dog"], ["dog"], ["cat"]])
    assert once == pytest.approx(2.5) and often < once


def test_the_nearest_length_is_the_shorter_of_two() -> None:
    assert bleu_counts("a b c", ["a b c d e", "a"])["length_there"] == 1
    assert bleu_counts("a b c", ["a b c d", "a"])["length_there"] == 4


def test_nothing_said_earns_nothing() -> None:
    assert bleu(bleu_counts("", ["a dog"])) == pytest.approx(dict.fromkeys([f"bleu_{n}" for n in range(1, 5)], 0.0))
    assert rouge_l("", ["a dog"]) == 0.0
    assert rouge_l("", [""]) == 1.0  # one empty token, as there
    assert cider(["", "a"], [["a dog"], ["a cat"]])[0] == 0.0


def test_recall_and_precision_may_be_of_different_references() -> None:
    assert rouge_l("a b", ["a b c d", "b"]) == pytest.approx(1.0)  # precision of the first, recall of the second
