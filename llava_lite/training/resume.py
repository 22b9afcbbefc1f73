"""Everything that must come back for a run to go on as if it had not stopped, and the folders it lies in.

    output_dir/step-<n>/           the checkpoint after n steps, as any other
    output_dir/step-<n>/state/     optimizer.safetensors, run.json

Random numbers are not among it: those of a step follow from the run's seed and the step's number.

A step folder is written under another name and renamed whole: one that has its name is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llava_lite import distributed
from llava_lite.training.config import RunConfig
from llava_lite.training.trackers import IDS, find_missing


class RunError(ValueError):
    """A run that cannot start, go on or be resumed."""


def find_start(config: RunConfig) -> Path | None:
    """Return the checkpoint to continue, or None to start anew; deletes a former run if told to overwrite.

    Raises RunError if output_dir holds a run and neither resume nor overwrite says what to do with it, or if the run is
    to be logged with what is not installed.
    """
    if missing := find_missing(config.log.to):
        raise RunError(f"log.to: {', '.join(missing)} not installed; pip install 'llava-lite[log]', or leave it out")
    folder = config.output_dir
    steps = step_folders(folder)
    done = (folder / "config.json").is_file()
    if config.overwrite and config.resume:
        raise RunError("resume=auto and overwrite=true contradict each other; choose one")
    if config.overwrite:
        if distributed.is_main():
            _delete_run(folder)
        distributed.barrier()
        return None
    if config.resume is None and (steps or done):
        raise RunError(
            f"{folder} already holds a {'finished' if done else 'stopped'} run; "
            "continue it with resume=auto, replace it with overwrite=true, or choose another output_dir"
        )
    return steps[-1] if steps else None


def is_finished(config: RunConfig) -> bool:
    """Whether output_dir holds the result of a run that resume=auto would otherwise continue."""
    return config.resume == "auto" and (config.output_dir / "config.json").is_file()


def step_folders(output_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in output_dir.glob("step-*") if re.fullmatch(r"step-\d+", p.name) and (p / "state").is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def describe_run(config: RunConfig, *, num_samples: int, data_hash: str, num_steps: int) -> dict[str, object]:
    """Return what the order of samples depends on: a run that goes on cannot change it."""
    return {
        "seed": config.seed,
        "num_samples": num_samples,
        "data": data_hash,
        "batch.samples": config.batch.samples,
        "batch.rows": config.batch.rows,
        "batch.tokens": config.batch.tokens,
        "batch.packing": config.batch.packing,
        "num_steps": num_steps,
    }


def write_step(
    output_dir: Path,
    step: int,
    *,
    save: Callable[[Path], None],
    optimizer: Mapping[str, torch.Tensor],
    run: Mapping[str, object],
    keep: int,
    best: int | None = None,
) -> None:
    """Write `step-<n>/` whole or not at all, then drop the oldest beyond `keep`. Only the main process writes.

    best: the step whose checkpoint is kept besides; run: see `describe_run`.
    """
    if distributed.is_main():
        new = output_dir / f".step-{step}"
        shutil.rmtree(new, ignore_errors=True)
        state = new / "state"
        state.mkdir(parents=True)
        save(new)
        save_file({k: v.detach().cpu().contiguous() for k, v in optimizer.items()}, state / "optimizer.safetensors")
        (state / "run.json").write_text(json.dumps({"step": step, **run}, indent=2), encoding="utf-8")
        shutil.rmtree(output_dir / f"step-{step}", ignore_errors=True)
        new.rename(output_dir / f"step-{step}")
        for old in step_folders(output_dir)[:-keep]:
            if old.name != f"step-{best}":
                shutil.rmtree(old)
    distributed.barrier()


def read_step(folder: Path, run: Mapping[str, object]) -> tuple[int, dict[str, torch.Tensor]]:
    """Return how many steps were done and the optimiser's state.

    Raises RunError if the run was another: another seed, other data or another step size.
    """
    state = folder / "state"
    was = json.loads((state / "run.json").read_text(encoding="utf-8"))
    changed = [f"{key}: {was.get(key)} then, {value} now" for key, value in run.items() if was.get(key) != value]
    if changed:
        raise RunError(f"{folder} belongs to another run ({'; '.join(changed)}); set it back, or overwrite=true")
    return int(was["step"]), load_file(state / "optimizer.safetensors")


def _delete_run(folder: Path) -> None:
    """Delete what runs write, and nothing else a user may keep there."""
    for path in [*folder.glob("step-*"), *folder.glob(".step-*"), folder / ".writing", folder / "tensorboard"]:
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder / "evaluations", ignore_errors=True)
    for name in ("config.json", "train.yaml", "lineage.json", IDS):
        (folder / name).unlink(missing_ok=True)
    logs = [folder / f"{name}.jsonl" for name in ("log", "starts", "evaluations", "left_out")]
    for path in [*folder.glob("*.safetensors"), *folder.glob("failed*.jsonl"), *logs]:
        path.unlink(missing_ok=True)
