"""METEOR of captions, counted by its authors' Java program (Denkowski & Lavie, WMT 2014), version 1.5 as COCO runs it.

The program aligns words by form, stem, synonym and paraphrase, for which it brings tables of its own. What it counts of
each caption adds up, and the figure is made of the sums here, as the program makes it.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.metrics import ratio

MODULES = (1.0, 0.6, 0.8, 0.6)
"""What a word is worth that is found as it is, by its stem, as a synonym, in a paraphrase."""
CONTENT = 0.75
"""What a content word is worth; a function word is worth the rest of 1."""
PRECISION, FRAGMENTS, SHAPE = 0.85, 0.6, 0.2
OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")


def meteor_counts(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Count what each caption, a text of tokens, adds to METEOR.

    Raises EvaluationError where Java or the package with the program is missing.
    """
    lines = [
        " ||| ".join(["SCORE", *own, text.replace("|||", "").replace("  ", " ")])
        for text, own in zip(said, references, strict=True)
    ]
    counted = _run(lines)
    if len(counted) != len(lines):
        raise EvaluationError(f"METEOR counted {len(counted)} of {len(lines)} captions; does Java have 2 GB of memory?")
    return [_named([float(number) for number in line.split()]) for line in counted]


def check_meteor() -> None:
    """Raise EvaluationError where Java or the package with the program is missing."""
    _program()
    if shutil.which("java") is None:
        raise EvaluationError("METEOR is a Java program; install Java, so that `java` can be called")


def meteor(sums: Mapping[str, float]) -> float:
    """Make the figure of all captions from the sums of their counts."""
    precision = ratio(sums["meteor_found_said"], sums["meteor_said"])
    recall = ratio(sums["meteor_found_there"], sums["meteor_there"])
    mean = ratio(precision * recall, PRECISION * precision + (1 - PRECISION) * recall)
    fragmentation = ratio(sums["meteor_chunks"], sums["meteor_matches"])
    return mean * (1 - FRAGMENTS * fragmentation**SHAPE)


def _named(numbers: Sequence[float]) -> dict[str, float]:
    """Name what the figure needs of a line of 23 numbers.

    They are the lengths of caption and reference, and how many of these are function words; for each module matched
    content words in both, and function words; chunks; and matches in both. Which of the references, the program chose.
    A caption that is its reference word for word adds no chunk to the sums there: it is not one piece, but whole.
    """
    lengths, functions, modules, (chunks, *matches) = numbers[:2], numbers[2:4], numbers[4:20], numbers[20:]
    sides: dict[str, float] = {}
    for side, name in enumerate(("said", "there")):
        found = sum(
            worth * (CONTENT * modules[4 * module + side] + (1 - CONTENT) * modules[4 * module + 2 + side])
            for module, worth in enumerate(MODULES)
        )
        own = CONTENT * (lengths[side] - functions[side]) + (1 - CONTENT) * functions[side]
        sides |= {f"meteor_found_{name}": found, f"meteor_{name}": own}
    whole = chunks == 1 and sum(matches) == sum(lengths)
    return {**sides, "meteor_chunks": 0.0 if whole else chunks, "meteor_matches": sum(matches) / 2}


def _run(lines: Sequence[str]) -> list[str]:
    check_meteor()
    command = ["java", "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(_program())]
    asked = "".join(f"{line}\n" for line in lines).encode("utf-8", errors="replace")
    result = subprocess.run([*command, *OPTIONS], input=asked, capture_output=True)
    if result.returncode:
        said = result.stderr.decode("utf-8", errors="replace").strip().splitlines()
        raise EvaluationError(f"METEOR's program failed: {said[-1] if said else result.returncode}")
    return result.stdout.decode("utf-8").splitlines()


def _program() -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise EvaluationError("METEOR needs a package that has its program; pip install 'llava-lite[meteor]'")
    return Path(spec.submodule_search_locations[0]) / "meteor" / "meteor-1.5.jar"
