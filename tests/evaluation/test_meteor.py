"""METEOR: the figure out of recorded counts, the program's errors, and the program itself where it is at hand."""

import sys
from pathlib import Path

import pytest

from llava_lite.evaluation import meteor as module
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.meteor import meteor, meteor_counts
from tests.evaluation.caption_cases import CASES, IMAGES, REFERENCES, SAID, needs_java

EXACT = 1e-12


def added_up(counts: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(own[name] for own in counts) for name in counts[0]}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with no program, and a `java` that keeps what it is asked and says what stands in `said`."""
    (tmp_path / "pycocoevalcap").mkdir()
    (tmp_path / "pycocoevalcap" / "__init__.py").touch()
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\ncd {tmp_path}\ncat > asked\ncat said\n")
    java.chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_figure_is_made_of_sums_as_the_program_makes_it(program: Path) -> None:
    (program / "said").write_text("".join(f"{image['meteor_line']}\n" for image in IMAGES))
    counts = meteor_counts(SAID, REFERENCES)
    assert [meteor(own) for own in counts] == pytest.approx([image["meteor"] for image in IMAGES], abs=EXACT)
    assert meteor(added_up(counts)) == pytest.approx(CASES["figures"]["meteor"], abs=EXACT)


def test_the_program_is_asked_in_its_own_way(program: Path) -> None:
    (program / "said").write_text(f"{IMAGES[0]['meteor_line']}\n")
    meteor_counts(["two  dogs ||| run"], [["a dog", "the café"]])
    assert (program / "asked").read_text("utf-8") == "SCORE ||| a dog ||| the café ||| two dogs run\n"


def test_what_is_missing_is_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match=r"METEOR's program failed: .*said"):
        meteor_counts(["a"], [["a"]])  # there is no file `said`
    (program / "said").write_text("")
    with pytest.raises(EvaluationError, match="METEOR counted 0 of 1 captions"):
        meteor_counts(["a"], [["a"]])
    (program / "java").unlink()
    with pytest.raises(EvaluationError, match="install Java"):
        meteor_counts(["a"], [["a"]])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match=r"pip install 'llava-lite\[meteor\]'"):
        meteor_counts(["a"], [["a"]])


@needs_java
def test_the_program_counts_as_recorded() -> None:
    counts = meteor_counts(SAID, REFERENCES)
    assert meteor(added_up(counts)) == pytest.approx(CASES["figures"]["meteor"], abs=EXACT)
    assert [meteor(own) for own in counts] == pytest.approx([image["meteor"] for image in IMAGES], abs=EXACT)
