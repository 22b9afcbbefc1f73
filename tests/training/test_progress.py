"""What a run says of itself: counted exactly, over all steps and ranks, here and in the trackers."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import torch

from llava_lite.flops import Cost
from llava_lite.training import throughput
from llava_lite.training.config import LogConfig, RunConfig
from llava_lite.training.engine import StepResult
from llava_lite.training.progress import RunLog, fit_in
from llava_lite.training.resume import RunError, find_start
from llava_lite.training.throughput import _sum_of_ids, peak_flops

COST = Cost(per_tile=7_000, per_token=100, per_target=10, per_pair={None: 1})


class Module:
    def cost(self, tile_size: int) -> Cost:
        assert tile_size == 32
        return COST


@dataclass(frozen=True)
class Share:
    """A rank's share of a step: one document of 9 tokens with a tile and 4 targets."""

    ids: Sequence[str] = ("a",)
    num_samples: int = 1
    num_targets: int = 4
    tokens: dict[str, int] = field(default_factory=lambda: {"text": 5, "image": 4, "learnt": 4})
    documents: Sequence[int] = (9,)
    num_tiles: int = 1
    tile_size: int = 32


FLOPS = 7_000 + 900 + 40 + 45


def write(folder: Path, steps: range, *, num_steps: int = 6, every_steps: int = 1, to: tuple = ()) -> list[dict]:
    """Log steps of a second each, a quarter of it waiting, and return the rows."""
    config = RunConfig(output_dir=folder, log=LogConfig(every_steps=every_steps, to=to))
    folder.mkdir(exist_ok=True)
    with RunLog(config, Module(), start=steps.start - 1, num_steps=num_steps) as log:
        for number in steps:
            log.step(number, StepResult(1 / number, 0.5, {"projector": 0.1}), Share(), seconds=1.0, waited=0.25)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_rates_are_over_all_steps_since_the_last_row(tmp_path: Path) -> None:
    rows = write(tmp_path, range(1, 6), num_steps=5, every_steps=3)
    assert [row["step"] for row in rows] == [3, 5]
    for row in rows:
        assert row["tokens_per_s"] == {"text": 5, "image": 4, "learnt": 4} and row["samples_per_s"] == 1
        assert row["seconds"] == 1 and row["data_wait"] == 0.25
        assert row["tflops"] * 1e12 == pytest.approx(FLOPS, rel=1e-3)


def test_a_run_notes_on_what_it_was_started_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, range(1, 6))
    monkeypatch.setattr("llava_lite.distributed.gather", lambda name: [name, "H300"])
    for start in (4, 3, 3):  # what all but the last of these did was lost, and done again
        write(tmp_path, range(start, 5))
    first, last = (json.loads(line) for line in (tmp_path / "starts.jsonl").read_text().splitlines())
    assert first["step"] == 0 and list(first["devices"].values()) == [1] and first["dtype"] == "float32"
    assert last["step"] == 2 and last["devices"] == {**first["devices"], "H300": 1}
    assert last["torch"] == torch.__version__


def test_mfu_is_over_the_peak_of_all_devices_and_left_out_where_none_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mfu" not in write(tmp_path / "cpu", range(1, 2))[0]
    monkeypatch.setattr(throughput, "peak_flops", lambda device: 10 * FLOPS)
    assert write(tmp_path / "gpu", range(1, 2))[0]["mfu"] == 0.1


@pytest.mark.parametrize(("name", "known"), [("NVIDIA H200", 989.4e12), ("NVIDIA H300", None), ("Tesla T4", None)])
def test_a_peak_is_never_guessed(name: str, known: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = peak_flops(torch.device("cuda"))
    assert peak == known if known else peak != peak


def test_the_hash_of_a_step_is_that_of_its_records_on_any_ranks_in_any_order() -> None:
    whole = _sum_of_ids(["a", "b", "c", "d"])
    parts = [_sum_of_ids(ids) for ids in (["d", "b"], [], ["a", "c"])]
    assert [sum(words) for words in zip(*parts, strict=True)] == whole
    assert whole != _sum_of_ids(["a", "b", "c", "e"]) and whole != _sum_of_ids(["a", "b", "c", "d", "d"])


def test_a_line_takes_what_fits() -> None:
    words = ["loss 1", "2 tokens/s", "data wait 3%"]
    assert [fit_in(width, words) for width in (5, 17, 18, 31, 32)] == [
        *["loss 1"] * 2,
        *["loss 1  2 tokens/s"] * 2,
        "loss 1  2 tokens/s  data wait 3%",
    ]


FAKE = """
import json
from pathlib import Path
def init(**given):
    return Run(given)
class Run:
    def __init__(self, given):
        self.note("init", given)
    def note(self, *what):
        with Path("{notes}").open("a") as file:
            file.write(json.dumps(what) + "\\n")
    def log(self, figures, step):
        self.note("log", figures, step)
    def finish(self):
        self.note("finish")
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that write what they are told into files: their public calls, as their pages have them."""
    for name in ("wandb", "trackio"):
        (tmp_path / f"{name}.py").write_text(FAKE.replace("{notes}", str(tmp_path / f"{name}.txt")))
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "tensorboard.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    board = ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            self.notes = tmp_path / "tensorboard.txt"
            self.note("init", folder, purge_step)

        def note(self, *what: object) -> None:
            with self.notes.open("a") as file:
                file.write(json.dumps(what) + "\n")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.note(name, value, step)

        def flush(self) -> None: ...

        def close(self) -> None:
            self.note("close")

    board.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return tmp_path


def notes(folder: Path, name: str) -> list:
    return [json.loads(line) for line in (folder / f"{name}.txt").read_text().splitlines()]


def test_trackers_get_the_figures_of_the_log(fakes: Path) -> None:
    [row] = write(fakes / "run", range(1, 2), num_steps=1, to=("tensorboard", "trackio", "wandb"))
    for name in ("trackio", "wandb"):
        [_, given], [_, figures, step], [last] = notes(fakes, name)
        assert (step, last, figures["loss"], figures["lr/projector"]) == (1, "finish", 1.0, 0.1)
        assert figures["tokens_per_s/text"] == row["tokens_per_s"]["text"] and "batch" not in figures
        assert given["project"] == "llava-lite" and given["config"]["log"]["to"] == ["tensorboard", "trackio", "wandb"]
    board = notes(fakes, "tensorboard")
    assert board[0] == ["init", str(fakes / "run" / "tensorboard"), None] and board[-1] == ["close"]
    assert ["loss", 1.0, 1] in board and ["tokens_per_s/text", row["tokens_per_s"]["text"], 1] in board


def test_a_resumed_run_goes_on_in_the_trackers_and_a_new_one_begins(fakes: Path) -> None:
    names = ("tensorboard", "trackio", "wandb")
    for first in (1, 3, 1):
        write(fakes / "run", range(first, 5), to=names)
    for name, key in (("trackio", "name"), ("wandb", "id")):
        runs = [what[1] for what in notes(fakes, name) if what[0] == "init"]
        assert runs[0][key] == runs[1][key] != runs[2][key] and runs[1]["resume"] == "allow"
    assert [what[2] for what in notes(fakes, "tensorboard") if what[0] == "init"] == [None, 3, None]


def test_a_tracker_that_is_not_installed_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava_lite.training.trackers.find_spec", lambda name: None)
    config = RunConfig(output_dir=tmp_path, log=LogConfig(to=("wandb",)))
    with pytest.raises(RunError, match=r"log.to: wandb not installed; pip install 'llava-lite\[log\]'"):
        find_start(config)
