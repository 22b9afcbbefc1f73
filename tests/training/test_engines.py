"""Every engine on every number of processes does what one process does: the real command, real processes."""

import json
import shutil
import sys
import time
from functools import cache
from pathlib import Path
from random import randrange

import pytest
import torch
from safetensors.torch import load_file

from tests.training.ranks import Ranks
from tests.training.test_resume import NUM_STEPS, command, evaluations, hashes, rows, run

ENGINES = {
    "ddp": [],
    "zero2": ["parallel.strategy=zero2"],
    "zero3": ["parallel.strategy=zero3", "gradient_checkpointing=full"],
    "zero3 offloaded": ["parallel.strategy=zero3", "parallel.offload=all"],
    "fsdp2": ["parallel.strategy=fsdp2", "gradient_checkpointing=2"],
}
SHARDED = ["zero2", "zero3", "fsdp2"]
ONE_STEP_OF_SGD = ["max_steps=1", "optim.kind=sgd", "optim.lr=1", "optim.warmup_ratio=0", "optim.clip=null"]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


@pytest.fixture(scope="module")
def mixed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with an image and records without, one after the other, so that ranks differ in what they have."""
    records = json.loads((world / "instructions.json").read_text())[:20]
    text = {"conversations": [{"from": "human", "value": "What is red?"}, {"from": "gpt", "value": "A color."}]}
    path = tmp_path_factory.mktemp("mixed") / "mixed.json"
    path.write_text(json.dumps([r for record in records for r in (record, text)]))
    return path


@pytest.fixture(scope="module")
def train(lm_dir: Path, clip_dir: Path, world: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory):
    """Run the command on the mixed data and return the run's folder."""

    def run_it(*more: str, ranks: int = 1, out: Path | None = None) -> Path:
        out = out or tmp_path_factory.mktemp("out") / "run"
        few = ["data.path=" + str(mixed), "batch.tokens=300", "loader.workers=0"]
        _, recipe, *arguments = command(out, lm_dir, clip_dir, world, *few, *more)
        result = Ranks(Path(recipe), arguments, ranks).wait()
        assert result.returncode == 0, result.stderr[-3000:]
        return out

    return run_it


@pytest.fixture(scope="module")
def alone(train) -> dict[str, Path]:
    """What one plain process does."""
    return {"sgd": train(*ONE_STEP_OF_SGD), "adamw": train("save.keep=9")}


@pytest.fixture(scope="module")
def on_three(train):
    """Return the run of an engine on three processes, which is made once."""
    return cache(lambda engine: train(*ENGINES[engine], "save.keep=9", ranks=3))


def said(out: Path) -> dict[str, str]:
    """What was answered before the first step, by question."""
    answers = (out / "evaluations" / "step-0" / "shapes" / "answers.jsonl").read_text().splitlines()
    return {answer["question_id"]: answer["text"] for answer in map(json.loads, answers)}


def kill_ranks_after(running: Ranks, log: Path, step: int) -> None:
    """kill -9 a run as soon as it has logged a step."""
    while not (log.is_file() and any(row["step"] >= step for row in rows(log))):
        assert running.alive, running.stderr()
        time.sleep(0.002)
    running.kill()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_learn_what_one_does(train, alone: dict[str, Path], engine: str) -> None:
    """With plain SGD at rate 1 and no clipping, a weight's change is its gradient."""
    two = train(*ONE_STEP_OF_SGD, *ENGINES[engine], ranks=2)
    (one_row,), (row,) = rows(alone["sgd"] / "log.jsonl"), rows(two / "log.jsonl")
    assert row["loss"] == pytest.approx(one_row["loss"], abs=1e-5)
    assert row["grad_norm"] == pytest.approx(one_row["grad_norm"], rel=1e-6)
    for found, one in zip(evaluations(two), evaluations(alone["sgd"]), strict=True):
        assert found["figures"] == pytest.approx(one["figures"], abs=1e-5)
    assert said(two) == said(alone["sgd"])
    expected = weights(alone["sgd"])
    for name, weight in weights(two).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("engine", SHARDED)
