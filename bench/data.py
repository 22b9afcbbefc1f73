"""What the data engine costs: planning and packing 665,000 records, the way to the first step, images a second.

    python bench/data.py                       # all of it; needs about 2 GB of disk in a temporary folder
    python bench/data.py --records 20000       # a quick look

The records are made up: lengths as LLaVA-1.5's mixture has them (64 % of all tokens are the images', 848 tokens a
sample on average, one in sixteen text only and long), words of a made-up vocabulary, a real BPE tokenizer trained on
them. Image files are few and shared, so that reading them from a slow disk is not part of it.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from made_up import lengths_like_llava, write_pictures, write_records, write_tokenizer
from rich.console import Console
from rich.table import Table

from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.loader import LoaderConfig, read_steps
from llava_lite.data.mixture import DataConfig
from llava_lite.data.packing import pack_epoch
from llava_lite.data.sampler import permutation
from llava_lite.data.steps import plan_steps
from llava_lite.images.loading import load_image
from llava_lite.processor import Processor

ROW = 8192
NUM_IMAGES = 200
console = Console()


def bench_packing(table: Table, count: int) -> None:
    text, image = lengths_like_llava(count, np.random.default_rng(0))
    lengths = text + 576 * image
    before = peak_mb()
    began = time.perf_counter()
    rows = pack_epoch(lengths, permutation(count, 0, 0).numpy(), ROW, torch.Generator().manual_seed(0))
    seconds = time.perf_counter() - began
    fill = lengths.sum() / (len(rows) * ROW)
    table.add_row(f"pack {count:,} samples into rows of {ROW}", f"{seconds:.1f} s", f"{100 * fill:.2f} % full")
    table.add_row("  memory it took", f"{peak_mb() - before:.0f} MB", f"{len(rows):,} rows")


def bench_start(table: Table, count: int, folder: Path, processor: Processor) -> None:
    data = write_data(folder, count)
    size = data.stat().st_size / 1e6
    for exact, name in ((False, "steps of 128 samples"), (True, "full rows")):
        for what in ("first time", "again"):
            began = time.perf_counter()
            config = DataConfig(path=data, too_long="truncate", cache_dir=folder / "cache")
            dataset = InstructionDataset(config, processor, row_tokens=ROW, exact=exact)
            steps = plan_steps(
                dataset,
                samples=128,
                rows=16 if exact else None,
                row_tokens=ROW,
                packing=True,
                seed=0,
                epochs=1,
                max_steps=None,
            )
            running = read_steps(steps, 0, LoaderConfig(workers=2))
            next(running)
            seconds = time.perf_counter() - began
            del running  # its workers are busy with the steps after; waiting for them is not part of the start
            table.add_row(f"step one, {name}, {what}", f"{seconds:.1f} s", f"{count:,} records, {size:,.0f} MB of JSON")
    table.add_row("  memory, this process", f"{peak_mb():.0f} MB", "largest so far")
    table.add_row("  memory, largest worker", f"{peak_mb(resource.RUSAGE_CHILDREN):.0f} MB", "largest so far")


def bench_images(table: Table, folder: Path, processor: Processor) -> None:
    assert processor.transform is not None
    paths = sorted(folder.glob("*.jpg"))[:100]
    for mode in ("crop", "pad"):
        transform = processor.with_image_mode(mode).transform
        assert transform is not None
        transform(load_image(paths[0]))
        began = time.process_time()
        for path in paths:
            transform(load_image(path))
        rate = len(paths) / (time.process_time() - began)
        table.add_row(f"images, {mode}", f"{rate:.0f} a second and core", "JPEG 640 x 480 to tiles of 336")


def bench_memory(table: Table, count: int, folder: Path, processor: Processor) -> None:
    """Read steps and watch this process and its workers."""
    import psutil

    config = DataConfig(path=folder / "data.json", too_long="truncate", cache_dir=folder / "cache")
    dataset = InstructionDataset(config, processor, row_tokens=ROW)
    steps = plan_steps(
        dataset, samples=16, rows=None, row_tokens=ROW, packing=True, seed=0, epochs=1, max_steps=min(60, count // 16)
    )
    seen = []
    me = psutil.Process()
    for _ in read_steps(steps, 0, LoaderConfig(workers=1)):
        seen.append(sum(process.memory_info().rss for process in [me, *me.children(recursive=True)]) / 1e6)
    third = len(seen) // 3
    table.add_row(
        "memory while stepping",
        f"{np.median(seen[third : 2 * third]):.0f} MB",
        f"then {np.median(seen[-third:]):.0f} MB",
    )


def write_data(folder: Path, count: int) -> Path:
    """Write LLaVA-like JSON of `count` records, and the images they share."""
    generator = np.random.default_rng(1)
    text, image = lengths_like_llava(count, generator)
    write_pictures(folder, NUM_IMAGES, (640, 480), generator)
    num_words = (text - 40) * 2 // 3  # beside the system prompt; a word is about 1.5 tokens
    data = folder / "data.json"
    write_records(data, num_words, image, num_pictures=NUM_IMAGES, question=12, answer=60, generator=generator)
    return data


def write_parts(folder: Path) -> Parts:
    """A tiny tower with LLaVA-1.5's 576 patches and a tiny language model with a BPE tokenizer of 8,000 pieces."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tower, lm = folder / "tower", folder / "lm"
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=14
    )
    CLIPVisionModel(vision).save_pretrained(tower)
    CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=336).save_pretrained(tower)
    text = LlamaConfig(
        vocab_size=8000,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=None,
    )
    LlamaForCausalLM(text).save_pretrained(lm)
    write_tokenizer(lm)
    return Parts(str(tower), str(lm), image_mode="pad")


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=665_000)
    records = parser.parse_args().records
    folder = Path(tempfile.mkdtemp(prefix="llava-lite-bench-"))
    table = Table(title=f"data engine on {os.cpu_count()} processors", title_justify="left")
    for name in ("what", "figure", ""):
        table.add_column(name)
    try:
        bench_packing(table, records)
        _, processor = assemble(write_parts(folder), dtype=torch.float32)
        bench_start(table, records, folder, processor)
        bench_images(table, folder, processor)
        bench_memory(table, records, folder, processor)
    finally:
        shutil.rmtree(folder)
    console.print(table)


if __name__ == "__main__":
    main()
