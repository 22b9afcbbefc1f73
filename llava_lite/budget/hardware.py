"""GPUs by the names people call them, and what else of a machine has to be assumed."""

from __future__ import annotations

from llava_lite.config import nearest
from llava_lite.flops import DEVICES, Device

GIB = 2**30

HFU = 0.45
"""Share of the peak that is reached while a step runs, what is computed again included. Not measured here: it lies by
the 43 % that LLaVA-1.5's published hours of stage one come to on A100s (stage two, which pads more, 34 %)."""
FILL = 0.97
"""How full packed rows are, by best fit decreasing on lengths like LLaVA-1.5's."""
RESERVE = 0.04
"""Share of a GPU's memory that is lost between blocks of the allocator."""
CONTEXT_GIB = 1.0
"""What CUDA and its libraries hold of a GPU; NCCL holds as much again where there are several."""
HOST_BYTES_PER_S = 20e9
"""What one GPU exchanges with the CPU's memory."""
HOST_ADAM_PER_S = 1e9
"""Parameters a second that one machine's CPUs bring up to date."""

# Where a name means several boards, the usual one: SXM, not PCIe.
GPUS: dict[str, str] = {
    "a100-40": "NVIDIA A100-SXM4-40GB",
    "a100-80": "NVIDIA A100-SXM4-80GB",
    "a100-40-pcie": "NVIDIA A100-PCIE-40GB",
    "a100-80-pcie": "NVIDIA A100 80GB PCIe",
    "h100": "NVIDIA H100 80GB HBM3",
    "h100-pcie": "NVIDIA H100 PCIe",
    "h100-nvl": "NVIDIA H100 NVL",
    "h200": "NVIDIA H200",
    "h200-nvl": "NVIDIA H200 NVL",
    "b200": "NVIDIA B200",
    "l40s": "NVIDIA L40S",
    "l40": "NVIDIA L40",
    "l4": "NVIDIA L4",
    "a10": "NVIDIA A10",
    "a40": "NVIDIA A40",
    "a6000": "NVIDIA RTX A6000",
    "6000-ada": "NVIDIA RTX 6000 Ada Generation",
    "3090": "NVIDIA GeForce RTX 3090",
    "4090": "NVIDIA GeForce RTX 4090",
    "5090": "NVIDIA GeForce RTX 5090",
    "v100-16": "Tesla V100-SXM2-16GB",
    "v100-32": "Tesla V100-SXM2-32GB",
    "t4": "Tesla T4",
}


class BudgetError(ValueError):
    """A question that cannot be answered without guessing."""


def find_gpu(name: str) -> tuple[str, Device]:
    """Return a GPU's full name and data sheet, by a short name (h200) or torch's own. Raises BudgetError."""
    full = GPUS.get(name.lower(), name)
    if full not in DEVICES:
        word = nearest(name.lower(), list(GPUS))
        remedy = f"did you mean {word}?" if word else f"known: {', '.join(GPUS)}"
        raise BudgetError(f"--gpu {name}: not in the table; {remedy}")
    if DEVICES[full].tflops is None:
        raise BudgetError(f"--gpu {name}: {full} has no bf16 units, and what it does in fp32 is not in the table")
    return full, DEVICES[full]


def usable(device: Device, count: int) -> float:
    """Return the bytes of one of `count` GPUs that training can fill."""
    return (device.memory_gib * (1 - RESERVE) - CONTEXT_GIB * (2 if count > 1 else 1)) * GIB
