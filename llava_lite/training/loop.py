"""THE loop: steps in, a trained module out, a checkpoint on the way that continues as if nothing had happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from llava_lite.config import dump_config
from llava_lite.distributed import barrier, gather, is_main, logger, seed_step
from llava_lite.training.config import RunConfig
from llava_lite.training.engine import Engine
from llava_lite.training.progress import RunLog, print_parts
from llava_lite.training.resume import RunError, describe_run, read_step, write_step
from llava_lite.training.throughput import Work
from llava_lite.training.validation import Validation


class Step(Work, Protocol):
    """This rank's share of one optimiser step (see `data.loader.Step`)."""

    @property
    def batches(self) -> Sequence[Mapping[str, torch.Tensor]]: ...


def fit(
    engine: Engine,
    read_steps: Callable[[int], Iterator[Step]],
    config: RunConfig,
    *,
    num_samples: int,
    data_hash: str,
    save: Callable[[Path, Mapping[str, torch.Tensor]], None],
    write_lineage: Callable[[Path], None] | None = None,
    validation: Validation | None = None,
    start_from: Path | None = None,
) -> None:
    """Train to the end of the schedule, and write the result to output_dir.

    read_steps: yields the steps from a given one on; num_samples, data_hash: of the data set, which a run cannot
    exchange; save: writes a checkpoint of these weights into a folder; write_lineage: writes there what the data is;
    validation: looks at the model on the way; start_from: the step folder to continue, whose weights the module already
    holds.
    Raises RunError where the processes see different data, and on a loss that is not a number, naming the records of
    its step.
    """
    if len(set(gather(data_hash))) > 1:
        raise RunError("the processes see different data; make data and images the same on every machine")
    config.output_dir.mkdir(parents=True, exist_ok=True)
    run = describe_run(config, num_samples=num_samples, data_hash=data_hash, num_steps=engine.num_steps)

    def checkpoint(step: int) -> None:
        state, weights = engine.state(), engine.weights()
        best = validation.best if validation else None
        write_step(
            config.output_dir,
            step,
            save=lambda folder: save(folder, weights),
            optimizer=state,
            run=run,
            keep=config.save.keep,
            best=best["step"] if best else None,
        )

    def look(step: int) -> bool:
        """Evaluate where that is due; return whether no step was better."""
        if validation is None or not validation.is_due(step, engine.num_steps):
            return False
        with engine.evaluating(), log.paused():
            row = validation.run(step)
        log.evaluation(row)
        return bool(row["best"])

    start = 0
    if start_from is None:
        checkpoint(0)  # saving is tried now, not for the first time after ten hours
    else:
        start, state = read_step(start_from, run)
        engine.load_state(state)
    if is_main():  # not before it is sure that this is the run that it continues
        (config.output_dir / "train.yaml").write_text(dump_config(config), encoding="utf-8")
    if write_lineage:
        write_lineage(config.output_dir)
    print_parts(engine.describe())
    log = RunLog(config, engine.module, start=start, num_steps=engine.num_steps)
    if validation:
        validation.begin(start if start_from else None)
    with log:
        look(start)
        began = time.perf_counter()
        for number, step in enumerate(read_steps(start), start=start):
            if validation and validation.has_settled:
                logger.info("step %d: no better for evaluate.patience=%s; stopping", number, validation.config.patience)
                break
            waited = time.perf_counter() - began
            seed_step(config.seed, number)
            result = engine.train_step(number, step.batches, step.num_targets)
            if not math.isfinite(result.loss):
                raise RunError(
                    f"the loss of step {number + 1} is {result.loss}; its records: {', '.join(step.ids[:20])}; "
                    "look at them, or lower optim.lr; the checkpoints are from before"
                )
            seconds = time.perf_counter() - began
            log.step(number + 1, result, step, seconds=seconds, waited=waited)
            if number == 0:
                judge_first_loss(result.loss, engine.module.guess_loss(step.num_targets))
            is_best = look(number + 1)
            if is_best or (config.save.every_steps and (number + 1) % config.save.every_steps == 0):
                checkpoint(number + 1)
            began = time.perf_counter()
    weights = engine.weights()
    if is_main():
        save(config.output_dir, weights)
    barrier()


def judge_first_loss(loss: float, guess: float) -> None:
    """Say so where a run's first loss is absurd. guess: that of one who holds all targets equally likely."""
    if loss > guess + 1:
        told = f"worse than guessing evenly ({guess:.2f}); do weights, tokenizer and template belong together?"
    elif loss > 0.97 * guess:
        told = f"what guessing evenly gives ({guess:.2f}): right for new weights, but trained ones know better"
    elif loss < 0.01:
        told = "next to nothing; does the question hold the answer, or does the model know these data already?"
    else:
        return
    logger.warning("the first loss is %.2f, %s", loss, told)
