"""An eval file with a real, if untrained, model: what it asks, with and without images, and the same command again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llava_lite
from llava_lite.evaluation.answers import read_answers
from llava_lite.evaluation.command import Request, evaluate, load_benchmark

EVAL = Path(__file__).parents[2] / "eval"
SHAPES = EVAL / "shapes.py"
CLI = [sys.executable, "-c", "from llava_lite.cli import main; main()", "eval"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


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


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_answer_and_score_as_one_however_they_are_started(
    world: Path, llava_dir: Path, tmp_path: Path
) -> None:
    options = ["--model", str(llava_dir), "--data", str(world), "--batch-size", "5", "--mode", "normal,blind", "--out"]
    commands = {
        "one": [*CLI, "shapes", "pope", *options],
        "two": [*CLI, "shapes", "pope", "--processes", "2", *options],
        "run/shapes": [*TORCHRUN, str(SHAPES), *options],
        "run/pope": [*TORCHRUN, str(EVAL / "pope.py"), *options],
    }
    for folder, command in commands.items():
        ran = subprocess.run([*command, str(tmp_path / folder)], capture_output=True, text=True, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    for name in ("shapes", "pope"):
        one, *others = (tmp_path / folder / name for folder in ("one", "two", "run"))
        for other in others:
            assert sorted(path.name for path in other.iterdir()) == sorted(path.name for path in one.iterdir())
            for file in ("answers.jsonl", "answers.blind.jsonl"):
                assert sorted((other / file).read_bytes().split(b"\n")) == sorted(
                    (one / file).read_bytes().split(b"\n")
                )
            assert (other / "scores.json").read_bytes() == (one / "scores.json").read_bytes()
            assert (other / "report.html").read_bytes() == (one / "report.html").read_bytes()
        assert json.loads((one / "scores.json").read_text())["complete"]
