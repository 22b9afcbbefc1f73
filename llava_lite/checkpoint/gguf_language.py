"""A language model in llama.cpp's words: its architecture, its tensors' names and arrangement, its numbers.

The authority is llama.cpp itself: `conversion/` for what it wants, `src/models/` for what it then computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.models.language_model import longest_sequence

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True)
class GgufFamily:
    """What llama.cpp does with a family.

    arch:           its name there
    activation:     the one of its MLPs; it knows no other
    pairs_rotate:   rotates neighbours, where transformers rotates halves: rows of queries and keys change places
    norm_plus_one:  transformers stores how far its norms' weights are from one
    has_windows:    lets layers see a window only; else a model with windows is exact within the first one
    scales_patches: multiplies not only words by sqrt(D) but also what is put beside them
    odd_depth:      of so many layers it scales queries by the square root of D / heads, not of the head size
    """

    arch: str
    activation: str = "silu"
    pairs_rotate: bool = False
    norm_plus_one: bool = False
    has_windows: bool = False
    scales_patches: bool = False
    odd_depth: int | None = None


_TANH = "gelu_pytorch_tanh"
# By exact `model_type`, as models.language_model.LANGUAGE_MODELS.
_FAMILIES: dict[str, GgufFamily] = {
    "llama": GgufFamily("llama", pairs_rotate=True),
    "mistral": GgufFamily("llama", pairs_rotate=True),
    "qwen2": GgufFamily("qwen2"),
    "qwen3": GgufFamily("qwen3"),
    "phi3": GgufFamily("phi3"),
    "gemma": GgufFamily("gemma", _TANH, norm_plus_one=True, scales_patches=True),
    "gemma2": GgufFamily("gemma2", _TANH, norm_plus_one=True, has_windows=True, scales_patches=True, odd_depth=46),
    "gemma3_text": GgufFamily("gemma3", _TANH, norm_plus_one=True, has_windows=True, odd_depth=62),
}


def find_gguf_family(config: PretrainedConfig) -> GgufFamily:
    """Return the row of a language model; raise CheckpointError for one that llama.cpp computes differently."""
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise CheckpointError(f"GGUF: no row for {config.model_type!r}; known: {', '.join(_FAMILIES)}")
    if problems := _problems(family, config):
        reasons = "; ".join(problems)
        raise CheckpointError(f"GGUF: llama.cpp cannot run this {config.model_type} as it is: {reasons}")
    return family


def _problems(family: GgufFamily, config: PretrainedConfig) -> list[str]:
    problems = []
    settings = config.to_dict()
    activation = settings.get("hidden_activation") or settings.get("hidden_act")
    if activation != family.activation:
        problems.append(f"its activation is {activation}, there it is always {family.activation}")
    if family.arch.startswith("gemma") and not config.tie_word_embeddings:
        problems.append("its head is a matrix of its own, there it is always the embeddings")
    if family.arch == "gemma2" and None in (config.attn_logit_softcapping, config.final_logit_softcapping):
        problems.append("it does not soft-cap its logits, there they always are")
    if settings.get("use_bidirectional_attention"):
        problems.append("it sees what comes later, there no token does")
    return problems + _rope_problems(family, config)


def _rope_problems(family: GgufFamily, config: PretrainedConfig) -> list[str]:
    rope = _rope(config)
    kind = rope["rope_type"]
    known = {"default", "linear", "yarn", {"llama": "llama3", "phi3": "longrope"}.get(family.arch)}
    if kind not in known:
        return [f"rope_type {kind!r} is not known there"]
    if kind == "yarn" and (own := sorted({"attention_factor", "mscale", "mscale_all_dim", "truncate"} & set(rope))):
        return [f"its yarn sets {', '.join(own)}, there they follow from the factor"]
    local = config.rope_parameters.get("sliding_attention", {})
    if local.get("rope_type", "default") != "default":
        return ["the positions of its windows are stretched, there they never are"]
    return []


def _rope(config: PretrainedConfig) -> dict[str, Any]:
    """Return how positions are told apart, of full layers where windows have another way."""
    rope: dict[str, Any] = config.rope_parameters
    return rope.get("full_attention", rope)


def language_tensors(language_model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return all weights under llama.cpp's names, arranged as it reads them. Raises CheckpointError."""
    import gguf

    config = language_model.config
    family = find_gguf_family(config)
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family.arch]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tensors = {}
    for name, weight in language_model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise CheckpointError(f"GGUF: llama.cpp has no place for the weight {name}")
        tensors[new_name] = _arrange(weight.float(), name, family, config)
    return tensors | _rope_tensors(config)


