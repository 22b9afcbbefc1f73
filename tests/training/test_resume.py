"""A run that is killed and resumed is the run that was not: bit for bit, with real processes and a real kill -9."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUM_STEPS = 6


def command(out: Path, lm_dir: Path, clip_dir: Path, world: Path, *more: str, ranks: int = 1) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return [
        sys.executable,
        *torchrun,
        str(ROOT / "train" / "finetune.py"),
        f"output_dir={out}",
        f"model.vision_tower={clip_dir}",
        f"model.language_model={lm_dir}",
        f"data.path={world / 'instructions.json'}",
        f"data.image_dir={world / 'images'}",
        "batch.samples=6",
        "batch.tokens=512",
        f"max_steps={NUM_STEPS}",
        "optim.lr=1e-2",
        "save.every_steps=2",
        f"evaluate.held_out.path={world / 'dialogues.json'}",
        f"evaluate.held_out.image_dir={world / 'images'}",
        f"evaluate.benchmarks.shapes={world}",
        "evaluate.every_steps=3",
        "evaluate.limit=3",
        *more,
    ]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=300)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def kill_after(arguments: list[str], log: Path, step: int) -> None:
    """Start a run and kill -9 it, with its workers, as soon as it has logged a step."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(), start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (log.is_file() and any(row["step"] >= step for row in rows(log))):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows(log: Path) -> list[dict]:
    return [json.loads(row) for row in log.read_text().splitlines() if row.endswith("}")]


def evaluations(out: Path) -> list[dict]:
    return rows(out / "evaluations.jsonl")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of weights, optimiser state and random numbers."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, lm_dir: Path, clip_dir: Path, world: Path) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = run(command(out, lm_dir, clip_dir, world, "loader.workers=0"))
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("kills", [[1], [3, 5]], ids=["before the first save", "twice, between saves"])
def test_resumed_after_kill_equals_uninterrupted(
    uninterrupted: Path, tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path, kills: list[int]
) -> None:
    out = tmp_path / "run"
    for number, step in enumerate(kills):
        more = ["loader.workers=1"] + (["resume=auto"] if number else [])
        kill_after(command(out, lm_dir, clip_dir, world, *more), out / "log.jsonl", step)
        assert not (out / "config.json").exists()
    result = run(command(out, lm_dir, clip_dir, world, "resume=auto", "loader.workers=2"))
    assert result.returncode == 0, result.stderr
    last = f"step-{NUM_STEPS}"
    assert hashes(out / last) == hashes(uninterrupted / last)
    assert {"model.safetensors", "state/optimizer.safetensors"} == set(hashes(out / last))
    assert hashes(out)["model.safetensors"] == hashes(uninterrupted)["model.safetensors"]
    trace = [(row["step"], row["loss"], row["grad_norm"], row["lr"]) for row in rows(out / "log.jsonl")]
    assert trace == [(r["step"], r["loss"], r["grad_norm"], r["lr"]) for r in rows(uninterrupted / "log.jsonl")]
    assert [step for step, *_ in trace] == list(range(1, NUM_STEPS + 1))
    assert evaluations(out) == evaluations(uninterrupted)
    assert [row["step"] for row in evaluations(out)] == [0, 3, 6]
    best = [row["step"] for row in evaluations(out) if row["best"]][-1]
    assert sorted(path.name for path in out.glob("step-*")) == sorted({f"step-{best}", last})


def counts(row: dict, *, ranks: int) -> dict[str, float]:
    """What a step did, from its rates."""
    rates = row["tokens_per_s"] | {"samples": row["samples_per_s"], "TFLOP": row["tflops"] * ranks}
    return {name: rate * row["seconds"] for name, rate in rates.items()}


@pytest.mark.slow
@pytest.mark.multiprocess
def test_an_adapter_beside_4_bits_resumed_after_kill_equals_uninterrupted(
    tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path
) -> None:
    """Its dropout too: a step's random numbers follow from its number."""
    more = ["loader.workers=0", "lora.rank=4", "lora.dropout=0.3", "model.quantize=4bit"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    result = run(command(whole, lm_dir, clip_dir, world, *more))
    assert result.returncode == 0, result.stderr
    kill_after(command(out, lm_dir, clip_dir, world, *more), out / "log.jsonl", 3)
    assert not (out / "config.json").exists()
    result = run(command(out, lm_dir, clip_dir, world, *more, "resume=auto"))
    assert result.returncode == 0, result.stderr
    last = f"step-{NUM_STEPS}"
    assert hashes(out / last) == hashes(whole / last)
    files = {"adapter_model.safetensors", "projector.safetensors"}
    assert files | {"state/optimizer.safetensors"} == set(hashes(out / last))
    assert all(hashes(out)[name] == hashes(whole)[name] for name in files)
    trace = [(row["step"], row["loss"], row["grad_norm"]) for row in rows(out / "log.jsonl")]
    assert trace == [(row["step"], row["loss"], row["grad_norm"]) for row in rows(whole / "log.jsonl")]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_ranks_equal_one(uninterrupted: Path, tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path) -> None:
    result = run(command(tmp_path / "run", lm_dir, clip_dir, world, "loader.workers=0", ranks=2))
    assert result.returncode == 0, result.stderr
    for two, one in zip(rows(tmp_path / "run" / "log.jsonl"), rows(uninterrupted / "log.jsonl"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert two["batch"] == one["batch"]
        rounding = max(2e-3, 1e-4 / min(one["seconds"], two["seconds"]))  # the rows' own: of seconds to 1e-4
        assert counts(two, ranks=2) == pytest.approx(counts(one, ranks=1), rel=rounding)
    first = [rows(folder / "log.jsonl")[0] for folder in (tmp_path / "run", uninterrupted)]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=1e-6)
    assert first[0]["grad_norm"] == pytest.approx(first[1]["grad_norm"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_rank_without_images_beside_one_that_has_some_trains_on(
    tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path
) -> None:
    """Each step has a sample with an image and one without, in a row of its own each; of one the last has no row."""
    records = json.loads((world / "instructions.json").read_text())[:5]
    text = {"conversations": [{"from": "human", "value": "What is red?"}, {"from": "gpt", "value": "A color."}]}
    (tmp_path / "mix.json").write_text(json.dumps([r for record in records for r in (record, text)][:9]))
    more = [
        f"data.path={tmp_path / 'mix.json'}",
        "batch.samples=2",
        "batch.tokens=250",
        "batch.packing=false",
        "loader.workers=0",
    ]
    traces = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        result = run(command(out, lm_dir, clip_dir, world, *more, ranks=ranks))
        assert result.returncode == 0, result.stderr
        traces.append(json.loads((out / "log.jsonl").read_text().splitlines()[0]))
    assert traces[1]["loss"] == pytest.approx(traces[0]["loss"], rel=1e-6)
    assert traces[1]["grad_norm"] == pytest.approx(traces[0]["grad_norm"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_processes_that_see_different_data_stop_together(
    tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank, data in enumerate(("instructions.json", "captions.json")):
        arguments = command(tmp_path / "run", lm_dir, clip_dir, world, f"data.path={world / data}")
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = environment() | ranks | where
        processes.append(subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert all("the processes see different data" in text for text in told)


@pytest.mark.slow
def test_another_seed_or_step_size_is_not_resumed(
    uninterrupted: Path, tmp_path: Path, lm_dir: Path, clip_dir: Path, world: Path
) -> None:
    import shutil

    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    result = run(command(tmp_path / "run", lm_dir, clip_dir, world, "resume=auto", "seed=7"))
    assert result.returncode == 2
    assert "belongs to another run (seed: 42 then, 7 now)" in result.stderr
