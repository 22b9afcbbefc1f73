"""`llava-lite compare` names the first step at which two runs part, and says whether the records did."""

import json
import sys
from pathlib import Path

import pytest

from llava_lite.cli import main

LOSSES = [2.0, 1.5, 1.25, 1.125, 1.0]


def write_run(folder: Path, losses: list[float], *, batches: str = "abcde", lr: float = 1e-3) -> Path:
    folder.mkdir()
    rows = [{"step": n, "loss": loss, "batch": batches[n - 1]} for n, loss in enumerate(losses, start=1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "train.yaml").write_text(f"output_dir: {folder}\nseed: 1\noptim:\n  lr: {lr}\n")
    return folder


def compare(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["llava-lite", "compare", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_equal_runs_are_equal_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / name, LOSSES) for name in "ab"]
    with (runs[1] / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "los')  # killed while it wrote
    assert compare(monkeypatch, *runs) == 0
    printed = capsys.readouterr().out
    assert "settings: equal" in printed and "losses: equal in all 5 steps" in printed


def test_the_last_bit_of_a_loss_is_a_difference_and_a_tolerance_forgives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = write_run(tmp_path / "a", LOSSES), write_run(tmp_path / "b", [*LOSSES[:3], LOSSES[3] + 2**-52, 1.0])
    assert compare(monkeypatch, *runs) == 1
    printed = capsys.readouterr().out
    assert "first difference: step 4, whose losses are 2.2e-16 apart" in printed
    assert "it learnt from the same records" in printed
    assert compare(monkeypatch, *runs, "--tolerance", "1e-9") == 0


def test_other_records_and_other_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = (
        write_run(tmp_path / "a", LOSSES),
        write_run(tmp_path / "b", [2.0, 1.5, 1.5, 1.5, 1.5], batches="abxyz", lr=2e-3),
    )
    assert compare(monkeypatch, *runs) == 1
    printed = capsys.readouterr().out
    assert "first difference: step 3, whose losses are 0.25 apart\nit learnt from other records:" in printed
    assert "optim.lr  0.001  0.002" in printed and "output_dir" not in printed
    assert [line.split() for line in printed.splitlines()[-6:]] == [
        ["step", "loss", "of", "A", "loss", "of", "B", "apart", "records"],
        ["1", "2", "2", "same"],
        ["2", "1.5", "1.5", "same"],
        ["3", "1.25", "1.5", "0.25", "other"],
        ["4", "1.125", "1.5", "0.38", "other"],
        ["5", "1", "1.5", "0.5", "other"],
    ]


def test_a_run_that_goes_further_is_not_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(monkeypatch, write_run(tmp_path / "a", LOSSES[:3]), write_run(tmp_path / "b", LOSSES)) == 1
    assert "losses: equal in all 3 steps that both logged\nbut B goes further" in capsys.readouterr().out


def test_what_is_not_a_run_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a", LOSSES)
    assert compare(monkeypatch, run, tmp_path / "gone") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'gone'}: no log.jsonl here;")
    late = write_run(tmp_path / "b", LOSSES)
    (late / "log.jsonl").write_text('{"step": 10, "loss": 1.0}\n')
    assert compare(monkeypatch, run, late) == 2
    assert "logged no step in common" in capsys.readouterr().err
    assert compare(monkeypatch, run) == 2
