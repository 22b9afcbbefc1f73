"""Files with something wrong in any one place: each eval file reads them or says what is wrong, and never stumbles."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions
from tests.eval import (
    test_chartqa,
    test_coco,
    test_docvqa,
    test_gqa,
    test_hallusionbench,
    test_infovqa,
    test_llava_bench,
    test_mathvista,
    test_mmbench,
    test_mme,
    test_mmstar,
    test_mmvet,
    test_nocaps,
    test_ocrbench,
    test_pope,
    test_refcoco,
    test_scienceqa,
    test_seedbench,
    test_textvqa,
    test_vizwiz,
    test_vqav2,
)
from tests.eval.benchmark_files import load

WRONG = [None, 5, "x", [], {}]
OFFICIAL: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "chartqa": ("chartqa", "", test_chartqa.write_official),
    "coco": ("coco", "", test_coco.write_official),
    "docvqa": ("docvqa", "", lambda data: test_docvqa.write_official(data, "spdocvqa_qas", "spdocvqa_images")),
    "gqa": ("gqa", "", test_gqa.write_gqa),
    "hallusionbench": ("hallusionbench", "", test_hallusionbench.write_bench),
    "infovqa": ("infovqa", "", test_infovqa.write_official),
    "llava_bench": ("llava_bench", "", test_llava_bench.write_bench),
    "mathvista": ("mathvista", "", test_mathvista.write_mathvista),
    "mmvet": ("mmvet", "", test_mmvet.write_mmvet),
    "nocaps": ("nocaps", "", test_nocaps.write_official),
    "ocrbench": ("ocrbench", "", test_ocrbench.write_official),
    "pope": ("pope", "", test_pope.write_pope),
    "scienceqa": ("scienceqa", "", test_scienceqa.write_official),
    "seedbench": ("seedbench", "", test_seedbench.write_official),
    "textvqa": ("textvqa", "", test_textvqa.write_textvqa),
    "vizwiz-val": ("vizwiz", "val", test_vizwiz.write_val),
    "vqav2": ("vqav2", "", test_vqav2.write_test),
    "vqav2-val": ("vqav2", "val", test_vqav2.write_val),
}
PARQUET: dict[str, Callable[[Path], Any]] = {
    "chartqa": test_chartqa.write_table,
    "docvqa": test_docvqa.write_table,
    "mmbench": test_mmbench.write_hub,
    "mme": test_mme.write_hub,
    "mmstar": test_mmstar.write,
    "ocrbench": test_ocrbench.write_table,
    "pope": test_pope.write_hub,
    "refcoco": test_refcoco.write,
    "scienceqa": test_scienceqa.write_hub,
    "seedbench": test_seedbench.write_hub,
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_wrong_value_anywhere_in_an_official_file_is_told(name: str, tmp_path: Path) -> None:
    title, variant, write = OFFICIAL[name]
    benchmark = load(title, variant)
    write(tmp_path)
    assert told(benchmark, tmp_path) is None
    refused = 0
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")]:
        whole = path.read_bytes()
        lines = [json.loads(line) for line in whole.splitlines()]
        content = lines if len(lines) > 1 or path.suffix == ".jsonl" else lines[0]
        for broken in broken_in_one_place(content):
            rows = broken if content is lines and isinstance(broken, list) else [broken]
            path.write_text("\n".join(map(json.dumps, rows)))
            refused += told(benchmark, tmp_path) is not None
        path.write_bytes(whole)
    assert refused > 10


@pytest.mark.parametrize("title", PARQUET)
def test_a_column_of_another_type_in_a_parquet_file_is_told(title: str, tmp_path: Path) -> None:
    benchmark = load(title)
    PARQUET[title](tmp_path)
    path = next(iter(sorted(tmp_path.rglob("*.parquet"))))
    table = pyarrow.parquet.read_table(path).replace_schema_metadata(None)
    assert told(benchmark, tmp_path) is None
    refused = 0
    for place, column in enumerate(table.column_names):
        for value in (None, 7, "x", ["x", None]):
            pyarrow.parquet.write_table(table.set_column(place, column, pyarrow.array([value] * len(table))), path)
            refused += told(benchmark, tmp_path) is not None
    assert refused > 5


def told(benchmark: Benchmark, data: Path) -> str | None:
    """What is said against the files; None where all questions were read and could be scored."""
    try:
        questions = read_questions(benchmark, data)
        for text, strict in (("Yes", False), ("", True)):
            benchmark.score(questions, [Answer(question.id, text) for question in questions], strict=strict)
    except EvaluationError as error:
        return str(error)
    return None


def broken_in_one_place(content: Any, depth: int = 4) -> Iterator[Any]:
    """Copies in which one value is wrong or left out: the whole, or of every list its first and of objects any."""
    yield from (wrong for wrong in WRONG if type(wrong) is not type(content))
    places: list[Any] = list(content) if isinstance(content, dict) else [0] if isinstance(content, list) else []
    if len(places) > 20 or not content or depth == 0:
        places = []
    for place in places:
        for value in broken_in_one_place(content[place], depth - 1):
            changed = copy.copy(content)
            changed[place] = value
            yield changed
        if isinstance(content, dict):
            yield {name: value for name, value in content.items() if name != place}
