"""Two results side by side, through the command that people use."""

import json
from pathlib import Path

import pytest
from pixel_world import PIXEL_WORLD, PixelModel, Pixels, write_world
from typer.testing import CliRunner

from llava_lite.cli import app
from llava_lite.evaluation.command import load_benchmark
from llava_lite.evaluation.comparison import Comparison, compare, mcnemar
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import run


def find_pixels(name: str) -> Pixels:
    assert name == "pixels"
    return load_benchmark(PIXEL_WORLD)


def compare_one(first: Path, second: Path) -> Comparison:
    (found,) = compare(first, second, find_pixels)
    return found


def test_what_two_models_differ_in_is_told_with_its_interval(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path / "sees")
    run(Pixels(), PixelModel(), data=data, out=tmp_path / "half", mode="blind")
    (tmp_path / "half" / "marks.jsonl").write_bytes((tmp_path / "half" / "marks.blind.jsonl").read_bytes())
    found = compare_one(tmp_path / "half", tmp_path / "sees")
    assert (found.first, found.second, found.n) == ({"accuracy": 0.25}, {"accuracy": 1.0}, 20)
    low, high = found.intervals["accuracy"]
    assert 0 < low < 0.75 < high <= 1
    assert (found.only_first, found.only_second, found.partial) == (0, 15, "")
    assert found.p_value == pytest.approx(2 / 2**15)


def test_a_model_does_not_differ_from_itself(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    found = compare_one(tmp_path, tmp_path)
    assert (found.intervals, found.p_value) == ({"accuracy": (0.0, 0.0)}, 1.0)


def test_only_questions_that_both_answered_count_and_it_is_said(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path / "part", limit=7)
    run(Pixels(), PixelModel(), data=data, out=tmp_path / "whole")
    found = compare_one(tmp_path / "whole", tmp_path / "part")
    assert (found.n, found.partial) == (7, "PARTIAL")
    assert "7 questions · PARTIAL" in found.table().title


def test_results_on_other_data_are_refused(data: Path, tmp_path: Path) -> None:
    other = write_world(tmp_path / "other", num_rounds=2)
    for folder in (data, other):
        run(Pixels(), PixelModel(), data=folder, out=tmp_path / "out" / folder.name)
    with pytest.raises(EvaluationError, match="results on another data"):
        compare_one(tmp_path / "out" / data.name, tmp_path / "out" / "other")
    with pytest.raises(EvaluationError, match=r"no scores.json; evaluate into this folder first"):
        compare_one(tmp_path / "out" / "other", tmp_path / "nowhere")
    with pytest.raises(EvaluationError, match="no results of the same benchmark"):
        compare_one(tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("counts", "p_value"), [((0, 0), 1.0), ((1, 9), 0.021484375), ((5, 5), 1.0), ((10, 2), 0.03857421875)]
)
def test_mcnemars_test_is_exact(counts: tuple[int, int], p_value: float) -> None:
    assert mcnemar(*counts) == pytest.approx(p_value)


def test_folders_of_several_benchmarks_are_compared_one_by_one(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (world / "shapes.jsonl").read_text().splitlines()]
    for name in ("a", "b"):
        answers = tmp_path / f"{name}.json"
        answers.write_text(json.dumps({str(row["question_id"]): row["answer"] if name == "a" else "" for row in rows}))
        out = str(tmp_path / name / "shapes")
        command = ["eval", "shapes", "--answers", str(answers), "--data", str(world), "--out", out]
        assert CliRunner().invoke(app, command).exit_code == 0
    ran = CliRunner().invoke(app, ["compare-scores", str(tmp_path / "a"), str(tmp_path / "b")])
    assert ran.exit_code == 0 and f"shapes · {len(rows)} questions" in ran.output
    assert "-1.000" in ran.output or "-0.9" in ran.output
