"""What one GPU does with a 7B model: tokens a second, MFU, waiting for data, peak memory, in both stages.

    python bench/gpu.py            # LLaVA-1.5-7B's shape; one GPU of 130 GiB or more, a few minutes, no download
    python bench/gpu.py --tiny     # the same path through a toy on the CPU: says that it runs, not how fast

Weights are random and made on the GPU in bf16; the pictures are JPEG files that have to be read, decoded and resized as
real ones; lengths are those of LLaVA-1.5's mixture (finetune) and of its captions (align). Ten steps of 32,768 tokens
are measured of each stage, after two that warm up. Data waits count as time.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from made_up import lengths_like_llava, write_pictures, write_records, write_tokenizer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava_lite.budget.activations import Row, measure_activations
from llava_lite.budget.shapes import Shape as ModelShape
from llava_lite.budget.states import Strategy, count_sizes, find_states
from llava_lite.checkpoint.parts import Parts, make_processor
from llava_lite.conversation.families import find_template
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.loader import LoaderConfig, Step, read_steps
from llava_lite.data.mixture import DataConfig
from llava_lite.data.steps import plan_steps
from llava_lite.example import IGNORE
from llava_lite.models.llava import Llava, Part
from llava_lite.models.projector import make_projector
from llava_lite.models.vision_tower import VisionTower
from llava_lite.processor import Processor
from llava_lite.training.config import OptimConfig, ParallelConfig
from llava_lite.training.engine import make_engine
from llava_lite.training.memory import Checkpointing, checkpoint_layers
from llava_lite.training.throughput import peak_flops

NUM_PICTURES = 200
console = Console(width=132)


@dataclass(frozen=True)
class Shape:
    """Of the model, and of a step. scale: what the mixture's lengths are divided by."""

    vision: dict[str, int]
    text: dict[str, int]
    picture: tuple[int, int]
    rows: int
    row_tokens: int
    steps: int
    warm_up: int
    num_records: int
    scale: int = 1


LLAVA_7B = Shape(
    vision={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
    text={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
    },
    picture=(640, 480),
    rows=4,
    row_tokens=8192,
    steps=10,
    warm_up=2,
    num_records=700,
)
TINY = Shape(
    vision={
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    },
    text={
        "vocab_size": 4000,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 4096,
    },
    picture=(64, 48),
    rows=2,
    row_tokens=256,
    steps=2,
    warm_up=1,
    num_records=40,
    scale=36,
)


@dataclass(frozen=True)
class Stage:
    """train: the parts that learn; template: None for the language model's own."""

    name: str
    train: tuple[Part, ...]
    image_mode: str
    template: str | None
    checkpointing: Checkpointing
    optim: OptimConfig


STAGES = (
    Stage("align", ("projector",), "crop", "plain", "none", OptimConfig(lr=1e-3)),
    Stage("finetune", ("projector", "language_model"), "pad", None, "full", OptimConfig(lr=2e-5)),
)


def write_parts(folder: Path, shape: Shape) -> Parts:
    """Write what a processor is opened from: configurations, a tokenizer, and no weights."""
    tower, lm = folder / "tower", folder / "lm"
    CLIPVisionConfig(**shape.vision).save_pretrained(tower)
    side = shape.vision["image_size"]
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side).save_pretrained(tower)
    LlamaConfig(**shape.text, pad_token_id=None).save_pretrained(lm)
    write_tokenizer(lm)
    return Parts(str(tower), str(lm))


def write_data(folder: Path, shape: Shape) -> None:
    """Write finetune.json and align.json, and the pictures they share."""
    generator = np.random.default_rng(0)
    write_pictures(folder, NUM_PICTURES, shape.picture, generator)
    text, image = lengths_like_llava(shape.num_records, generator)
    captions = np.full(shape.num_records, 15), np.full(shape.num_records, True)
    conversations = (text - 40) * 2 // 3 // shape.scale, image
    for name, (num_words, shown), question in (("align", captions, 1), ("finetune", conversations, 12)):
        write_records(
            folder / f"{name}.json",
            num_words,
            shown,
            num_pictures=NUM_PICTURES,
            question=question,
            answer=60,
            generator=generator,
        )


