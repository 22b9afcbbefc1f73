"""What every recipe can be told. A recipe adds what is its own: model and data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from llava_lite.config import Strict
from llava_lite.training import trackers


class BatchConfig(Strict):
    """How many samples a step learns from, and how they are laid out."""

    samples: int = Field(default=128, gt=0)
    """Samples of one optimiser step, over all ranks."""
    rows: int | None = Field(default=None, gt=0)
    """In place of `samples`: rows of one optimiser step, over all ranks, each packed full from the whole epoch."""
    tokens: int = Field(default=4096, gt=0)
    """Longest row: packed rows hold at most so many tokens, padded batches at most so many with their padding."""
    packing: bool = True
    """Put several samples in one row, exactly kept apart; false: one sample a row, padded."""

    @model_validator(mode="after")
    def _rows_are_packed(self) -> BatchConfig:
        if self.rows is not None and not self.packing:
            raise ValueError("rows are packed; leave packing=true, or set samples instead of rows")
        return self


class OptimConfig(Strict):
    """The optimiser and its schedule."""

    kind: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "sgd"] = "adamw"
    """AdamW; with moments in 8 bits and in memory that spills to the CPU's (bitsandbytes); or plain SGD."""
    lr: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
    projector_lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of the projector; by default `lr`."""
    vision_tower_lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of the vision tower, where it trains; by default `lr`."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Not applied to biases and norms."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup_ratio: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps in which the rate rises, rounded up to whole steps."""
    clip: float | None = Field(default=1.0, gt=0)
    """Largest norm of the gradient of one step; null: never clipped."""
    loss_average: Literal["step", "microbatch"] = "step"
    """What a step's loss is the mean of: all its learnt tokens alike; or, as in the original, the means of its batches,
    so that a token of a short batch counts more."""


class ParallelConfig(Strict):
    """How the processes share the work; see docs/training.md for which to choose."""

    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = "ddp"
    """ddp: the whole model in every process, also where there is one; zero2: optimiser and gradients shared out, zero3:
    weights too (DeepSpeed); fsdp2: all three (PyTorch)."""
    offload: Literal["optimizer", "all"] | None = None
    """With zero2 or zero3, keep the optimiser's state in the CPU's memory; with zero3, `all`: the weights too."""

    @model_validator(mode="after")
    def _offload_is_deepspeeds(self) -> ParallelConfig:
        if self.offload and self.strategy not in ("zero2", "zero3"):
            raise ValueError("offload needs strategy=zero2 or zero3")
        if self.offload == "all" and self.strategy != "zero3":
            raise ValueError("offload=all needs strategy=zero3; zero2 has its weights whole: set offload=optimizer")
        return self


class SaveConfig(Strict):
    """Checkpoints during a run: `output_dir/step-<n>/`, complete with what resuming needs."""

    every_steps: int | None = Field(default=None, gt=0)
    """Write one every so many steps; null: none but the one at the start, which proves that saving works, and those of
    the best steps, where a run is evaluated."""
    keep: int = Field(default=1, gt=0)
    """How many of the newest to keep, besides the best."""


class LogConfig(Strict):
    """What a run says of itself, on the terminal and in `output_dir/log.jsonl`."""

    every_steps: int = Field(default=1, gt=0)
    """Write a line every so many steps; its rates are over all steps since the last line."""
    to: tuple[trackers.Name, ...] = ()
    """Show the same figures in TensorBoard (`output_dir/tensorboard`), trackio or W&B as well."""


class RunConfig(Strict):
    """The top level of every recipe's configuration."""

    output_dir: Path
    """Where the result and the checkpoints go."""
    seed: int = 42
    """Of new weights and of the order of samples."""
    epochs: float = Field(default=1.0, gt=0)
    """How often each sample is seen."""
    max_steps: int | None = Field(default=None, gt=0)
    """Stop after so many steps, whatever `epochs` says."""
    resume: Literal["auto"] | None = None
    """auto: continue the newest complete checkpoint in output_dir, or start if there is none."""
    overwrite: bool = False
    """Delete the run that output_dir holds, and start anew."""
    batch: BatchConfig = BatchConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()
    gradient_checkpointing: Literal["none", "full"] | PositiveInt = "none"
    """Save memory for a third more work: full: keep only what goes from layer to layer; K: of every K-th layer."""
    deterministic: bool = False
    """On a GPU, use only kernels that give the same bits each time, slower; on a CPU it makes no difference."""
    save: SaveConfig = SaveConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _small_states_stay_whole(self) -> RunConfig:
        if self.optim.kind not in ("adamw", "sgd") and self.parallel.strategy != "ddp":
            raise ValueError(f"optim.kind={self.optim.kind} cannot be shared out; set parallel.strategy=ddp, or adamw")
        return self
