"""How near captions are to what people wrote: CIDEr-D, BLEU and ROUGE-L, equal to COCO's scorer (pycocoevalcap).

They count tokens (`ptb.tokenize`), each caption one text with spaces between them. An image's share adds up with other
images' to the figures of all, so that other samples of images can be drawn from the shares alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, fsum, log, sqrt

Gram = tuple[str, ...]
LONGEST_GRAM = 4


def cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return the CIDEr-D of each caption, from 0 to 10 (Vedantam et al., CVPR 2015, arXiv:1411.5726).

    How much an n-gram weighs depends on how many of these images it is said of: captions of other images, or of fewer,
    do not compare.
    """
    images = Counter(chain.from_iterable(set(chain.from_iterable(map(_grams, own))) for own in references))
    scores = []
    for text, own in zip(said, references, strict=True):
        vector = _Vector.of(text, images, len(references))
        scores.append(10 * fsum(vector.nearness(_Vector.of(r, images, len(references))) for r in own) / len(own))
    return scores


def bleu_counts(said: str, references: Sequence[str]) -> dict[str, float]:
    """Count what a caption adds to BLEU: for n from 1 to 4 its n-grams and those that a reference has, and lengths.

    length_there: of the reference nearest in length, of two the shorter
    """
    own = _grams(said)
    most: Counter[Gram] = Counter()
    for reference in references:
        most |= _grams(reference)  # of each n-gram as many as the reference that has most
    length = len(said.split())
    counts: dict[str, float] = {"length": length, "length_there": _nearest(length, references)}
    for n in range(1, LONGEST_GRAM + 1):
        counts[f"said_{n}"] = max(0, length - n + 1)
        counts[f"found_{n}"] = sum(min(times, most[gram]) for gram, times in own.items() if len(gram) == n)
    return counts


def bleu(sums: Mapping[str, float]) -> dict[str, float]:
    """Make BLEU-1 to BLEU-4 of all captions from the sums of their counts (Papineni et al., ACL 2002)."""
    ratio = (sums["length"] + 1e-15) / (sums["length_there"] + 1e-9)  # as there: nothing is divided by zero
    penalty = exp(1 - 1 / ratio) if ratio < 1 else 1.0
    figures, product = {}, 1.0
    for n in range(1, LONGEST_GRAM + 1):
        product *= (sums[f"found_{n}"] + 1e-15) / (sums[f"said_{n}"] + 1e-9)
        figures[f"bleu_{n}"] = product ** (1 / n) * penalty
    return figures


def rouge_l(said: str, references: Sequence[str], *, beta: float = 1.2) -> float:
    """Return the ROUGE-L of a caption (Lin, 2004): the best recall and the best precision, whichever references'.

    A caption without tokens is one empty token here, as it is there, and equals an empty reference.
    """
    own = said.split(" ")
    common = [(_longest_common(own, there), len(there)) for there in (reference.split(" ") for reference in references)]
    precision = max(shared for shared, _ in common) / len(own)
    recall = max(shared / length for shared, length in common)
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


@dataclass(frozen=True)
class _Vector:
    """The n-grams of a text, each as often as it stands there times how rare it is (tf-idf).

    norms: for n from 1 to 4, the length of the vector of n-grams
    length: of the text, in words
    """

    weights: Mapping[Gram, float]
    norms: Sequence[float]
    length: int

    @classmethod
    def of(cls, text: str, images: Mapping[Gram, int], num_images: int) -> _Vector:
        grams = _grams(text)
        weights = {gram: times * log(num_images / (images.get(gram) or 1)) for gram, times in grams.items()}
        squares = [0.0] * LONGEST_GRAM
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight**2
        return cls(weights, [sqrt(square) for square in squares], len(text.split()))

    def nearness(self, reference: _Vector, *, sigma: float = 6.0) -> float:
        """Average over n how alike the n-grams are, repetitions clipped, less for another length."""
        shared = [0.0] * LONGEST_GRAM
        for gram, weight in self.weights.items():
            there = reference.weights.get(gram, 0.0)
            shared[len(gram) - 1] += min(weight, there) * there
        norms = [own * there or 1.0 for own, there in zip(self.norms, reference.norms, strict=True)]
        alike = fsum(products / norm for products, norm in zip(shared, norms, strict=True)) / LONGEST_GRAM
        return alike * exp(-((self.length - reference.length) ** 2) / (2 * sigma**2))


def _grams(text: str) -> Counter[Gram]:
    """Count the n-grams of a text, n from 1 to 4. A token that holds an unbreakable space is two words here."""
    words = text.split()
    return Counter(
        tuple(words[start : start + n]) for n in range(1, LONGEST_GRAM + 1) for start in range(len(words) - n + 1)
    )


def _nearest(length: int, references: Sequence[str]) -> int:
    return min((len(reference.split()) for reference in references), key=lambda there: (abs(there - length), there))


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for own in a:
        diagonal = 0
        for place, there in enumerate(b, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if own == there else max(row[place], row[place - 1])
    return row[-1]