def make_model(shape: Shape, processor: Processor, device: torch.device, dtype: torch.dtype) -> Llava:
    """Make a model of random weights where it will be; as checkpoint.parts.assemble, with nothing to load."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(**{**shape.vision, "num_hidden_layers": shape.vision["num_hidden_layers"] - 1})
    with torch.device(device):
        language_model = AutoModelForCausalLM.from_config(LlamaConfig(**shape.text, pad_token_id=None), dtype=dtype)
        return Llava(
            vision_tower=VisionTower(CLIPVisionModel(vision).to(dtype)),
            projector=make_projector("mlp2x_gelu", vision.hidden_size, shape.text["hidden_size"]).to(dtype),
            language_model=language_model,
            image_token_id=processor.image_token_id,
        )


def count_flops(model: Llava, step: Step) -> int:
    """FLOPs that a step needs; what checkpointing computes again is not among them."""
    cost = model.cost(step.tile_size)
    return cost.flops(step.documents, num_targets=step.num_targets, num_tiles=step.num_tiles)


def row_of(batch: Mapping[str, torch.Tensor]) -> Row:
    """What the budget is asked about a batch."""
    num_targets = int((batch["labels"] != IGNORE).any(0).sum())
    return Row(batch["input_ids"].numel(), num_targets, len(batch["pixel_values"]), len(batch["patch_index"]))


def fuller(one: Row, other: Row) -> Row:
    """The most of everything."""
    return Row(*map(max, astuple(one), astuple(other)))


def budget_memory(stage: Stage, shape: Shape, row: Row, dtype: torch.dtype) -> float:
    """Bytes at the fullest moment, as `llava-lite budget` reckons them."""
    vision = CLIPVisionConfig(**{**shape.vision, "num_hidden_layers": shape.vision["num_hidden_layers"] - 1})
    about = ModelShape(vision, LlamaConfig(**shape.text), "mlp2x_gelu", stage.image_mode, stage.train)
    sizes = count_sizes(about.make(dtype), about, kind=stage.optim.kind)
    activations = measure_activations(about, row, checkpointing=stage.checkpointing, dtype=dtype)
    return find_states(sizes, Strategy("ddp"), kind=stage.optim.kind, count=1).peak(activations.total)


def measure(stage: Stage, shape: Shape, folder: Path, parts: Parts, device: torch.device) -> list[str]:
    """Train one stage for its steps, as train/align.py and train/finetune.py do; return its row of the table."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    processor = make_processor(parts).with_image_mode(stage.image_mode)
    if stage.template:
        processor = processor.with_template(find_template(stage.template))
    model = make_model(shape, processor, device, dtype)
    model.train_only(stage.train)
    checkpoint_layers(model, stage.checkpointing)
    data = DataConfig(path=folder / f"{stage.name}.json", too_long="truncate")
    dataset = InstructionDataset(data, processor, row_tokens=shape.row_tokens, exact=True)
    plan = plan_steps(
        dataset,
        samples=1,
        rows=shape.rows,
        row_tokens=shape.row_tokens,
        packing=True,
        seed=0,
        epochs=1,
        max_steps=shape.warm_up + shape.steps,
    )
    engine = make_engine(model, stage.optim, ParallelConfig(), num_steps=plan.num_steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    workers = 1 if device.type == "cpu" else max(1, min(12, (os.cpu_count() or 1) - 2))
    done: list[Step] = []
    fullest = Row(1, 1, 1, 0)
    seconds = waited = 0.0
    losses = []
    asked = time.perf_counter()
    for number, step in enumerate(read_steps(plan, 0, LoaderConfig(workers=workers))):
        came = time.perf_counter()
        losses.append(engine.train_step(number, step.batches, step.num_targets).loss)  # it waits for the GPU
        now = time.perf_counter()
        fullest = reduce(fuller, (row_of(batch) for batch in step.batches), fullest)
        if number >= shape.warm_up:
            done.append(step)
            seconds, waited = seconds + now - asked, waited + came - asked
        asked = now
    if not np.isfinite(losses).all():
        raise RuntimeError(f"{stage.name}: losses {losses}")
    flops = sum(count_flops(model, step) for step in done) / seconds
    peak = peak_flops(device)
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else "-"
    expected = budget_memory(stage, shape, fullest, dtype) / 2**30
    num_tokens = sum(step.tokens["image"] + step.tokens["text"] for step in done)
    return [
        stage.name,
        f"{num_tokens / seconds:,.0f}",
        f"{num_tokens / shape.steps:,.0f}",
        f"{flops / 1e12:,.3g}",
        "no known peak" if math.isnan(peak) else f"{flops / peak:.1%}",
        f"{waited / seconds:.1%}",
        memory,
        f"{expected:.1f} GiB",
        f"{losses[0]:.3f} to {losses[-1]:.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a toy shape on the CPU, to see that the script works")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        return print("no GPU here: nothing was measured")
    device, shape = (torch.device("cpu"), TINY) if tiny else (torch.device("cuda"), LLAVA_7B)
    folder = Path(tempfile.mkdtemp(prefix="llava-lite-bench-"))
    table = Table(title="a toy on the CPU" if tiny else f"LLaVA-1.5-7B's shape on one {torch.cuda.get_device_name()}")
    for name in (
        "stage",
        "tokens/s",
        "tokens a step",
        "TFLOP/s",
        "MFU",
        "data wait",
        "peak memory",
        "by budget",
        "loss",
    ):
        table.add_column(name)
    try:
        parts = write_parts(folder, shape)
        write_data(folder, shape)
        for stage in STAGES:
            table.add_row(*measure(stage, shape, folder, parts, device))
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()  # the next stage's model takes this one's place
    finally:
        shutil.rmtree(folder)
    console.print(table)


if __name__ == "__main__":
    main()