def _arrange(weight: torch.Tensor, name: str, family: GgufFamily, config: PretrainedConfig) -> torch.Tensor:
    """Rearrange one weight as llama.cpp wants it."""
    kind = name.rpartition(".")[0].rpartition(".")[2]  # "q_proj" of "model.layers.0.self_attn.q_proj.weight"
    if family.pairs_rotate and kind in ("q_proj", "k_proj"):
        num_heads = config.num_attention_heads if kind == "q_proj" else config.num_key_value_heads
        halves = weight.unflatten(0, (num_heads, 2, -1))
        weight = halves.transpose(1, 2).flatten(0, 2).contiguous()
    if family.norm_plus_one and kind.endswith("norm"):
        weight = weight + 1
    if kind == {"gemma2": "q_proj", "gemma3": "q_norm"}.get(family.arch):
        weight = weight * _query_factor(family, config)
    return weight


def _query_factor(family: GgufFamily, config: PretrainedConfig) -> float:
    """Return what queries are multiplied by so that llama.cpp's own scale gives Gemma's `query_pre_attn_scalar`."""
    theirs = config.head_dim
    if config.num_hidden_layers == family.odd_depth:
        theirs = config.hidden_size // config.num_attention_heads
    return math.sqrt(theirs / config.query_pre_attn_scalar)


def _rope_tensors(config: PretrainedConfig) -> dict[str, torch.Tensor]:
    """Return the factors that single frequencies are divided by, where positions are stretched so."""
    rope = _rope(config)
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{length}.weight": torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)
            for length in ("long", "short")
        }
    if rope["rope_type"] != "llama3":
        return {}
    size = _rotated(config)
    plain = rope["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return {"rope_freqs.weight": plain / stretched}


def _head_size(config: PretrainedConfig) -> int:
    return int(config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads)


def _rotated(config: PretrainedConfig) -> int:
    """Return how many numbers of a head rotate."""
    return int(_rope(config).get("partial_rotary_factor", 1.0) * _head_size(config))


def describe_language(writer: GGUFWriter, config: PretrainedConfig) -> None:
    """Write the numbers of a language model."""
    family = find_gguf_family(config)
    head_size = _head_size(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _describe_positions(writer, config, family)
    settings = config.to_dict()
    if settings.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if settings.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _describe_positions(writer: GGUFWriter, config: PretrainedConfig, family: GgufFamily) -> None:
    """Write how far the model sees and how it tells positions apart."""
    import gguf

    rope = _rope(config)
    longest = longest_sequence(config)
    sliding = _sliding_layers(config)
    if family.has_windows and any(sliding):
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(sliding)
    elif any(sliding):
        longest = min(longest, config.sliding_window)
    writer.add_context_length(longest)
    writer.add_rope_dimension_count(_rotated(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if local := config.rope_parameters.get("sliding_attention"):
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)
    if rope["rope_type"] == "longrope":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(ROPE_INIT_FUNCTIONS["longrope"](config, "cpu")[1])


def _sliding_layers(config: PretrainedConfig) -> list[bool]:
    """Return for each layer whether it sees a window only."""
    settings = config.to_dict()
    if types := settings.get("layer_types"):
        return [kind == "sliding_attention" for kind in types]
    return [settings.get("sliding_window") is not None] * config.num_hidden_layers
