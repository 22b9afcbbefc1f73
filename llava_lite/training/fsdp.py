"""FSDP2, PyTorch's own sharding: weights, gradients and state are shared out, and gathered a layer at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from llava_lite import distributed
from llava_lite.training.config import OptimConfig
from llava_lite.training.engine import MASTER, Engine, Trainable, named_parameters, sum_of_squares
from llava_lite.training.memory import transformer_layers
from llava_lite.training.optimizer import make_optimizer


class FsdpEngine(Engine):
    """Every process holds a slice of each fp32 weight; layers are gathered, and compute, in the dtype they came in."""

    def __init__(self, module: Trainable, config: OptimConfig, *, num_steps: int) -> None:
        super().__init__(module, config, num_steps=num_steps)
        assert isinstance(module, nn.Module)
        self.dtype = next(iter(self.parameters.values())).dtype
        module.float()
        mesh = init_device_mesh(self.device.type, (distributed.world_size(),))
        policy = MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32)
        for layer in transformer_layers(module):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, mp_policy=policy)
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)  # gradients add up: the loss is a share of the whole step's mean
                part.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(module, "extend")
        self.parameters = named_parameters(self.module.parts())
        self.optimizer = make_optimizer(self.module.parts(), config)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        with super().evaluating():
            yield
        assert isinstance(self.module, FSDPModule)
        self.module.reshard()  # what it does by itself only in a backward pass

    @torch.no_grad()
    def update(self) -> float:
        slices = [_slice(parameter.grad) for parameter in self.parameters.values()]
        norm = distributed.all_sum(sum_of_squares(slices, self.device)).sqrt()
        if self.config.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), self.config.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def weights(self) -> dict[str, torch.Tensor]:
        assert isinstance(self.module, nn.Module)
        weights: dict[str, torch.Tensor] = {}
        for name, value in self.module.state_dict().items():
            whole = _whole(value)
            if distributed.is_main():
                weights[name] = whole.to("cpu", self.dtype if whole.is_floating_point() else whole.dtype)
        return weights

    def state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            kept: dict[str, Any] = dict(self.optimizer.state[parameter])
            if self.dtype != torch.float32:
                kept[MASTER] = parameter.detach()
            for key, value in kept.items():
                whole = _whole(torch.as_tensor(value))
                if distributed.is_main():
                    state[f"{name}.{key}"] = whole.cpu()
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        for full_name, value in state.items():
            name, key = full_name.rsplit(".", 1)
            parameter = self.parameters[name]
            assert isinstance(parameter, DTensor)
            if key == "step":
                self.optimizer.state[parameter][key] = value.to(self.device)
                continue
            slices = distribute_tensor(value.to(self.device), parameter.device_mesh, parameter.placements)
            if key == MASTER:
                parameter.copy_(slices)
            else:
                self.optimizer.state[parameter][key] = slices


def _slice(value: torch.Tensor | None) -> torch.Tensor | None:
    """This process's part of a gradient."""
    return value.to_local() if isinstance(value, DTensor) else value


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
