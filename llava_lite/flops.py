"""What a step costs: floating-point operations by what drives them, and what devices can do. Pure arithmetic.

Counted are the model's multiplications (a multiply and an add are two operations), as the task needs them: padding,
what checkpointing computes again and the optimiser are not work. So the ratio to a device's peak is MFU as Chowdhery et
al. (PaLM, 2022, appendix B) define it. Norms, activations, softmax and embedding look-ups are left out, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


def linear_flops(num_weights: int, *, flows: bool, trains: bool) -> int:
    """FLOPs of a weight matrix for one row, forward and backward: 2N, and 2N more for each gradient that it makes.

    flows: a gradient goes back through it, to something before it that learns; trains: it learns itself. So 6N is the
    common case, 4N a frozen layer behind one that learns (or the first that learns), 2N a frozen one before all those.
    """
    return 2 * num_weights * (1 + flows + trains)


def attention_flops(width: int, *, flows: bool) -> int:
    """FLOPs of attention for one pair (a token, a token it sees): scores and weighted sum; backward costs twice it.

    width: heads * size of a head. What a kernel computes again in the backward pass is not counted.
    """
    return 4 * width * (3 if flows else 1)


def num_pairs(length: int, window: int | None = None) -> int:
    """Pairs (a token, a token it sees) of a causal document; window: how many tokens one sees at most, itself included.

    Half of the square, as FlashAttention counts causal attention (Dao et al., 2022), and not the whole, as PaLM does.
    """
    seen = length if window is None else min(length, window)
    return seen * (seen + 1) // 2 + (length - seen) * seen


@dataclass(frozen=True)
class Cost:
    """FLOPs of one training pass, forward and backward, by what drives them.

    per_tile:   vision tower and projector
    per_token:  the language model's linear layers
    per_target: its head, which only tokens with a target reach
    per_pair:   its attention, by window; None: without one
    """

    per_tile: int
    per_token: int
    per_target: int
    per_pair: Mapping[int | None, int]

    def flops(self, documents: Iterable[int], *, num_targets: int, num_tiles: int) -> int:
        """FLOPs of a batch; documents: the length of each, in tokens."""
        lengths = list(documents)
        linear = num_tiles * self.per_tile + sum(lengths) * self.per_token + num_targets * self.per_target
        pairs = (cost * num_pairs(n, window) for window, cost in self.per_pair.items() for n in lengths)
        return linear + sum(pairs)


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet.

    tflops:     10^12 dense bf16 operations a second, accumulated in fp32; None: it has no bf16 units
    memory_gib: what of its memory a program can have, about
    watts:      the board's limit
    """

    tflops: float | None
    memory_gib: float
    watts: int


# By the name that torch.cuda.get_device_name gives. NVIDIA's sheets print twice these rates, with 2:4 sparsity, beside
# an asterisk: nothing here is sparse. H200 and H100 SXM are the same chip.
DEVICES: dict[str, Device] = {
    "NVIDIA A100-SXM4-40GB": Device(312, 39.4, 400),
    "NVIDIA A100-PCIE-40GB": Device(312, 39.4, 250),
    "NVIDIA A100-SXM4-80GB": Device(312, 79.2, 400),
    "NVIDIA A100 80GB PCIe": Device(312, 79.2, 300),
    "NVIDIA H100 80GB HBM3": Device(989.4, 79.2, 700),
    "NVIDIA H100 PCIe": Device(756, 79.2, 350),
    "NVIDIA H100 NVL": Device(835, 93.1, 400),
    "NVIDIA H200": Device(989.4, 139.8, 700),
    "NVIDIA H200 NVL": Device(835, 139.8, 600),
    "NVIDIA B200": Device(2250, 178.4, 1000),
    "NVIDIA L40S": Device(362, 44.4, 350),
    "NVIDIA L40": Device(181, 44.4, 300),
    "NVIDIA L4": Device(121, 22.0, 72),
    "NVIDIA A10": Device(125, 22.0, 150),
    "NVIDIA A40": Device(149.7, 44.4, 300),
    "NVIDIA RTX A6000": Device(154.8, 47.4, 300),
    "NVIDIA RTX 6000 Ada Generation": Device(364.2, 47.4, 300),
    "NVIDIA GeForce RTX 3090": Device(71, 23.6, 350),
    "NVIDIA GeForce RTX 4090": Device(165.2, 23.5, 450),
    "NVIDIA GeForce RTX 5090": Device(209.5, 31.4, 575),
    "Tesla V100-SXM2-16GB": Device(None, 15.8, 300),
    "Tesla V100-SXM2-32GB": Device(None, 31.7, 300),
    "Tesla V100-PCIE-32GB": Device(None, 31.7, 250),
    "Tesla T4": Device(None, 14.6, 70),
}
