"""What `llava-lite budget` says of memory, beside what a process of the operating system really took.

    python bench/budget.py                  # every engine, in one process each, on the CPU in fp32; about four minutes
    python bench/budget.py --engine ddp

Each case is a process of its own: it makes a model of 35 million random weights, trains two steps of two batches, and
reports how far its resident memory rose at most above what it was before, once a tiny run had touched all code. The
estimate is of the same shape, batch, engine and dtype. Sharded engines run with one process, so nothing is shared out:
what is checked is what they hold, not how they divide it. GPUs: bench/gpu.py prints the estimate beside the peak.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import psutil
import torch
from rich.console import Console
from transformers import CLIPVisionConfig, LlamaConfig

from llava_lite import distributed
from llava_lite.budget.activations import Row, make_batch, measure_activations
from llava_lite.budget.shapes import Shape
from llava_lite.budget.states import Strategy, count_sizes, find_states
from llava_lite.models.adapter import Lora
from llava_lite.training.config import OptimConfig, ParallelConfig
from llava_lite.training.engine import make_engine
from llava_lite.training.memory import checkpoint_layers

VISION = CLIPVisionConfig(
    hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, image_size=112, patch_size=14
)
TEXT = LlamaConfig(vocab_size=8000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8)
ROW = Row(num_tokens=512, num_targets=256, num_tiles=4, num_visual=256)
ENGINES = {"ddp": ("none", "full"), "zero2": ("none",), "zero3": ("none",), "fsdp2": ("none",)}
"""And with which checkpointing each is tried."""
STAGES = {
    "align": Shape(VISION, TEXT, "mlp2x_gelu", "crop", ("projector",)),
    "finetune": Shape(VISION, TEXT, "mlp2x_gelu", "pad", ("projector", "language_model")),
    "lora": Shape(VISION, TEXT, "mlp2x_gelu", "pad", ("projector", "language_model"), Lora(rank=32)),
}
MIB = 2**20


def estimate(engine: str, stage: str, checkpointing: str) -> float:
    """Bytes at the fullest moment, by the budget."""
    shape = STAGES[stage]
    sizes = count_sizes(shape.make(torch.float32), shape, kind="adamw")
    activations = measure_activations(
        shape,
        ROW,
        checkpointing=checkpointing,  # type: ignore[arg-type]
        dtype=torch.float32,
        zero3=engine == "zero3" and stage != "finetune",
    )
    return find_states(sizes, Strategy(engine), kind="adamw", count=1, overlap=False).peak(activations.total)


def measure(engine: str, stage: str, checkpointing: str) -> int:
    """Bytes that this process takes at most for a run, beside what it takes once a tiny run has touched all code."""
    distributed.start(alone=engine != "ddp")
    shape = STAGES[stage]
    tiny = LlamaConfig(**TEXT.to_dict() | {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64})
    train(replace(shape, text=tiny), engine if engine in ("ddp", "fsdp2") else "ddp", checkpointing)
    if engine.startswith("zero"):
        import deepspeed  # noqa: F401
    gc.collect()
    before = psutil.Process().memory_info().rss
    train(shape, engine, checkpointing)
    distributed.stop()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def train(shape: Shape, engine: str, checkpointing: str) -> None:
    """Train two steps of two batches, from random weights."""
    model = shape.make(torch.float32).to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=0.02)
            else:
                tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))
    checkpoint_layers(model, checkpointing)  # type: ignore[arg-type]
    run = make_engine(model, OptimConfig(), ParallelConfig(strategy=engine), num_steps=2)  # type: ignore[arg-type]
    batches = [make_batch(model, ROW)] * 2
    for step in range(2):
        run.train_step(step, batches, 2 * ROW.num_targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=list(ENGINES), help="this one alone")
    parser.add_argument("--case", nargs=3, metavar=("ENGINE", "STAGE", "CHECKPOINTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return print("measured", json.dumps(measure(*options.case)))
    # what is freed goes back to the system at once, so that the resident memory is what is held
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    console = Console(width=100, highlight=False)
    console.print("MiB of a process     checkpointing  estimated  measured  estimated / measured")
    for engine in [options.engine] if options.engine else ENGINES:
        for stage in STAGES:
            for checkpointing in ENGINES[engine]:
                command = [sys.executable, __file__, "--case", engine, stage, checkpointing]
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                lines = [line for line in done.stdout.splitlines() if line.startswith("measured ")]
                if not lines:
                    raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
                found, said = int(lines[0].split()[1]), estimate(engine, stage, checkpointing)
                name = f"{engine} {stage}"
                figures = f"{said / MIB:>10,.0f} {found / MIB:>9,.0f} {said / found:>12.3f}"
                console.print(f"{name:<20} {checkpointing:<13} {figures}")


if __name__ == "__main__":
    main()
