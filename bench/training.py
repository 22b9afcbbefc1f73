"""Samples a second of training, side by side: this project, transformers' Trainer, the original LLaVA's grouping.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python bench/training.py                     # a few minutes on two quiet cores
    python bench/training.py --vocabulary 4000   # the head a small part of the model, as it is in a 7B

All three train the same weights on the same records, in steps of the same number of samples, with the same AdamW, in
fp32, nothing recomputed, one worker process each:

    ours      as train/finetune.py does it: packed rows, the head on learnt tokens only
    Trainer   LlavaForConditionalGeneration, the processor's output padded to the longest, random order
    grouped   the same in the original's order: micro-batches of one modality, dealt out by length

Lengths are those of LLaVA-1.5's mixture, a ninth of them (64 visual tokens for 576), so that a small model on a CPU
takes minutes; the proportions stay. They take turns, and processor time is told beside time: it is what a machine that
others use as well cannot distort. The losses of the first two must agree step by step, or nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from made_up import lengths_like_llava, write_model, write_pictures, write_records
from PIL import Image as PilImage
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from llava_lite.checkpoint.folder import load, load_processor
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.loader import LoaderConfig, read_steps
from llava_lite.data.mixture import DataConfig
from llava_lite.data.sampler import permutation
from llava_lite.data.steps import plan_steps
from llava_lite.training.config import OptimConfig, ParallelConfig
from llava_lite.training.engine import make_engine

SCALE = 9  # a ninth of LLaVA's lengths
TILE = 112  # 64 visual tokens
PER_STEP = 16  # samples of an optimiser step, and of a padded micro-batch: what the original has on each GPU
TEXT_STEPS = 16  # one step in so many is text alone, where steps have one modality: one sample in so many
ROW = 1024  # tokens of a packed row: about what a padded micro-batch holds
NUM_PICTURES = 64
LEARNS = OptimConfig(lr=2e-5, schedule="constant", warmup_ratio=0.0)
WORKERS = 1
IGNORE = -100
SEED = 0
DRAW = 6  # of the mixture: one in which both orders pad about as much as in all of it
LOSS_TOLERANCE = 1e-4
console = Console(width=120)


@dataclass(frozen=True)
class Shape:
    """Of the language model; rounds: into how many turns each contestant's 16 steps are cut."""

    hidden_size: int = 256
    num_layers: int = 8
    vocabulary: int = 32000
    rounds: int = 4


TINY = Shape(hidden_size=32, num_layers=1, vocabulary=4000, rounds=1)


@dataclass(frozen=True)
class Data:
    """The records of each round, and for each the same number of them as the original orders all of them."""

    rounds: Sequence[Path]
    grouped: Sequence[Path]


@dataclass(frozen=True)
class Turn:
    """What one contestant did in one round. processor: seconds of all processors, workers included."""

    seconds: float
    processor: float
    losses: Sequence[float]


def train_ours(model_dir: Path, data: Path) -> Turn:
    """As train/finetune.py: rows packed by the loader's workers, one exact mean a step."""
    model, processor = load(model_dir, dtype=torch.float32)
    model.train_only(("projector", "language_model"))
    dataset = InstructionDataset(DataConfig(path=data), processor, row_tokens=ROW)
    steps = plan_steps(
        dataset, samples=PER_STEP, rows=None, row_tokens=ROW, packing=True, seed=SEED, epochs=1, max_steps=None
    )
    engine = make_engine(model, LEARNS, ParallelConfig(), num_steps=steps.num_steps)
    losses = []
    clock = Clock()
    clock.start()
    for number, step in enumerate(read_steps(steps, 0, LoaderConfig(workers=WORKERS))):
        losses.append(engine.train_step(number, step.batches, step.num_targets).loss)
        clock.lap()
    return clock.turn(losses)


def train_with_trainer(model_dir: Path, data: Path) -> Turn:
    """The usual recipe: padded micro-batches in random order, which here is the order that ours has."""
    records = read_records(data)
    return run_trainer(model_dir, records, permutation(len(records), SEED, 0).tolist())


