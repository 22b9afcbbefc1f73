"""Engines: how one optimiser step runs on the hardware there is. All of them do the same arithmetic.

    engine.py   ddp      the whole model on every device; one process or many
    zero.py     zero2, zero3   DeepSpeed
    fsdp.py     fsdp2          PyTorch's own sharding

A step is one mean over all its targets, wherever they are. What an engine keeps is written and read as whole tensors by
the names of parameters, so that another engine, or another number of processes, can go on from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import nn

from llava_lite import distributed
from llava_lite.flops import Cost
from llava_lite.models.loss import Loss
from llava_lite.training.config import OptimConfig, ParallelConfig
from llava_lite.training.optimizer import make_optimizer, schedule

MASTER = "master"
"""What an engine's state calls the fp32 weights behind weights of less precision."""
_BUCKET = 2**28


class Trainable(Protocol):
    """Any module whose forward(**batch) returns a Loss, and that can name its parts and say what it costs.

    guess_loss: the mean loss of one that holds all answers to a step's targets equally likely
    """

    def __call__(self, **batch: torch.Tensor) -> Loss: ...

    def parts(self) -> dict[str, nn.Module]: ...

    def cost(self, tile_size: int) -> Cost: ...

    def guess_loss(self, num_targets: int) -> float: ...


@dataclass(frozen=True)
class StepResult:
    """loss: mean over all targets of the step, on all ranks; grad_norm: before clipping."""

    loss: float
    grad_norm: float
    learning_rates: dict[str, float]


