"""The benches run: each through its own command, on a toy shape; and the baseline they measure is the original's."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/training.py as a module; a script finds its neighbours beside it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("training")


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, str(BENCH / script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_chunks_are_dealt_as_in_the_original(training: ModuleType) -> None:
    lengths = [9, 7, 6, 5, 4, 1]
    assert training.even_chunks(range(6), lengths, 2) == [[0, 3, 5], [1, 2, 4]]
    assert training.even_chunks(range(5), lengths, 2) == [[0, 2, 4], [1, 3]]


def test_grouped_batches_have_one_modality_and_the_rest_comes_last(training: ModuleType) -> None:
    images = [i % 4 > 0 for i in range(40)]  # 30 and 10: 7 megabatches and 2, and 2 left of each
    order = training.modality_length_order(range(40), images, 2, 2, torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(40))
    mixed = [len({images[i] for i in order[start : start + 4]}) > 1 for start in range(0, 36, 4)]
    assert not any(mixed)
    assert len({images[i] for i in order[36:]}) == 2
    assert order[36:] == sorted(order[36:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured_and_that_is_said() -> None:
    assert run("gpu.py") == "no GPU here: nothing was measured\n"


@pytest.mark.slow
def test_the_gpu_bench_runs_both_stages() -> None:
    table = run("gpu.py", "--tiny")
    assert "align" in table and "finetune" in table


@pytest.mark.slow
def test_the_training_bench_compares_equal_losses() -> None:
    table = run("training.py", "--tiny")  # it fails where the losses disagree
    assert all(name in table for name in ("ours", "Trainer", "grouped", "all 16 steps agree"))


@pytest.mark.slow
def test_the_inference_bench_compares_equal_answers() -> None:
    table = run("inference.py", "--tiny")  # it fails where they do not say the same
    assert all(name in table for name in ("one", "one by one", "together", "next turn", "both say the same"))


@pytest.mark.slow
def test_the_evaluation_bench_compares_equal_answers() -> None:
    table = run("evaluation.py", "--tiny", "--questions", "20")  # it fails where they do not answer the same
    assert all(name in table for name in ("one at a time", "batched", "ahead", "likelihood", "the same answers"))
