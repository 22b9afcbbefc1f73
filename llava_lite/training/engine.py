"""Engines: how one optimiser step runs on the hardware there is. The plain one: a device a process, any number of them.

Gradients are summed over micro-batches, then over ranks in one fixed order: several ranks give what one would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from llava_lite import distributed
from llava_lite.models.loss import Loss
from llava_lite.training.config import OptimConfig
from llava_lite.training.optimizer import make_optimizer, schedule


class Trainable(Protocol):
    """Any module whose forward(**batch) returns a Loss, and that can name its parts."""

    def __call__(self, **batch: torch.Tensor) -> Loss: ...

    def parts(self) -> dict[str, nn.Module]: ...


@dataclass(frozen=True)
class StepResult:
    """loss: mean over all targets of the step, on all ranks; grad_norm: before clipping."""

    loss: float
    grad_norm: float
    learning_rates: dict[str, float]


class PlainEngine:
    """The whole model on this process's device; `num_steps` is the length of the schedule."""

    def __init__(self, module: Trainable, config: OptimConfig, *, num_steps: int) -> None:
        self.module = module
        self.config = config
        self.num_steps = num_steps
        self.optimizer = make_optimizer(module.parts(), config)
        self.parameters = {
            name: p for g in self.optimizer.param_groups for name, p in zip(g["names"], g["params"], strict=True)
        }
        self.device = next(iter(self.parameters.values())).device

    def train_step(self, step: int, batches: Sequence[Mapping[str, torch.Tensor]], num_targets: int) -> StepResult:
        """Learn from this rank's batches of one step; one mean over all targets of the step, wherever they are."""
        count = distributed.all_sum(torch.tensor(num_targets, dtype=torch.float64, device=self.device)).item()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in batches:
            loss = self.module(**{name: value.to(self.device, non_blocking=True) for name, value in batch.items()})
            (loss.sum / max(count, 1)).backward()
            total += loss.sum.detach()
        self._reduce_gradients()
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        if self.config.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), self.config.clip, norm)
        factor = schedule(self.config, step, self.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        rates = {group["part"]: float(group["lr"]) for group in self.optimizer.param_groups}
        return StepResult(distributed.all_sum(total).item() / max(count, 1), norm.item(), rates)

    def _reduce_gradients(self) -> None:
        """Sum gradients over ranks, each parameter at the same place of one buffer whatever the batch held."""
        if distributed.world_size() == 1:
            return
        parameters = list(self.parameters.values())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        buffer = distributed.all_sum(torch.cat([grad.flatten() for grad in grads]))
        for parameter, part in zip(parameters, buffer.split([g.numel() for g in grads]), strict=True):
            parameter.grad = part.view_as(parameter)

    def describe(self) -> list[dict[str, object]]:
        """What each part is to this run, read back from the module and the optimiser: a row a part."""
        rates = {group["part"]: group["peak_lr"] for group in self.optimizer.param_groups}
        return [
            {
                "part": part,
                "parameters": sum(p.numel() for p in module.parameters()),
                "trains": sum(p.numel() for p in module.parameters() if p.requires_grad),
                "dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})),
                "lr": rates.get(part),
            }
            for part, module in self.module.parts().items()
        ]

    def state(self) -> dict[str, torch.Tensor]:
        """The optimiser's state as named tensors."""
        return {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state[parameter].items()
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` gave."""
        for full_name, value in state.items():
            name, key = full_name.rsplit(".", 1)
            parameter = self.parameters[name]
            self.optimizer.state[parameter][key] = value.to(parameter.device)
