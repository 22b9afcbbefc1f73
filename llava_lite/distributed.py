"""Which process this is, and on which device and in which dtype it computes: decided once, here.

The processes are those of `torchrun`; without it there is one. torch is imported late, so that asking for the rank
costs nothing.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("llava_lite")
T = TypeVar("T")


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Only the main process writes files and speaks."""
    return rank() == 0


def device() -> torch.device:
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def dtype() -> torch.dtype:
    """bf16 where the GPU has units for it, else fp32: bf16 is emulated, and very slow, elsewhere."""
    import torch

    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def start(*, alone: bool = False, apart: bool = False, deterministic: bool = False) -> None:
    """Join the other processes, and let the main process speak. Call once, at the start of a recipe.

    apart: they work apart and only `wait` for each other, which needs no GPU
    alone: make a group of a single process too, for engines that know nothing else; deterministic: on a GPU, use only
    kernels that give the same bits each time
    """
    import torch
    import torch.distributed as dist

    logging.basicConfig(level=logging.INFO if is_main() else logging.ERROR, format="%(message)s")
    for chatty in ("httpx", "transformers", "huggingface_hub"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True)
    if (world_size() > 1 or alone) and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(device())
        backend = "nccl" if torch.cuda.is_available() and not apart else "gloo"
        if world_size() > 1:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]


def wait() -> None:
    """Wait for all processes, however long they work, after `start(apart=True)`.

    Raises RuntimeError where one of them has ended: its connection is closed then.
    """
    import torch.distributed as dist

    if world_size() > 1:
        dist.monitored_barrier(timeout=timedelta(days=365))


def stop() -> None:
    """Leave the other processes."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def seed_step(seed: int, step: int) -> None:
    """Let the random numbers of a step follow from the run's seed, the step and the process, and from nothing else."""
    import torch

    torch.manual_seed((seed * 1_000_003 + step) * 1_000_003 + rank())


def all_sum(value: torch.Tensor) -> torch.Tensor:
    """Add a tensor up over all processes, in place."""
    import torch.distributed as dist

    if world_size() > 1:
        dist.all_reduce(value)
    return value


def gather(value: T) -> list[T]:
    """Return what each process brings, in the order of their ranks, to all of them."""
    import torch.distributed as dist

    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all processes."""
    import torch.distributed as dist

    if world_size() > 1:
        dist.barrier()
