"""What is printed and written: all modes side by side, and a partial run never as if whole."""

from pathlib import Path

import pytest
from pixel_world import PixelModel, Pixels, read_scores

from llava_lite.evaluation.command import Request, evaluate
from llava_lite.evaluation.runner import run


def test_visual_gain_is_normal_minus_blind_and_all_modes_stand_together(data: Path, tmp_path: Path) -> None:
    for mode in ("normal", "blind", "shuffled"):
        run(Pixels(), PixelModel(), data=data, out=tmp_path, mode=mode)
    written = read_scores(tmp_path)
    assert list(written["modes"]) == ["normal", "blind", "shuffled"]
    assert written["visual_gain"] == {
        "figure": "accuracy", "overall": 0.75, "kinds": {"short": 0.5, "long": 1.0}, "n": 20, "ci95": [0.25, 1.0]
    }  # fmt: skip


def test_visual_gain_compares_only_questions_that_both_modes_answered(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text(answers.read_text().replace('"text": "white"', '"text": "mauve"'))  # not among the first three
    run(Pixels(), PixelModel(), data=data, out=tmp_path, mode="blind", limit=3)
    gain = read_scores(tmp_path)["visual_gain"]
    assert gain["overall"] == pytest.approx(2 / 3)
    assert (gain["kinds"], gain["n"]) == ({"short": 0.5, "long": 1.0}, 3)
    assert read_scores(tmp_path)["complete"] is False


def test_the_table_shows_kinds_that_only_a_later_mode_has(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Pixels(), PixelModel(name="m"), data=data, out=tmp_path / "out", mode="blind")
    evaluate([Pixels()], Request(model="m", data=data, out=tmp_path / "out", limit=1), PixelModel)
    assert "long" in capsys.readouterr().out


def test_a_limited_run_is_marked_partial_until_it_is_finished(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model": "m", "data": data, "out": tmp_path / "out"}
    results = evaluate([Pixels()], Request(**options, limit=3), lambda name: PixelModel())
    assert "PARTIAL: normal 3 of 20 questions" in " ".join(capsys.readouterr().out.split())
    assert results["pixels"] == read_scores(tmp_path / "out")
    assert results["pixels"]["complete"] is False
    assert (results["pixels"]["modes"]["normal"]["n"], results["pixels"]["modes"]["normal"]["total"]) == (3, 20)
    assert "Not a result. PARTIAL: normal 3 of 20 questions answered." in (tmp_path / "out" / "report.html").read_text()
    assert evaluate([Pixels()], Request(**options), lambda name: PixelModel())["pixels"]["complete"] is True
    assert "PARTIAL" not in capsys.readouterr().out
    assert "PARTIAL" not in (tmp_path / "out" / "report.html").read_text()


def test_kinds_may_look_like_markup(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "pixels.jsonl"
    path.write_text(path.read_text().replace('"kind": "short"', '"kind": "[/red]"'))
    evaluate([Pixels()], Request(model="m", data=data, out=tmp_path / "out"), PixelModel)
    assert "[/red]" in capsys.readouterr().out
