"""What a run did is added up from its log; stages are found in order, and each once."""

import json
from pathlib import Path

import pytest
import yaml

from llava_lite.card.stages import CardError, read_stages


def write_run(folder: Path, *, rows: list[dict], **model: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.yaml").write_text(yaml.safe_dump({"output_dir": str(folder), "model": model}))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def row(step: int, *, loss: float = 1.0, seconds: float = 2.0) -> dict:
    return {
        "step": step,
        "loss": loss,
        "seconds": seconds,
        "samples_per_s": 4.0,
        "tokens_per_s": {"text": 10.0},
        "lr": {"projector": 1},
    }


def test_totals_count_the_steps_between_rows(tmp_path: Path) -> None:
    rows = [row(10, seconds=2.0), row(20, seconds=1.0), row(23, loss=0.5, seconds=3.0)]
    [stage] = read_stages([write_run(tmp_path / "run", rows=rows)])
    totals = stage.totals
    assert (totals.steps, totals.seconds, totals.samples, totals.tokens) == (23, 39.0, 156.0, {"text": 390.0})
    assert totals.loss == 0.5  # of three rows, a tenth is one


def test_the_loss_at_the_end_is_the_mean_of_the_last_tenth_and_of_no_more_than_fifty_steps(tmp_path: Path) -> None:
    for count, mean in ((40, 38.5), (1000, 975.5)):
        run = write_run(tmp_path / str(count), rows=[row(step, loss=step) for step in range(1, count + 1)])
        assert read_stages([run])[0].totals.loss == mean


def test_stages_come_in_order_and_once_even_in_a_circle(tmp_path: Path) -> None:
    tower = write_run(tmp_path / "tower", rows=[row(1)], clip="nowhere")
    align = write_run(tmp_path / "align", rows=[row(1)], vision_tower=str(tower), language_model="a/b")
    finetune = write_run(tmp_path / "finetune", rows=[row(1)], checkpoint=str(align))
    more = write_run(tmp_path / "more", rows=[row(1)], checkpoint=str(finetune), vision_tower=str(tower))
    assert [stage.name for stage in read_stages([more])] == ["tower", "align", "finetune", "more"]
    assert [stage.name for stage in read_stages([align, more])] == ["tower", "align", "finetune", "more"]
    settings = {"output_dir": str(tower), "model": {"clip": str(more)}}
    (tower / "train.yaml").write_text(yaml.safe_dump(settings))
    assert sorted(stage.name for stage in read_stages([more])) == ["align", "finetune", "more", "tower"]


def test_a_run_is_found_from_its_own_place_and_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/align"), rows=[row(1)])
    write_run(Path("runs/finetune"), rows=[row(1)], checkpoint="runs/align")
    assert len(read_stages([Path("runs/finetune")])) == 2
    monkeypatch.chdir("/")
    assert len(read_stages([tmp_path / "runs" / "finetune"])) == 2


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"no train.yaml says how it was trained"):
        read_stages([tmp_path])
