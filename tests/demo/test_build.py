"""The demo keeps what has not changed, goes on with what was interrupted, and reports every figure it promises."""

import json
from pathlib import Path

import pytest

from llava_lite.demo.build import Stage, build_demo, run_stages


def staged(log: list[str], *, second: str = "1", fail: bool = False) -> list[Stage]:
    """Three stages in a row that note down when they run, and whether they resume."""

    def stage(name: str, needs: tuple[str, ...], settings: str, fails: bool = False) -> Stage:
        def run(resume: bool) -> None:
            log.append(f"{name} {'resumes' if resume else 'starts'}")
            if fails:
                raise KeyboardInterrupt

        return Stage(name, needs, settings, run)

    return [stage("a", (), "1"), stage("b", ("a",), second, fail), stage("c", ("b",), "1")]


def test_what_is_finished_and_unchanged_is_kept(tmp_path: Path) -> None:
    log: list[str] = []
    first = run_stages(staged(log), tmp_path)
    assert run_stages(staged(log), tmp_path) == first
    assert log == ["a starts", "b starts", "c starts"]


def test_a_changed_stage_runs_again_and_so_does_what_needs_it(tmp_path: Path) -> None:
    log: list[str] = []
    run_stages(staged(log), tmp_path)
    run_stages(staged(log, second="2"), tmp_path)
    assert log[3:] == ["b starts", "c starts"]


def test_an_interrupted_stage_is_resumed_unless_it_has_changed(tmp_path: Path) -> None:
    log: list[str] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_stages(staged(log, fail=True), tmp_path)
    run_stages(staged(log, second="2"), tmp_path)
    assert log == ["a starts", "b starts", "b resumes", "b starts", "c starts"]


@pytest.mark.slow
def test_the_short_demo_reports_every_figure_and_a_second_one_trains_nothing(tmp_path: Path) -> None:
    build_demo(out=tmp_path, short=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["accuracy"]) == {"aligned", "finetuned", "blind", "shuffled"}
    assert set(report["by_kind"]["finetuned"]) > {"color", "shape", "where", "count", "exist", "describe"}
    assert 0 <= report["pope_f1"] <= 1 and set(report["caption_loss"]) == {"true_image", "shuffled_image"}
    assert report["seconds"]["total"] > report["seconds"]["finetune"] > 0 < report["peak_memory_mb"] < 4000
    assert report["versions"]["torch"] and report["seeds"]["finetune"] == 42
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/png') > 10 and "http" not in page.replace("http-equiv", "")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/model.safetensors")}
    build_demo(out=tmp_path, short=True)
    assert before and before == {p: p.stat().st_mtime_ns for p in before}