def train_grouped(model_dir: Path, data: Path) -> Turn:
    """The same recipe; the records already stand in the original's order."""
    records = read_records(data)
    return run_trainer(model_dir, records, range(len(records)))


def run_trainer(model_dir: Path, records: Sequence[dict], order: Sequence[int]) -> Turn:
    """Train transformers' own model with its own loop, timed from its first request for data to its last step."""
    model = LlavaForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32)
    model.model.vision_tower.requires_grad_(False)
    clock = Clock()
    trainer = OrderedTrainer(
        order,
        model=model,
        args=TrainingArguments(
            output_dir=str(model_dir.parent / "trainer"),
            per_device_train_batch_size=PER_STEP,
            num_train_epochs=1,
            learning_rate=LEARNS.lr,
            adam_beta1=LEARNS.betas[0],
            adam_beta2=LEARNS.betas[1],
            adam_epsilon=LEARNS.eps,
            weight_decay=LEARNS.weight_decay,
            max_grad_norm=LEARNS.clip,
            lr_scheduler_type="constant",
            dataloader_num_workers=WORKERS,
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=records,
        data_collator=PaddingCollator(AutoProcessor.from_pretrained(model_dir), model_dir.parent),
        callbacks=[TimedSteps(clock)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.turn([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


class Clock:
    """Time and processor time from `start` to the last `lap`; of the workers, all that they took until they ended."""

    def start(self) -> None:
        self.began, self.processor_began, self.workers_began = time.perf_counter(), time.process_time(), of_workers()

    def lap(self) -> None:
        self.ended, self.processor_ended = time.perf_counter(), time.process_time()

    def turn(self, losses: Sequence[float]) -> Turn:
        workers = of_workers() - self.workers_began
        return Turn(self.ended - self.began, self.processor_ended - self.processor_began + workers, losses)


def of_workers() -> float:
    """Processor seconds of all child processes that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


class TimedSteps(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        self.clock.start()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.clock.lap()


class OrderedTrainer(Trainer):
    """A Trainer that takes its records in a given order."""

    def __init__(self, order: Sequence[int], **settings: object) -> None:
        super().__init__(**settings)
        self.order = order

    def _get_train_sampler(self, train_dataset: object = None) -> Sequence[int]:
        return self.order


@dataclass(frozen=True)
class PaddingCollator:
    """Records -> what transformers' processor makes of them, padded right; only answers and their ends are learnt."""

    processor: LlavaProcessor
    image_dir: Path

    def __call__(self, records: Sequence[dict]) -> dict[str, torch.Tensor]:
        texts = [self.processor.apply_chat_template(to_messages(record)) for record in records]
        shown = [self.image_dir / record["image"] for record in records if "image" in record]
        batch = self.processor(
            text=texts,
            images=[PilImage.open(path).convert("RGB") for path in shown] or None,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        labels = [self.learnt(ids) for ids in batch["input_ids"].tolist()]
        return {**batch, "labels": torch.tensor(labels)}

    def learnt(self, ids: Sequence[int]) -> list[int]:
        """Labels: what stands behind `ASSISTANT:`, up to and with the end of the sequence."""
        tokenizer = self.processor.tokenizer
        mark = tokenizer.encode("ASSISTANT:", add_special_tokens=False)
        labels, answering = [IGNORE] * len(ids), False
        for place, token in enumerate(ids):
            if answering:
                labels[place] = token
            if token == tokenizer.eos_token_id:
                answering = False
            elif list(ids[place + 1 - len(mark) : place + 1]) == mark:
                answering = True
        return labels


def to_messages(record: dict) -> list[dict]:
    """LLaVA's record as the chat template takes it."""
    messages = []
    for turn in record["conversations"]:
        role = {"human": "user", "gpt": "assistant"}[turn["from"]]
        image, _, rest = turn["value"].rpartition("<image>\n")
        shown = [{"type": "image"}] if image or turn["value"] != rest else []
        messages.append({"role": role, "content": [*shown, {"type": "text", "text": rest}]})
    return messages


def modality_length_order(
    lengths: Sequence[int], images: Sequence[bool], per_device: int, num_devices: int, generator: torch.Generator
) -> list[int]:
    """Order samples as the original LLaVA does (`group_by_modality_length`).

    Each modality is shuffled and cut into megabatches of `per_device * num_devices`, in which each device gets about
    the same sum of lengths; megabatches are shuffled, and what is left of both modalities is one batch at the end.
    num_devices: counts accumulation steps as well.
    """
    size = per_device * num_devices
    whole: list[list[int]] = []
    rest: list[int] = []
    for shown in (True, False):
        members = [i for i, image in enumerate(images) if image == shown]
        shuffled = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
        megabatches = [
            list(chain.from_iterable(even_chunks(sorted(cut, key=lambda i: -lengths[i]), lengths, num_devices)))
            for cut in (shuffled[start : start + size] for start in range(0, len(shuffled), size))
        ]
        whole += megabatches[:-1]
        rest += chain.from_iterable(megabatches[-1:])
    mixed = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    return [*chain.from_iterable(mixed), *sorted(rest)]


def even_chunks(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[list[int]]:
    """Deal indices, longest first, each to the chunk with the least so far; strided if they do not divide evenly."""
    if len(indices) % num_chunks:
        return [list(indices[i::num_chunks]) for i in range(num_chunks)]
    room = len(indices) // num_chunks
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    for index in indices:
        shortest = min((c for c in chunks if len(c) < room), key=lambda c: sum(lengths[i] for i in c))
        shortest.append(index)
    return chunks


CONTESTANTS: dict[str, Callable[[Path, Path], Turn]] = {
    "ours": train_ours,
    "Trainer": train_with_trainer,
    "grouped": train_grouped,
}


def read_records(data: Path) -> list[dict]:
    return json.loads(data.read_text(encoding="utf-8"))


def write_data(folder: Path, num_rounds: int) -> Data:
    """Write 256 records, 16 of them text alone, cut into rounds twice: at random, and in the original's order."""
    generator = np.random.default_rng(DRAW)
    write_pictures(folder, NUM_PICTURES, (640 // 3, 480 // 3), generator)
    tokens, image = lengths_like_llava(2000, generator)
    # The original's epoch ends with one mixed batch of what is left, a full one of each modality here: two steps, which
    # count in an epoch of sixteen and not in one of five thousand. They are made, and then left out.
    chosen = np.concatenate([np.flatnonzero(image)[: TEXT_STEPS * PER_STEP], np.flatnonzero(~image)[: 2 * PER_STEP]])
    chosen = generator.permutation(chosen)
    num_words = np.maximum((tokens[chosen] / SCALE - 7) / 1.3, 3)  # beside BOS, the turns' marks and </s>
    write_records(
        folder / "all.json",
        num_words,
        image[chosen],
        num_pictures=NUM_PICTURES,
        question=2,
        answer=60,
        generator=generator,
    )
    records = read_records(folder / "all.json")
    lengths = [sum(len(turn["value"].split()) for turn in record["conversations"]) for record in records]
    order = modality_length_order(
        lengths, ["image" in record for record in records], PER_STEP, 1, torch.Generator().manual_seed(SEED)
    )[: TEXT_STEPS * PER_STEP]

    def write_rounds(name: str, order: Sequence[int]) -> list[Path]:
        paths = [folder / f"{name}-{number}.json" for number in range(num_rounds)]
        size = len(order) // num_rounds
        for number, path in enumerate(paths):
            path.write_text(json.dumps([records[i] for i in order[number * size : (number + 1) * size]]))
        return paths

    return Data(write_rounds("random", sorted(order)), write_rounds("grouped", order))


def padding(model_dir: Path, paths: Sequence[Path]) -> tuple[float, float]:
    """Return the share of image tokens among all, and that of padding in micro-batches of the order of the files."""
    processor = load_processor(model_dir)
    real = image = padded = 0
    for path in paths:
        dataset = InstructionDataset(DataConfig(path=path), processor, row_tokens=ROW, exact=True)
        order = (
            permutation(len(dataset), SEED, 0).numpy() if path.name.startswith("random") else np.arange(len(dataset))
        )
        for batch in dataset.lengths[order].reshape(-1, PER_STEP):
            padded += PER_STEP * batch.max()
        real += dataset.lengths.sum()
        image += sum("image" in record for record in read_records(path)) * processor.num_patches
    return image / real, 1 - real / padded


def peak_mb() -> float:
    """Most memory that this process has held, in MB. ru_maxrss would count what the parent held when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure_memory(name: str, model_dir: Path, data: Path) -> float:
    """Run one contestant in a process of its own; return the most memory it held."""
    command = [sys.executable, __file__, "--memory-of", name, str(model_dir), str(data)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return float(done.stdout.split()[-1])


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """Write down how many times as long theirs take: all rounds together, and each."""
    each = " ".join(f"{other / own:.2f}" for other, own in zip(theirs, ours, strict=True))
    return f"{sum(theirs) / sum(ours):.2f}x ({each})"


def compare(folder: Path, shape: Shape) -> None:
    """Let them take turns, and print what came of it. Raises RuntimeError where the losses disagree."""
    model_dir = write_model(
        folder,
        tile=TILE,
        tower_size=96,
        tower_layers=5,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        vocabulary=shape.vocabulary,
    )
    data = write_data(folder, shape.rounds)
    warm_up = folder / "warm-up.json"  # where the memory is measured, too: on the same 32 records
    warm_up.write_text(json.dumps(read_records(data.rounds[0])[: 2 * PER_STEP]))
    memory = {name: measure_memory(name, model_dir, warm_up) for name in CONTESTANTS}
    turns: dict[str, list[Turn]] = {name: [] for name in CONTESTANTS}
    for train in CONTESTANTS.values():
        train(model_dir, warm_up)
    for number in range(shape.rounds):
        for name, train in CONTESTANTS.items():
            turns[name].append(train(model_dir, (data.grouped if name == "grouped" else data.rounds)[number]))
        ours, theirs = turns["ours"][-1].losses, turns["Trainer"][-1].losses
        if not np.allclose(ours, theirs, atol=LOSS_TOLERANCE, rtol=0):
            raise RuntimeError(f"not a comparison: ours has losses {ours}, transformers' Trainer {theirs}")
        print(f"round {number + 1} of {shape.rounds}", file=sys.stderr)
    image_share, padded = padding(model_dir, data.rounds)
    _, padded_grouped = padding(model_dir, data.grouped)
    table = Table(title=f"training, {torch.get_num_threads()} threads, {os.cpu_count()} processors")
    for column in ("", "samples/s", "ours is faster by", "and by processor time", "padding", "peak memory"):
        table.add_column(column)
    for name, waste in (("ours", 0.0), ("Trainer", padded), ("grouped", padded_grouped)):
        table.add_row(
            name,
            f"{TEXT_STEPS * PER_STEP / sum(turn.seconds for turn in turns[name]):.2f}",
            ratios([turn.seconds for turn in turns[name]], [turn.seconds for turn in turns["ours"]]),
            ratios([turn.processor for turn in turns[name]], [turn.processor for turn in turns["ours"]]),
            f"{waste:.0%}",
            f"{memory[name]:,.0f} MB",
        )
    console.print(table)
    first = turns["ours"][0].losses[0], turns["Trainer"][0].losses[0]
    console.print(f"image tokens: {image_share:.0%} of all; loss of the first step: ours {first[0]:.5f}, ", end="")
    console.print(f"Trainer {first[1]:.5f}; all {TEXT_STEPS} steps agree within {LOSS_TOLERANCE:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=Shape.vocabulary)
    parser.add_argument("--tiny", action="store_true", help="a toy shape: does it run, do the losses agree")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if given.memory_of:
        name, model_dir, data = given.memory_of
        CONTESTANTS[name](Path(model_dir), Path(data))
        return print(peak_mb())
    folder = Path(tempfile.mkdtemp(prefix="llava-lite-bench-"))
    try:
        compare(folder, TINY if given.tiny else Shape(vocabulary=given.vocabulary))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
