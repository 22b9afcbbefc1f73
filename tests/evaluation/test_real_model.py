"""An eval file with a real, if untrained, model: what it asks, with and without images, and the same command again."""

import json
from pathlib import Path

import pytest

import llava_lite
from llava_lite.evaluation.answers import read_answers
from llava_lite.evaluation.command import Request, evaluate, load_benchmark

SHAPES = Path(__file__).parents[2] / "eval" / "shapes.py"


@pytest.mark.slow
def test_a_checkpoint_answers_and_is_not_asked_twice(world: Path, llava_dir: Path, tmp_path: Path) -> None:
    options = {"model": str(llava_dir), "data": world, "out": tmp_path, "modes": ["normal", "blind"], "limit": 2}
    results = evaluate([load_benchmark(SHAPES)], Request(**options), llava_lite.open_model)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert results == {"shapes": written}
    assert {mode: scores["n"] for mode, scores in written["modes"].items()} == {"normal": 2, "blind": 2}
    assert len(written["model_sha256"]) == 64
    seeing, blind = (read_answers(tmp_path / f"answers{mode}.jsonl") for mode in ("", ".blind"))
    assert [answer.text for answer in seeing] != [answer.text for answer in blind]

    answers = {path: path.read_bytes() for path in tmp_path.glob("answers*.jsonl")}
    assert evaluate([load_benchmark(SHAPES)], Request(**options), llava_lite.open_model) == results
    assert {path: path.read_bytes() for path in tmp_path.glob("answers*.jsonl")} == answers
