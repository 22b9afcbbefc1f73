"""What stays on a GPU from step to step: weights, gradients and the optimiser's state, by what each engine does.

The engines are the authority: training/engine.py (ddp), zero.py and DeepSpeed's stage 2 and 3, fsdp.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from llava_lite.budget.shapes import Shape
from llava_lite.models.adapter import Quantize
from llava_lite.models.llava import Llava
from llava_lite.training.memory import transformer_layers

_SUM_BUCKET = 2**28  # numbers that ddp sums at once (training/engine.py)
_ZERO_BUCKET = 2**26  # training/zero.py
_ZERO3_LIVE = 1e9  # DeepSpeed's stage3_max_live_parameters and sub_group_size
_ZERO3_PREFETCH = 5e7


@dataclass(frozen=True)
class Strategy:
    """As `parallel`: strategy and offload."""

    name: str
    offload: str | None = None

    def __str__(self) -> str:
        return {None: self.name, "optimizer": f"{self.name} offload", "all": f"{self.name} offload all"}[self.offload]

    def overrides(self) -> list[str]:
        return [f"parallel.strategy={self.name}", f"parallel.offload={self.offload or 'null'}"]


@dataclass(frozen=True)
class States:
    """Bytes of one process; buffers: what the engine needs beside while gradients are made, `update`: while weights
    are brought up to date, when no activations are held; host: of the CPU's memory, for all processes together."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float = 0.0
    update: float = 0.0
    host: float = 0.0

    def peak(self, activations: float) -> float:
        return self.weights + self.gradients + self.optimizer + max(self.buffers + activations, self.update)


@dataclass(frozen=True)
class Sizes:
    """Counted on the model itself. bytes_of_number: of what it computes in.

    weights:  bytes of all weights as ddp holds them; numbers: how many they are
    trained:  numbers that learn, `full` of them in fp32 already (adapters)
    largest:  numbers of the largest tensor that learns
    moments:  bytes of the optimiser's moments
    layer, root: numbers of the largest layer and of all that is in none; trained_layer, trained_root: of what learns
    """

    bytes_of_number: int
    weights: float
    numbers: int
    trained: int
    full: int
    largest: int
    moments: float
    layer: int
    root: int
    trained_layer: int
    trained_root: int


def count_sizes(model: Llava, shape: Shape, *, kind: str) -> Sizes:
    """Count a model; kind: of the optimiser, as `optim.kind`."""
    few = _quantized(model) if shape.quantize else {}
    parameters = list(model.parameters())
    number = int(model.language_model.dtype.itemsize)
    trained = [p for p in parameters if p.requires_grad]
    layers = transformer_layers(model)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    outside = [p for p in parameters if id(p) not in inside]
    return Sizes(
        bytes_of_number=number,
        weights=sum(
            _few_bits(few[id(p)], shape.quantize) if id(p) in few and shape.quantize else p.numel() * p.element_size()
            for p in parameters
        ),
        numbers=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in trained),
        full=sum(p.numel() for p in trained if p.element_size() == 4),
        largest=max((p.numel() for p in trained), default=0),
        moments=sum(_MOMENTS[kind](p.numel()) for p in trained),
        layer=max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0),
        root=sum(p.numel() for p in outside),
        trained_layer=max(
            (sum(p.numel() for p in layer.parameters() if p.requires_grad) for layer in layers), default=0
        ),
        trained_root=sum(p.numel() for p in outside if p.requires_grad),
    )


def find_states(sizes: Sizes, strategy: Strategy, *, kind: str, count: int, overlap: bool = True) -> States:
    """Return what one of `count` processes holds. overlap: as on GPUs, where ZeRO sums one bucket and fills another."""
    paged = sizes.moments if kind.startswith("paged") else 0.0
    number, trained = sizes.bytes_of_number, sizes.trained
    fp64 = 8 * sizes.largest  # a norm is of one tensor in double precision
    if strategy.name == "ddp":
        masters = 4 * (trained - sizes.full) if number < 4 else 0
        summed = 4 * min(trained, max(_SUM_BUCKET, sizes.largest)) if count > 1 else 0
        return States(
            weights=sizes.weights,
            gradients=4 * trained,
            optimizer=masters + sizes.moments - paged,
            update=max(summed, fp64),
            host=paged * count,
        )
    if strategy.name == "fsdp2":
        # What is in no layer stays gathered, with its gradients, until all layers are done: then these go on in fp32.
        gathered = number * sizes.root
        return States(
            weights=4 * sizes.numbers / count,
            gradients=4 * trained / count,
            optimizer=sizes.moments / count,
            buffers=gathered + number * 2 * sizes.layer,
            update=max(gathered + (number + 4) * sizes.trained_root + number * sizes.trained_layer, fp64 / count),
        )
    weights = sizes.weights - sizes.full * (4 - number)  # adapters learn in the dtype of the rest
    share = trained / count
    bucket = number * _ZERO_BUCKET * (2 if overlap else 1)
    state = (4 * trained + sizes.moments) / count  # the masters, also of weights that are in fp32
    if strategy.name == "zero2":
        kept = States(
            weights=weights,
            gradients=number * share,
            optimizer=state,
            buffers=bucket,
            # a batch's gradients before they are added to the step's; then all of them flat, and in fp32
            update=max(bucket + number * share, number * share + (4 * share if number < 4 else 0)),
        )
    else:
        shared = count > 1 or strategy.offload == "all"
        live = number * (min(sizes.numbers, _ZERO3_LIVE) + _ZERO3_PREFETCH) if shared else 0.0
        kept = States(
            weights=weights / count,
            gradients=number * share,
            optimizer=state,
            buffers=bucket + live,
            update=bucket + number * share + 4 * min(share, _ZERO3_LIVE),
        )
    if strategy.offload is None:
        return kept
    return replace(
        kept,
        weights=0.0 if strategy.offload == "all" else kept.weights,
        gradients=0.0,
        optimizer=0.0,
        update=0.0,
        # masters, gradients, and weights on their way
        host=(4 + 4 + number) * trained + sizes.moments + (weights if strategy.offload == "all" else 0),
    )


def _eight_bits(numbers: int) -> float:
    """Two moments in a byte a number and a scale a block of 256; small tensors stay in fp32 (bitsandbytes)."""
    return 2 * numbers + 8 * math.ceil(numbers / 256) if numbers >= 4096 else 8 * numbers


_MOMENTS: dict[str, Callable[[int], float]] = {
    "adamw": lambda numbers: 8 * numbers,
    "adamw_8bit": _eight_bits,
    "paged_adamw": lambda numbers: 8 * numbers,
    "paged_adamw_8bit": _eight_bits,
    "sgd": lambda numbers: 0,
}


def _quantized(model: Llava) -> dict[int, nn.Linear]:
    """The layers that are held in few bits, by their weights: the linear ones in the language model's blocks."""
    return {
        id(module.weight): module
        for layer in transformer_layers(model.language_model)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }


def _few_bits(layer: nn.Linear, quantize: Quantize) -> float:
    """Bytes of a matrix. NF4: half a byte a number, a byte a block of 64, a float 256 such; int8: a float a row."""
    numbers = layer.in_features * layer.out_features
    if quantize == "8bit":
        return numbers + 4 * layer.out_features
    return numbers / 2 + math.ceil(numbers / 64) + 4 * math.ceil(numbers / 64 / 256)
