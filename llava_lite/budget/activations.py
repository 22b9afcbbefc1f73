"""What a forward and a backward pass hold at most: found by running the real module on tensors that have no contents.

torch's fake tensors know shapes, dtypes and what shares whose storage, and autograd works on them as on any other, so
what is kept for the backward pass, checkpointed and computed again is what the run itself will keep. Whatever family,
projector, adapter: nothing about them is said twice.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava_lite.budget.shapes import Shape
from llava_lite.models.llava import Llava
from llava_lite.models.loss import IGNORE
from llava_lite.training.memory import Checkpointing, checkpoint_layers, transformer_layers


@dataclass(frozen=True)
class Row:
    """A micro-batch: how many tokens, targets among them, and tiles; `num_visual` tokens are images'."""

    num_tokens: int
    num_targets: int
    num_tiles: int
    num_visual: int


@dataclass(frozen=True)
class Activations:
    """Bytes at the fullest moment. logits: what is targets by vocabulary; other: all else, passing gradients too."""

    logits: int
    other: int

    @property
    def total(self) -> int:
        return self.logits + self.other


def measure_activations(
    shape: Shape, row: Row, *, checkpointing: Checkpointing, dtype: torch.dtype, zero3: bool = False
) -> Activations:
    """Return what a pass over one row holds beside weights and gradients.

    zero3: as DeepSpeed's stage 3 computes, whose linear layers keep their inputs also where they do not learn.

    Layers are alike: a few of the language model's are run, and what each one more keeps is added for the rest. That is
    exact where the fullest moment comes when all layers hold what they keep, and otherwise too much by a layer or two.
    """
    num_layers = int(shape.text.num_hidden_layers)
    period = checkpointing if isinstance(checkpointing, int) else 1
    if num_layers <= 3 * period:
        return run_pass(make_hollow(shape, dtype, checkpointing), row, zero3=zero3)[0]
    # As many more layers as keeps every K-th where it falls.
    run = 2 * period + (num_layers - 1) % period + 1
    model = make_hollow(shape.shallow(run, period=period), dtype, checkpointing)
    found, entries = run_pass(model, row, zero3=zero3)
    per_period = entries[run - 1] - entries[run - 1 - period]
    return Activations(found.logits, found.other + per_period * (num_layers - run) // period)


def make_hollow(shape: Shape, dtype: torch.dtype, checkpointing: Checkpointing) -> Llava:
    """Make the model of tensors that are said to be a CPU's and have no contents."""
    model = shape.make(dtype)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model._apply(lambda tensor: torch.empty_like(tensor, device="cpu"))
    model.language_model.tie_weights()
    checkpoint_layers(model, checkpointing)
    return model


def run_pass(model: Llava, row: Row, *, zero3: bool = False) -> tuple[Activations, list[int]]:
    """Pass a row through a model; also say what is held when each layer of the language model is entered."""
    known = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
    ledger = _Ledger(known, logits=(row.num_targets, int(model.language_model.config.vocab_size)))
    entries: list[int] = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_: entries.append(ledger.live))
        for layer in transformer_layers(model.language_model)
    ]
    for parameter in model.parameters():
        if parameter.requires_grad:  # a gradient that is whole is counted by itself, wherever an engine keeps it
            parameter.register_post_accumulate_grad_hook(_forget)
    batch = make_batch(model, row)
    with _linear_as_in_zero3() if zero3 else nullcontext(), ledger:
        loss = model(**batch)
        num_entries = len(entries)
        loss.sum.backward()
    for hook in hooks:
        hook.remove()
    return Activations(ledger.logits_at_peak, ledger.peak - ledger.logits_at_peak), entries[:num_entries]


@contextmanager
def _linear_as_in_zero3() -> Iterator[None]:
    linear = functional.linear
    functional.linear = _Zero3Linear.apply  # which DeepSpeed puts there too
    try:
        yield
    finally:
        functional.linear = linear


class _Zero3Linear(torch.autograd.Function):
    """What deepspeed.runtime.zero.linear does."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        ctx.save_for_backward(rows, weight, bias)
        result = rows.matmul(weight.t())
        return result if bias is None else result.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, bias = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        return (
            grad.matmul(weight) if ctx.needs_input_grad[0] else None,
            flat.t().matmul(rows.flatten(0, -2)) if ctx.needs_input_grad[1] else None,
            flat.sum(0) if bias is not None and ctx.needs_input_grad[2] else None,
        )


def _forget(parameter: torch.Tensor) -> None:
    parameter.grad = None


def make_batch(model: Llava, row: Row) -> dict[str, torch.Tensor]:
    """Make a real batch of two documents, which the model can look at."""
    input_ids = torch.zeros(1, row.num_tokens, dtype=torch.long)
    input_ids[0, : row.num_visual] = model.image_token_id
    labels = torch.full((1, row.num_tokens), IGNORE)
    labels[0, row.num_tokens - row.num_targets :] = 0
    half = math.ceil(row.num_tokens / 2)
    positions = torch.cat([torch.arange(half), torch.arange(row.num_tokens - half)])
    side = model.vision_tower.model.config.image_size if model.vision_tower is not None else 0
    return {
        "input_ids": input_ids,
        "labels": labels,
        "position_ids": positions.unsqueeze(0),
        "pixel_values": torch.zeros(row.num_tiles, 3, side, side),
        "patch_index": torch.zeros(row.num_visual, dtype=torch.long),
    }


class _Ledger(TorchDispatchMode):
    """Knows every storage that operations make, from its first tensor to its end."""

    def __init__(self, known: list[torch.UntypedStorage], *, logits: tuple[int, int]) -> None:
        super().__init__()
        self._shape_of_logits = logits
        self.live = self.peak = self.logits_at_peak = self._logits = 0
        self._sizes = {storage._cdata: 0 for storage in known}
        self._wide: set[int] = set()
        self._known = known  # their addresses stay theirs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._meet(tensor)
        if self.live > self.peak:
            self.peak, self.logits_at_peak = self.live, self._logits
        return result

    def _meet(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size = storage.nbytes()
        self.live += size
        if tuple(tensor.shape[-2:]) == self._shape_of_logits:
            self._wide.add(key)
            self._logits += size
        weakref.finalize(storage, self._end, key)

    def _end(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.live -= size
        if key in self._wide:
            self._wide.remove(key)
            self._logits -= size
