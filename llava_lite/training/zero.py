"""DeepSpeed's ZeRO: optimiser state and gradients (stage 2), and weights too (stage 3), shared out over processes.

DeepSpeed is told what our configuration says, and nothing stands in a file beside it: a step's batches, the clipping
and the learning rates are ours, so that they cannot disagree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from llava_lite import distributed
from llava_lite.models.loss import Loss
from llava_lite.training.config import OptimConfig
from llava_lite.training.engine import MASTER, Engine, Trainable
from llava_lite.training.optimizer import make_optimizer


class ZeroEngine(Engine):
    """stage: 2 or 3; offload: what lies in the CPU's memory, `optimizer` or, in stage 3, `all`."""

    def __init__(
        self,
        module: Trainable,
        config: OptimConfig,
        *,
        num_steps: int,
        stage: int,
        offload: Literal["optimizer", "all"] | None,
    ) -> None:
        import deepspeed

        super().__init__(module, config, num_steps=num_steps)
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed wants it of a single process too
        deepspeed.init_distributed()
        low = next(iter(self.parameters.values())).dtype == torch.bfloat16
        zero: dict[str, object] = {
            "stage": stage,
            "contiguous_gradients": True,
            "overlap_comm": self.device.type == "cuda",
            "reduce_bucket_size": 2**26,
        }
        if offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": self.device.type == "cuda"}
        if offload == "all":
            zero["offload_param"] = {"device": "cpu", "pin_memory": self.device.type == "cuda"}
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # where a step ends, `backward` says
            "gradient_clipping": config.clip or 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": low},
            "steps_per_print": 2**62,
        }
        optimizer = make_optimizer(module.parts(), config)
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)
        self.optimizer = self.engine.basic_optimizer
        self.has_masters = low

    def forward(self, batch: Mapping[str, torch.Tensor]) -> Loss:
        return self.engine(**batch)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * distributed.world_size())  # which DeepSpeed divides by again

    def update(self) -> float:
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float(norm)

    def weights(self) -> dict[str, torch.Tensor]:
        import deepspeed

        assert isinstance(self.module, nn.Module)
        state = dict(self.module.state_dict())
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            with deepspeed.zero.GatheredParameters([parameter]):
                if distributed.is_main():
                    state[name] = parameter.detach().cpu().clone()
        return state

    def state(self) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        state: dict[str, torch.Tensor] = {}
        steps, keys = self._kept()
        self._link(keys)
        for name, parameter in self.parameters.items():
            kept = {key: safe_get_full_optimizer_state(parameter, key) for key in keys}
            if self.has_masters:
                kept[MASTER] = safe_get_full_fp32_param(parameter)
            if distributed.is_main():
                state |= {f"{name}.{key}": value.cpu() for key, value in kept.items()}
                state |= {f"{name}.step": step.clone() for step in steps[:1]}
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        keys = {name.rsplit(".", 1)[1] for name in state} - {MASTER, "step"}
        steps = [value for name, value in state.items() if name.endswith(".step")]
        for flat in self._flat():
            self.optimizer.state[flat].update({key: torch.zeros_like(flat) for key in sorted(keys)})
            if steps:
                self.optimizer.state[flat]["step"] = steps[0].to(flat.device, copy=True)
        self._link(sorted(keys))
        for full_name, value in state.items():
            name, key = full_name.rsplit(".", 1)
            if key != "step":
                self._put(self.parameters[name], value.to(self.device), None if key == MASTER else key)

    def _put(self, parameter: nn.Parameter, value: torch.Tensor, key: str | None) -> None:
        """Give this process's slice of a value to the optimiser. key: None for the weight itself."""
        from deepspeed import utils

        if self.engine.zero_optimization_stage() == 2:
            if key is None:
                utils.safe_set_full_fp32_param(parameter, value)
            else:
                utils.safe_set_full_optimizer_state(parameter, value, key)
            return
        size = utils.safe_get_local_fp32_param(parameter).numel()
        start = size * distributed.rank()
        mine = value.flatten()[start : start + size]
        part = torch.zeros(size, dtype=value.dtype, device=value.device)  # longer than `mine` where it does not divide
        part[: len(mine)] = mine
        if key is None:
            utils.safe_set_local_fp32_param(parameter, part)
        else:
            utils.safe_set_local_optimizer_state(parameter, part, key)

    def _link(self, keys: Sequence[str]) -> None:
        """Make stage 2 know where of its state each parameter has its part; it has no public call for it."""
        if keys and self.engine.zero_optimization_stage() == 2:
            from deepspeed.utils.mixed_precision_linkage import lazy_init_hp_params_optimizer_state

            for group, flat in zip(self.engine.optimizer.bit16_groups, self._flat(), strict=True):
                lazy_init_hp_params_optimizer_state(group, flat, self.optimizer.state)

    def _flat(self) -> list[torch.Tensor]:
        """The slices that DeepSpeed's optimiser learns on, each of many parameters."""
        zero: Any = self.engine.optimizer
        stage_2 = self.engine.zero_optimization_stage() == 2
        return list(zero.single_partition_of_fp32_groups if stage_2 else zero.fp32_partitioned_groups_flat)

    def _kept(self) -> tuple[list[torch.Tensor], list[str]]:
        """The step counts of the optimiser's state, and the names of what else it keeps; none before the first step."""
        states = [self.optimizer.state[flat] for flat in self._flat() if flat in self.optimizer.state]
        steps = [torch.as_tensor(state["step"]) for state in states if "step" in state]
        return steps, sorted({key for state in states for key in state if key != "step"})