def test_several_steps_of_adamw_stay_together_and_a_killed_run_goes_on_bit_for_bit(
    train,
    on_three,
    alone: dict[str, Path],
    tmp_path: Path,
    lm_dir: Path,
    clip_dir: Path,
    world: Path,
    mixed: Path,
    engine: str,
) -> None:
    whole = on_three(engine)
    for one, three in zip(rows(alone["adamw"] / "log.jsonl"), rows(whole / "log.jsonl"), strict=True):
        assert three["loss"] == pytest.approx(one["loss"], rel=1e-4)
    out = tmp_path / "run"
    few = ["data.path=" + str(mixed), "batch.tokens=300", "loader.workers=1", *ENGINES[engine]]
    _, recipe, *arguments = command(out, lm_dir, clip_dir, world, *few)
    kill_ranks_after(Ranks(Path(recipe), arguments, 3), out / "log.jsonl", randrange(1, NUM_STEPS - 1))
    train(*ENGINES[engine], "resume=auto", ranks=3, out=out)
    last = f"step-{NUM_STEPS}"
    assert hashes(out / last) == hashes(whole / last)
    assert {"model.safetensors", "state/optimizer.safetensors"} == set(hashes(out / last))
    trace = [(row["step"], row["loss"], row["grad_norm"]) for row in rows(out / "log.jsonl")]
    assert trace == [(row["step"], row["loss"], row["grad_norm"]) for row in rows(whole / "log.jsonl")]


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_a_rank_that_fails_ends_the_run_with_its_own_message(
    tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path, engine: str
) -> None:
    records = json.loads((world / "instructions.json").read_text())[:12]
    shutil.copytree(world / "images", tmp_path / "images")
    broken = tmp_path / "images" / records[5]["image"]
    broken.write_bytes(broken.read_bytes()[:100])
    (tmp_path / "broken.json").write_text(json.dumps(records))
    data = [f"data.path={tmp_path / 'broken.json'}", f"data.image_dir={tmp_path / 'images'}", *ENGINES[engine]]
    _, _, *rest = command(tmp_path / "run", lm_dir, clip_dir, world, *data)
    cli = [sys.executable, "-c", "from llava_lite.cli import main; main()", "train", "finetune", "--processes", "2"]
    result = run([*cli, *rest])
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("the run ended with rank ") and f"{broken.name}: broken image" in last
    assert "Traceback" not in result.stderr


def test_an_error_while_all_answer_together_is_told_by_the_process_that_had_it(
    tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path
) -> None:
    """Two questions, the longer one about a broken image: it is asked first, by the main process."""
    shutil.copytree(world, tmp_path / "world")
    file = tmp_path / "world" / "shapes.jsonl"
    questions = sorted(map(json.loads, file.read_text().splitlines()), key=lambda row: len(row["text"]))
    short, long = questions[0], next(row for row in questions[::-1] if row["image"] != questions[0]["image"])
    file.write_text(json.dumps(short) + "\n" + json.dumps(long) + "\n")
    image = tmp_path / "world" / "images" / long["image"]
    image.write_bytes(image.read_bytes()[:100])
    broken = f"evaluate.benchmarks.shapes={tmp_path / 'world'}"
    _, recipe, *arguments = command(tmp_path / "run", lm_dir, clip_dir, world, "loader.workers=0", broken)
    result = Ranks(Path(recipe), arguments, 2).wait()
    assert result.returncode != 0
    assert "rank 0: error: " in result.stderr and "broken image" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("before", "after"), [("zero3", "ddp"), ("ddp", "fsdp2"), ("fsdp2", "zero2"), ("zero2", "zero3")]
)
def test_another_engine_on_other_processes_goes_on(
    train, on_three, alone: dict[str, Path], tmp_path: Path, before: str, after: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(alone["adamw"] if before == "ddp" else on_three(before), out)
    (out / "config.json").unlink()
    for step in (4, 6):  # as if it had stopped after the second
        shutil.rmtree(out / f"step-{step}")
    shutil.rmtree(out / "step-3", ignore_errors=True)  # where an evaluation was the best
    train(*ENGINES[after], "resume=auto", ranks=2 if after == "fsdp2" else 1, out=out)
    for one, gone_on in zip(rows(alone["adamw"] / "log.jsonl"), rows(out / "log.jsonl"), strict=True):
        assert gone_on["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert gone_on["tokens_per_s"].keys() == one["tokens_per_s"].keys()
