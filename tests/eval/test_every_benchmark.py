"""What every eval file keeps to, and the table of them in docs/evaluation.md (WRITE_TABLE=1 writes it)."""

import os
import re
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Benchmark
from llava_lite.evaluation.command import load_benchmark
from llava_lite.evaluation.files import EvaluationError

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs" / "evaluation.md"
FILES = sorted((CHECKOUT / "eval").glob("*.py"))
HEADS = ("Files", "Metric", "Quirks")


def every_variant() -> list[Benchmark]:
    return [load_benchmark(path, name) for path in FILES for name in load_benchmark(path).variants or [""]]


def head(path: Path) -> str:
    """The docstring of an eval file."""
    return path.read_text("utf-8").split('"""')[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_measures_and_from_what(path: Path) -> None:
    heads = re.findall(r"\n(\w+): ", head(path))
    assert heads[0] in ("Paper", "Source") and set(HEADS) <= set(heads)
    assert load_benchmark(path).title == path.stem


@pytest.mark.parametrize("benchmark", every_variant(), ids=lambda benchmark: benchmark.name)
def test_a_missing_file_is_named_with_its_place_and_its_source(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        benchmark.questions(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).startswith(f"{benchmark.name}: ")
    assert str(caught.value).endswith(f"get it from {benchmark.source}")


def test_the_documentation_lists_every_benchmark() -> None:
    rows = ["| name | what it asks | variants (the first is the default) | `--scoring strict` |", "|---|---|---|---|"]
    for path in FILES:
        benchmark = load_benchmark(path)
        title, _, what = head(path).splitlines()[0].partition(": ")
        variants = "; ".join(f"`{name}` {words}" for name, words in benchmark.variants.items())
        strict = "yes" if benchmark.faults else ""
        rows.append(f"| `{path.stem}` | **{title}**: {what.removesuffix('.')} | {variants} | {strict} |")
    table = "\n".join(rows)
    text = DOCS.read_text("utf-8")
    before, marker, rest = text.partition("## Benchmarks\n\n")
    _, *after = rest.partition("\n\n")
    if os.environ.get("WRITE_TABLE"):
        DOCS.write_text(before + marker + table + "".join(after), "utf-8")
    assert f"{marker}{table}\n\n" in DOCS.read_text("utf-8")
