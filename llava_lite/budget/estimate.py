"""Memory, hours, energy and money of a stage on some GPUs: as it is configured, and laid out in every other way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from llava_lite.budget.activations import Activations, Row, measure_activations
from llava_lite.budget.hardware import FILL, HOST_ADAM_PER_S, HOST_BYTES_PER_S, usable
from llava_lite.budget.stages import Stage
from llava_lite.budget.states import Sizes, States, Strategy, count_sizes, find_states
from llava_lite.budget.workload import Workload
from llava_lite.flops import Cost, Device
from llava_lite.models.llava import Llava
from llava_lite.training.memory import Checkpointing

# The simplest first: what comes first is preferred where hours are the same.
STRATEGIES = (
    Strategy("ddp"),
    Strategy("zero2"),
    Strategy("fsdp2"),
    Strategy("zero3"),
    Strategy("zero2", "optimizer"),
    Strategy("zero3", "optimizer"),
    Strategy("zero3", "all"),
)
_ROUND = 256  # what rows are rounded to
_LONGEST = 3  # times the mean, where the configuration does not say how long a sample may be


@dataclass(frozen=True)
class Hardware:
    """count GPUs of one kind. hfu: share of the peak; price: of a GPU hour, None: not asked."""

    name: str
    device: Device
    count: int
    hfu: float
    price: float | None


@dataclass(frozen=True)
class Way:
    """One way to lay a stage out, and what it comes to.

    total:       bytes of a GPU at most, of which `usable` can be filled
    row_tokens:  batch.tokens; largest_row: the most that would fit (0: none)
    num_steps:   of the run; rows: of a step; batches: of the process that has the most of them
    hours, mfu:  of the run; the share of the peak that is useful work
    """

    strategy: Strategy
    checkpointing: Checkpointing
    states: States
    activations: Activations
    total: float
    fits: bool
    row_tokens: int
    largest_row: int
    num_steps: int
    batches: int
    hours: float
    rows: int
    mfu: float

    def gpu_hours(self, hardware: Hardware) -> float:
        return self.hours * hardware.count


@dataclass(frozen=True)
class StageBudget:
    """own: as configured; others: every other way; best: the cheapest that fits, maybe with shorter rows, or None."""

    stage: Stage
    workload: Workload
    sizes: Sizes
    own: Way
    others: list[Way]
    best: Way | None


def budget_stage(stage: Stage, workload: Workload, hardware: Hardware) -> StageBudget:
    """Reckon every way to lay a stage out on the hardware."""
    ledger = _Ledger(stage, workload, hardware)
    parallel, checkpointing = stage.config.parallel, stage.config.gradient_checkpointing
    own = ledger.way(Strategy(parallel.strategy, parallel.offload), checkpointing)
    others = [ledger.way(*choice) for choice in ledger.choices() if choice != (own.strategy, own.checkpointing)]
    fitting = [way for way in (own, *others, *ledger.shorter(own, *others)) if way.fits]
    order = {strategy: number for number, strategy in enumerate(STRATEGIES)}
    best = min(fitting, key=lambda way: (float(f"{way.hours:.2g}"), order[way.strategy], -way.row_tokens), default=None)
    if own.fits and best is not None and best.hours > 0.97 * own.hours:
        best = own  # nothing to gain
    return StageBudget(stage, workload, ledger.sizes, own, others, best)


class _Ledger:
    """Reckons ways of one stage; passes over a row are run once for each checkpointing."""

    def __init__(self, stage: Stage, workload: Workload, hardware: Hardware) -> None:
        self.stage, self.workload, self.hardware = stage, workload, hardware
        self.row_tokens = stage.config.batch.tokens
        model = stage.shape.make(torch.bfloat16)
        self.kind = stage.config.optim.kind
        self.sizes = count_sizes(model, stage.shape, kind=self.kind)
        self.useful, self.forward = _flops_of_sample(model, stage, workload)
        self.room = usable(hardware.device, hardware.count)
        self._measured: dict[tuple[Checkpointing, bool], tuple[Activations, Activations]] = {}
        self._frozen = stage.shape.lora is not None or "language_model" not in stage.shape.train

    def choices(self) -> Iterator[tuple[Strategy, Checkpointing]]:
        """What the configuration could say instead, leaving out what a run refuses."""
        own = self.stage.config.gradient_checkpointing
        ways: Sequence[Checkpointing] = ("none", "full", *((own,) if isinstance(own, int) else ()))
        for strategy, checkpointing in product(STRATEGIES, ways):
            if strategy.name != "ddp" and self.kind not in ("adamw", "sgd"):
                continue
            if strategy.name in ("zero3", "fsdp2") and self.stage.shape.quantize:
                continue
            if self.hardware.count == 1 and strategy.name != "ddp" and strategy.offload is None:
                continue  # nothing to share out
            yield strategy, checkpointing

    def shorter(self, *ways: Way) -> Iterator[Way]:
        """The same ways with shorter rows, which a sample still fits: the longest that memory takes, and, where a step
        leaves GPUs without a row, as many rows as there are GPUs."""
        load, batch = self.workload, self.stage.config.batch
        least = self.stage.settings["data"]["max_length"] or math.ceil(_LONGEST * load.tokens)
        for way in ways:
            chosen = {way.largest_row}
            if batch.rows is None:
                of_gpu = batch.samples * load.tokens / FILL / self.hardware.count / way.batches
                chosen.add(math.ceil(of_gpu / _ROUND) * _ROUND)
            for row_tokens in chosen:
                if least <= row_tokens < self.row_tokens:
                    yield self.way(way.strategy, way.checkpointing, row_tokens)

    def way(self, strategy: Strategy, checkpointing: Checkpointing, row_tokens: int | None = None) -> Way:
        """Reckon one; row_tokens: other rows than the configuration's."""
        row_tokens = row_tokens or self.row_tokens
        states = find_states(self.sizes, strategy, kind=self.kind, count=self.hardware.count)
        short, full = self._measure(checkpointing, zero3=strategy.name == "zero3" and self._frozen)
        slope = (full.total - short.total) / (self.row_tokens - self._short)
        room = self.room - states.peak(0) + max(states.buffers, states.update) - states.buffers
        longest = self.row_tokens + (room - full.total) / slope if states.peak(0) <= self.room else 0
        place = (row_tokens - self._short) / (self.row_tokens - self._short)
        activations = Activations(
            logits=round(short.logits + place * (full.logits - short.logits)),
            other=round(short.other + place * (full.other - short.other)),
        )
        total = states.peak(activations.total)
        num_steps, rows, batches, hours, mfu = self._time(strategy, checkpointing, row_tokens)
        return Way(
            strategy=strategy,
            checkpointing=checkpointing,
            states=states,
            activations=activations,
            total=total,
            fits=total <= self.room,
            row_tokens=row_tokens,
            largest_row=max(0, int(longest // _ROUND * _ROUND)),
            num_steps=num_steps,
            rows=rows,
            batches=batches,
            hours=hours,
            mfu=mfu,
        )

    @property
    def _short(self) -> int:
        return max(1, self.row_tokens // 4)

    def _measure(self, checkpointing: Checkpointing, *, zero3: bool) -> tuple[Activations, Activations]:
        """What a short row and one as configured hold: a line through both tells it of others.

        The fullest moment may be another in longer rows, so between the two the line says too much, never too little.
        """
        known = self._measured
        if (checkpointing, False) not in known:
            known[checkpointing, False] = (
                self._run(self._short, checkpointing),
                self._run(self.row_tokens, checkpointing),
            )
        if zero3 and (checkpointing, True) not in known:
            short, full = known[checkpointing, False]
            more = self._run(self.row_tokens, checkpointing, zero3=True).total - full.total  # inputs: so much a token
            known[checkpointing, True] = (
                replace(short, other=short.other + more * self._short // self.row_tokens),
                replace(full, other=full.other + more),
            )
        return known[checkpointing, zero3]

    def _run(self, num_tokens: int, checkpointing: Checkpointing, *, zero3: bool = False) -> Activations:
        row = self._row(num_tokens)
        shape = self.stage.shape
        return measure_activations(shape, row, checkpointing=checkpointing, dtype=torch.bfloat16, zero3=zero3)

    def _row(self, num_tokens: int) -> Row:
        """The fullest row there can be: as many targets as the data may put in one, as many images as on average."""
        load = self.workload
        return Row(
            num_tokens=num_tokens,
            num_targets=max(1, math.ceil(load.most_learnt * num_tokens)),
            num_tiles=math.ceil(load.tiles / load.tokens * num_tokens),
            num_visual=min(num_tokens, round(load.visual / load.tokens * num_tokens)),
        )

    def _time(
        self, strategy: Strategy, checkpointing: Checkpointing, row_tokens: int
    ) -> tuple[int, int, int, float, float]:
        """Return steps, rows of a step, batches of a process in it, hours, and MFU.

        A step takes as long as the process with the most rows; what checkpointing computes again takes its time.
        """
        config, load, hardware = self.stage.config, self.workload, self.hardware
        samples_of_row = FILL * row_tokens / load.tokens
        if config.batch.rows:  # as many tokens a step, in rows of any length
            rows = math.ceil(config.batch.rows * self.row_tokens / row_tokens)
            samples = samples_of_row * rows
        else:
            rows = max(1, math.ceil(config.batch.samples / samples_of_row))
            samples = config.batch.samples
        num_steps = config.max_steps or math.ceil(load.num_samples * config.epochs / samples)
        batches = math.ceil(rows / hardware.count)
        again = 1 / checkpointing if isinstance(checkpointing, int) else float(checkpointing == "full")
        assert hardware.device.tflops is not None
        peak = hardware.device.tflops * 1e12
        flops_of_row = samples / rows * (self.useful + again * self.forward)
        seconds = batches * flops_of_row / (peak * hardware.hfu) + _host_seconds(self.sizes, strategy, hardware.count)
        mfu = samples * self.useful / (seconds * peak * hardware.count)
        return num_steps, rows, batches, num_steps * seconds / 3600, mfu


def _flops_of_sample(model: Llava, stage: Stage, workload: Workload) -> tuple[float, float]:
    """FLOPs of a sample of mean length: useful ones, and those of a forward pass through what can be checkpointed."""

    def of_sample(cost: Cost, tiles: float, targets: float) -> float:
        return (
            tiles * cost.per_tile
            + targets * cost.per_target
            + cost.flops([round(workload.tokens)], num_targets=0, num_tiles=0)
        )

    shape = stage.shape
    useful = of_sample(model.cost(shape.tile_size), workload.tiles, workload.learnt)
    model.train_only([])
    forward = of_sample(model.cost(shape.tile_size), workload.tiles if "vision_tower" in shape.train else 0, 0)
    return useful, forward


def _host_seconds(sizes: Sizes, strategy: Strategy, count: int) -> float:
    """What offloading adds to a step: gradients and weights on their way, and the CPUs' own arithmetic."""
    if strategy.offload is None:
        return 0.0
    moved = 2 * sizes.bytes_of_number * sizes.trained / count
    if strategy.offload == "all":
        moved += 2 * sizes.bytes_of_number * sizes.numbers / count  # forward and backward, once a step at least
    return moved / HOST_BYTES_PER_S + sizes.trained / HOST_ADAM_PER_S
