"""LoRA and QLoRA: low-rank matrices beside a language model's own, which may then be held in 4 or 8 bits.

PEFT is given the language model alone, and of it the linear layers inside its blocks: vision tower, projector and head
cannot be hit. The layers are put in their places without a PeftModel around them, so that the language model stays the
transformers model that all else knows. The only importer of peft, which it imports late: it takes a second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from llava_lite.models.pretrained import complain_of_weights, read_pickled

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
Quantize = Literal["4bit", "8bit"]

_NAME = "default"
# PEFT's names: in memory `...q_proj.lora_A.default.weight`, in files without the name and below its own wrappers.
_IN_FILES = "base_model.model."
# What PEFT's adapter_config.json may ask for beyond alpha / rank * B @ A.
_MORE = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "bias", "fan_in_fan_out")
W = TypeVar("W", bound=torch.Tensor)


class AdapterError(ValueError):
    """An adapter that cannot be made, read or merged."""


@dataclass(frozen=True)
class Lora:
    """What is added to a matrix: alpha / rank * B @ A, after dropout of its input (Hu et al., 2021).

    targets: the last names of the linear layers it is added to; None: all in the language model's blocks
    """

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise AdapterError(f"lora: rank and alpha are 1 or more, dropout is from 0 to below 1; got {self}")


def attach(language_model: PreTrainedModel, lora: Lora) -> Lora:
    """Put adapters that add nothing yet beside the linear layers, in place, in fp32 whatever the others are in.

    A is drawn from torch's current seed, B is zero. Returns `lora` with its targets named.
    Raises AdapterError for a target that is not there.
    """
    from peft import inject_adapter_in_model

    known = linear_layers(language_model)
    if unknown := sorted(set(lora.targets or ()) - set(known)):
        raise AdapterError(f"lora.targets: no linear layer {', '.join(unknown)}; there are: {', '.join(known)}")
    lora = replace(lora, targets=tuple(sorted(set(lora.targets))) if lora.targets else known)
    inject_adapter_in_model(_peft_config(lora), language_model, adapter_name=_NAME)
    for weight in _weights(language_model).values():
        weight.data = weight.data.float()
    language_model.train(language_model.training)  # the new layers too
    return lora


def linear_layers(language_model: Any) -> tuple[str, ...]:
    """Return the last names of the linear layers in a language model's blocks: q_proj, ..., down_proj; qkv_proj, ..."""
    blocks = language_model.get_decoder().layers
    linear = (name for name, module in blocks.named_modules() if isinstance(module, nn.Linear))
    return tuple(sorted({name.rpartition(".")[2] for name in linear}))


def train_adapter(language_model: PreTrainedModel, learns: bool) -> None:
    """Let the adapters learn, or freeze them; all else PEFT has frozen when they were attached."""
    for weight in _weights(language_model).values():
        weight.requires_grad_(learns)


def write_adapter(folder: Path, weights: Mapping[str, torch.Tensor], lora: Lora, *, base: str) -> None:
    """Write what `peft.PeftModel.from_pretrained(language model, folder)` reads.

    weights: the language model's state dict; base: where the language model without the adapter is
    """
    own = {name: weight.detach().cpu().contiguous() for name, weight in _in_files(weights).items()}
    save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
    config = _peft_config(lora, base_model_name_or_path=base, inference_mode=True).to_dict()
    config["target_modules"] = sorted(config["target_modules"])  # a set, in another order each time
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_adapter(folder: Path, language_model: PreTrainedModel) -> Lora:
    """Attach the adapter that `write_adapter` or PEFT wrote, beside the base as it is.

    Raises AdapterError for a broken file or more than plain LoRA, PartError for missing or unexpected weights.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        saved = None if _is_pickled(folder) else load_file(folder / WEIGHTS)
        targets = tuple(config["target_modules"])
        lora = Lora(rank=config["r"], alpha=config["lora_alpha"], dropout=config["lora_dropout"], targets=targets)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder}: {CONFIG} or {WEIGHTS} is missing or damaged ({error})") from None
    saved = read_pickled(folder / PICKLED) if saved is None else saved
    if more := sorted(key for key in _MORE if config.get(key) not in (None, False, {}, [], "none")):
        raise AdapterError(f"{folder / CONFIG}: sets {', '.join(more)}; only plain LoRA is read; merge it with PEFT")
    if config.get("peft_type", "LORA") != "LORA":
        raise AdapterError(f"{folder / CONFIG}: peft_type {config['peft_type']!r}; only LORA is read")
    ranks = {len(weight) for name, weight in saved.items() if name.endswith("lora_A.weight")}
    if ranks and lora.rank not in ranks:  # before so much memory is taken
        raise AdapterError(f"{folder / CONFIG}: r is {lora.rank}, that of the weights {sorted(ranks)}")
    lora = attach(language_model, lora)
    own = _weights(language_model)
    complain_of_weights(folder, own.keys() - saved.keys(), saved.keys() - own.keys())
    for name, weight in own.items():
        if weight.shape != saved[name].shape:
            sizes = f"{list(saved[name].shape)}, not {list(weight.shape)}"
            raise AdapterError(f"{folder / WEIGHTS}: {name} is {sizes}; the files do not belong to one adapter")
        weight.data.copy_(saved[name])
    return lora


def _is_pickled(folder: Path) -> bool:
    return not (folder / WEIGHTS).is_file() and (folder / PICKLED).is_file()


@torch.no_grad()
def merge(language_model: Any) -> None:
    """Add the adapters to the matrices they stand beside, in place; what is quantised is dequantised, all of it.

    Sums are made in fp32 and kept in the dtype of the language model.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    quantized = any(_is_quantized(module) for module in language_model.modules())
    for name, layer in list(language_model.named_modules()):
        adapted = isinstance(layer, LoraLayer)
        if not adapted and (not _is_quantized(layer) or name.endswith(".base_layer")):
            continue
        base = layer.get_base_layer() if adapted else layer
        weight = dequantize_module_weight(base).float()
        if adapted:
            weight = weight + layer.get_delta_weight(_NAME).float()
        plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        plain.weight = nn.Parameter(weight.to(language_model.dtype))
        plain.bias = base.bias
        language_model.set_submodule(name, plain)
    del language_model.peft_config
    if quantized:
        language_model.hf_quantizer.remove_quantization_config(language_model)


def quantization(quantize: Quantize, dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation (QLoRA, Dettmers et al., 2023), or LLM.int8; computed in `dtype`, not the head."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says of each int8 product that it rounds its input
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head"],
    )


def settle(language_model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give what is not quantised (embeddings, norms, head) a dtype; transformers refuses to, of a quantised model.

    On a CPU with bf16 units, bitsandbytes packs weights of 4 bits anew when they are first used: their scales lose
    digits, small matrices fail, and they cannot be dequantised any more. That is turned off here.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in language_model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        if not _is_quantized(module):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(dtype)


def _is_quantized(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and not module.weight.dtype.is_floating_point


def _weights(language_model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The adapters' weights, by their names in files."""
    return _in_files(dict(language_model.named_parameters()))


def _in_files(weights: Mapping[str, W]) -> dict[str, W]:
    """Pick the adapters' weights out of a language model's, by their names in files."""
    own = {name: weight for name, weight in weights.items() if ".lora_A." in name or ".lora_B." in name}
    return {_IN_FILES + name.replace(f".{_NAME}.", "."): weight for name, weight in own.items()}


def _peft_config(lora: Lora, **more: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets or ()),
        task_type="CAUSAL_LM",
        **more,
    )
