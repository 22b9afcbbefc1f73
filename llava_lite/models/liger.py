"""liger-kernel's RMSNorm, RoPE and gated MLP in place of a language model's own: the same numbers, less memory traffic.

Modules are replaced by the instance and keep their weights; the model's forward, head and loss stay its own. Only RoPE,
which is a function of a family's file, is replaced for the whole process. The only importer of
liger_kernel, which is late: few have it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

Rotation = Callable[..., tuple[torch.Tensor, torch.Tensor]]


class LigerError(ValueError):
    """Kernels that cannot be used here."""


@dataclass(frozen=True)
class _Kind:
    """activation: of the MLP; together: gate and up are one matrix; gemma: norms scale by 1 + weight, all in fp32."""

    activation: str
    together: bool = False
    gemma: bool = False


_LLAMA = _Kind("silu")
_GEMMA = _Kind("gelu_pytorch_tanh", gemma=True)
# By exact `model_type`, as models/language_model.py.
_KINDS: dict[str, _Kind] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": _Kind("silu", together=True),
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
}


def use_liger(language_model: PreTrainedModel) -> None:
    """Put Liger's kernels in, in place. Raises LigerError without the package, a GPU, or kernels for this model."""
    try:
        from liger_kernel.transformers import functional
    except ImportError as error:
        raise LigerError(
            f"fuse=liger: liger-kernel is not here ({error}); pip install 'llava-lite[fast]', or set fuse=compile"
        ) from None
    if language_model.device.type != "cuda":
        raise LigerError("fuse=liger: its kernels run on a GPU, and there is none; leave fuse out, or set fuse=compile")
    _replace(language_model, functional)


def _replace(language_model: Any, liger: ModuleType) -> None:
    kind = _KINDS.get(language_model.config.model_type)
    decoder = language_model.get_decoder()
    if kind is None or not _has(decoder.layers[0].mlp, kind.activation):
        raise LigerError(
            f"fuse=liger: no kernels for {language_model.config.model_type} with this activation; set fuse=compile"
        )
    norm, mlp = type(decoder.norm), type(decoder.layers[0].mlp)
    multiply = liger.liger_swiglu if kind.activation == "silu" else liger.liger_geglu
    gated = partial(_gated_together if kind.together else _gated, multiply=multiply)
    for module in decoder.modules():
        if type(module) is norm:
            eps = module.eps if kind.gemma else module.variance_epsilon
            offset, casting = (1.0, "gemma") if kind.gemma else (0.0, "llama")
            # not in place: Gemma 2 and 3 add a norm's output to what the same gradient flows through
            settings = {"eps": eps, "offset": offset, "casting_mode": casting, "in_place": False}
            module.forward = MethodType(partial(_normed, normalise=partial(liger.liger_rms_norm, **settings)), module)
        elif type(module) is mlp:
            module.forward = MethodType(gated, module)
    family = sys.modules[type(decoder).__module__]
    own = family.__dict__["apply_rotary_pos_emb"]
    if not isinstance(own, _Rotation):
        family.__dict__["apply_rotary_pos_emb"] = _Rotation(own, liger.liger_rope, language_model.device.type)


def _has(mlp: nn.Module, activation: str) -> bool:
    return type(ACT2FN[activation]) in {type(child) for child in mlp.children()}


def _normed(module: Any, hidden: torch.Tensor, *, normalise: Callable[..., torch.Tensor]) -> torch.Tensor:
    return normalise(hidden, module.weight)


def _gated(module: Any, hidden: torch.Tensor, *, multiply: Callable[..., torch.Tensor]) -> torch.Tensor:
    return module.down_proj(multiply(module.gate_proj(hidden), module.up_proj(hidden)))


def _gated_together(module: Any, hidden: torch.Tensor, *, multiply: Callable[..., torch.Tensor]) -> torch.Tensor:
    return module.down_proj(multiply(*module.gate_up_proj(hidden).chunk(2, dim=-1)))


@dataclass(frozen=True)
class _Rotation:
    """RoPE, a function of a family's file and not of a module: where Liger's cannot stand in, it stays what it was.

    That is on other devices, and where a family turns only a part of each head.
    """

    own: Rotation
    liger: Rotation
    device_type: str

    def __call__(self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        fits = q.device.type == self.device_type and cos.shape[-1] == q.shape[-1]
        return (self.liger if fits else self.own)(q, k, cos, sin)