class Engine(ABC):
    """num_steps: the length of the schedule. `parameters` are those that train, by name ("projector.0.weight")."""

    optimizer: torch.optim.Optimizer

    def __init__(self, module: Trainable, config: OptimConfig, *, num_steps: int) -> None:
        self.module = module
        self.config = config
        self.num_steps = num_steps
        self.parameters = named_parameters(module.parts())
        self.device = next(iter(self.parameters.values())).device
        self._sizes = {
            part: (
                sum(p.numel() for p in child.parameters()),
                sum(p.numel() for p in child.parameters() if p.requires_grad),
            )
            for part, child in module.parts().items()
        }  # counted while the weights are whole

    def train_step(self, step: int, batches: Sequence[Mapping[str, torch.Tensor]], num_targets: int) -> StepResult:
        """Learn from this rank's batches of one step, counted from 0; num_targets: how many they have.

        Every rank brings the same number of batches.
        """
        factor = schedule(self.config, step, self.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        num_batches = sum(bool((batch["labels"] >= 0).any()) for batch in batches) if self._by_batch else 0
        counts = torch.tensor([num_targets, num_batches], dtype=torch.float64, device=self.device)
        all_targets, all_batches = (max(count, 1.0) for count in distributed.all_sum(counts).tolist())
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, batch in enumerate(batches):
            loss = self.forward({name: value.to(self.device, non_blocking=True) for name, value in batch.items()})
            share = loss.sum / (loss.count.clamp(min=1) * all_batches if self._by_batch else all_targets)
            self.backward(share, last=number == len(batches) - 1)
            total += share.detach()
        norm = self.update()
        rates = {group["part"]: float(group["lr"]) for group in self.optimizer.param_groups}
        return StepResult(distributed.all_sum(total).item(), norm, rates)

    @property
    def _by_batch(self) -> bool:
        return self.config.loss_average == "microbatch"

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let the module be asked: without dropout and gradients; afterwards it is as it was."""
        assert isinstance(self.module, nn.Module)
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training

    def mean_loss(self, steps: Iterable[Sequence[Mapping[str, torch.Tensor]]]) -> float:
        """Return the mean loss over all targets of all ranks' batches, while `evaluating`; every rank has as many."""
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch in chain.from_iterable(steps):
            loss = self.forward({name: value.to(self.device) for name, value in batch.items()})
            total += torch.stack([loss.sum.double(), loss.count.double()])
        loss_sum, count = distributed.all_sum(total).tolist()
        return loss_sum / count

    def forward(self, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Run the module on one batch."""
        return self.module(**batch)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add a batch's gradients to the step's; over ranks they add up, without being averaged."""
        loss.backward()

    @abstractmethod
    def update(self) -> float:
        """Clip, take the optimiser's step, forget the gradients; return their norm before clipping."""

    @abstractmethod
    def weights(self) -> dict[str, torch.Tensor]:
        """The module's whole state dict on the main process, anything on others; all processes call it together."""

    @abstractmethod
    def state(self) -> dict[str, torch.Tensor]:
        """The optimiser's state as whole tensors named "<parameter>.<key>"; as `weights` for the rest."""

    @abstractmethod
    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` of any engine gave, on any number of processes."""

    def describe(self) -> list[dict[str, object]]:
        """What each part is to this run, read back from the module and the optimiser: a row a part."""
        rates = {group["part"]: group["peak_lr"] for group in self.optimizer.param_groups}
        return [
            {
                "part": part,
                "parameters": self._sizes[part][0],
                "trains": self._sizes[part][1],
                "dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})),
                "lr": rates.get(part),
            }
            for part, module in self.module.parts().items()
        ]


def make_engine(module: Trainable, optim: OptimConfig, parallel: ParallelConfig, *, num_steps: int) -> Engine:
    """Build the engine that `parallel.strategy` names."""
    if parallel.strategy == "ddp":
        return PlainEngine(module, optim, num_steps=num_steps)
    if parallel.strategy == "fsdp2":
        from llava_lite.training.fsdp import FsdpEngine

        return FsdpEngine(module, optim, num_steps=num_steps)
    from llava_lite.training.zero import ZeroEngine

    stage = 2 if parallel.strategy == "zero2" else 3
    return ZeroEngine(module, optim, num_steps=num_steps, stage=stage, offload=parallel.offload)


def named_parameters(parts: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, in the order of the parts."""
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def sum_of_squares(grads: Iterable[torch.Tensor | None], device: torch.device) -> torch.Tensor:
    """Of all gradients there are: float64 scalar, so that it does not depend on how they are cut up."""
    norms = [torch.linalg.vector_norm(grad, dtype=torch.float64) for grad in grads if grad is not None]
    return torch.stack(norms).square().sum() if norms else torch.zeros((), dtype=torch.float64, device=device)


class PlainEngine(Engine):
    """The whole model on this process's device.

    Weights of less precision than fp32 learn through fp32 masters, and gradients add up in fp32. Over ranks they are
    summed in one fixed order, whatever a batch held.
    """

    def __init__(self, module: Trainable, config: OptimConfig, *, num_steps: int) -> None:
        super().__init__(module, config, num_steps=num_steps)
        self.masters = {name: _master(parameter) for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                parameter.register_post_accumulate_grad_hook(_Mover(self.masters[name]))
        self.optimizer = make_optimizer(module.parts(), config, self.masters)

    @torch.no_grad()
    def update(self) -> float:
        masters = list(self.masters.values())
        self._reduce_gradients(masters)
        norm = sum_of_squares([p.grad for p in masters], self.device).sqrt()
        if self.config.clip is not None:
            nn.utils.clip_grads_with_norm_(masters, self.config.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._round()
        return norm.item()

    def weights(self) -> dict[str, torch.Tensor]:
        assert isinstance(self.module, nn.Module)
        return dict(self.module.state_dict())

    def state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for name, master in self.masters.items():
            state |= {f"{name}.{key}": torch.as_tensor(value) for key, value in self.optimizer.state[master].items()}
            if master is not self.parameters[name]:
                state[f"{name}.{MASTER}"] = master
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        for full_name, value in state.items():
            name, key = full_name.rsplit(".", 1)
            master = self.masters[name]
            if key == MASTER:
                master.copy_(value)
            else:
                self.optimizer.state[master][key] = value.to(master.device)
        self._round()

    def _reduce_gradients(self, parameters: Sequence[torch.Tensor]) -> None:
        """Sum gradients over ranks, each parameter at the same place of the same buffer whatever the batch held."""
        if distributed.world_size() == 1:
            return
        for bucket in _buckets(parameters):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            buffer = distributed.all_sum(torch.cat([grad.flatten() for grad in grads]))
            for parameter, part in zip(bucket, buffer.split([g.numel() for g in grads]), strict=True):
                parameter.grad = part.view_as(parameter)

    def _round(self) -> None:
        """Bring the weights to what their masters are."""
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                parameter.copy_(self.masters[name])


class _Mover:
    """Adds a gradient to its master's as soon as it is there, so that no second copy of all of them exists."""

    def __init__(self, master: torch.Tensor) -> None:
        self.master = master

    def __call__(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        if self.master.grad is None:
            self.master.grad = parameter.grad.float()
        else:
            self.master.grad += parameter.grad
        parameter.grad = None


def _master(parameter: nn.Parameter) -> torch.Tensor:
    low = parameter.dtype in (torch.bfloat16, torch.float16)
    return parameter.detach().float().requires_grad_() if low else parameter


def _buckets(parameters: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Cut parameters into runs of about _BUCKET elements, always the same."""
    buckets: list[list[torch.Tensor]] = [[]]
    size = 0
    for parameter in parameters:
        if size + parameter.numel() > _BUCKET and buckets[-1]:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel()
    return buckets
