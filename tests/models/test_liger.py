"""Liger's kernels stand where they belong, and are refused where they cannot."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llava_lite.models import attention, liger
from llava_lite.models.language_model import LANGUAGE_MODELS, load_language_model

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def make(model_type: str, **more: object) -> PreTrainedModel:
    """A language model whose norms do something."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZES, **more}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) / 5)
    attention.install(model)
    return model


def learn(model: PreTrainedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two packed documents of nine and five tokens."""
    model.zero_grad()
    ids = torch.randint(2, 64, (1, 14), generator=torch.Generator().manual_seed(1)).to(model.device)
    positions = torch.cat([torch.arange(9), torch.arange(5)])[None].to(model.device)
    embeds = model.get_input_embeddings()(ids)
    bounds = attention.document_bounds(positions)
    logits = model(inputs_embeds=embeds, position_ids=positions, use_cache=False, documents=bounds).logits
    loss = F.cross_entropy(logits[0].float(), ids[0])
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class Formulas:
    """What Liger documents that its kernels compute, and how often each was called."""

    def __init__(self) -> None:
        self.calls = {"norm": 0, "rope": 0, "mlp": 0}

    def liger_rms_norm(
        self, hidden: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, casting_mode: str, in_place: bool
    ) -> torch.Tensor:
        self.calls["norm"] += 1
        assert casting_mode == ("gemma" if offset else "llama") and not in_place
        return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps) * (offset + weight)

    def liger_rope(self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        self.calls["rope"] += 1

        def turn(x: torch.Tensor) -> torch.Tensor:
            one, two = x.chunk(2, -1)
            return x * cos[:, None] + torch.cat([-two, one], -1) * sin[:, None]

        return turn(q), turn(k)

    def liger_swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        self.calls["mlp"] += 1
        return F.silu(gate) * up

    def liger_geglu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        self.calls["mlp"] += 1
        return F.gelu(gate, approximate="tanh") * up


def keep_rope(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the family's file its own function back after the test."""
    family = sys.modules[type(model.get_decoder()).__module__]
    monkeypatch.setattr(family, "apply_rotary_pos_emb", family.apply_rotary_pos_emb)


@pytest.mark.parametrize("model_type", LANGUAGE_MODELS)
def test_every_family_has_each_kernel_where_its_own_formula_was(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wiring, with formulas for kernels; the kernels themselves are below."""
    model, formulas = make(model_type), Formulas()
    keep_rope(model, monkeypatch)
    loss, grads = learn(model)
    names = list(model.state_dict())
    liger._replace(model, formulas)
    assert list(model.state_dict()) == names
    own_loss, own_grads = learn(model)
    torch.testing.assert_close(own_loss, loss, rtol=1e-6, atol=0)
    for name, grad in own_grads.items():
        torch.testing.assert_close(grad, grads[name], rtol=1e-4, atol=1e-6)
    norms = sum(name.endswith("norm.weight") for name in names)
    assert formulas.calls == {"norm": norms, "rope": 2, "mlp": 2}


def test_another_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="fuse=liger: no kernels for llama with this activation; set fuse=compile"):
        liger._replace(make("llama", hidden_act="gelu"), Formulas())


def test_without_the_package_the_extra_is_named(lm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(ValueError, match=r"liger-kernel is not here .* pip install 'llava-lite\[fast\]'"):
        liger.use_liger(load_language_model(str(lm_dir), dtype=torch.float32))


def test_without_a_gpu_it_is_refused(lm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("liger_kernel.transformers")
    package.__dict__["functional"] = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)
    with pytest.raises(ValueError, match="fuse=liger: its kernels run on a GPU, and there is none"):
        liger.use_liger(load_language_model(str(lm_dir), dtype=torch.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("model_type", LANGUAGE_MODELS)
def test_the_kernels_compute_what_the_families_do(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("liger_kernel")
    model = make(model_type).to("cuda", torch.bfloat16)
    keep_rope(model, monkeypatch)
    loss, grads = learn(model)
    liger.use_liger(model)
    own_loss, own_grads = learn(model)
    torch.testing.assert_close(own_loss, loss, rtol=2e-2, atol=0)
    for name, grad in own_grads.items():
        difference = (grad - grads[name]).float().norm() / grads[name].float().norm().clamp(min=1e-6)
        assert difference < 5e-2, name


def test_what_turns_a_part_of_each_head_alone_turns_it_itself() -> None:
    """As Phi-4-mini does; and on other devices Liger's kernel does not run."""
    rotation = liger._Rotation(lambda *_: ("own", ""), lambda *_: ("liger", ""), "cpu")
    q, whole, part = torch.zeros(1, 2, 3, 8), torch.zeros(1, 3, 8), torch.zeros(1, 3, 6)
    assert rotation(q, q, whole, whole)[0] == "liger"
    assert rotation(q, q, part, part)[0] == "own"
    assert rotation(q.to("meta"), q, whole, whole)[0] == "own"
