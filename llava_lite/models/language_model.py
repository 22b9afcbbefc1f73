"""Language models as transformers has them, with the few facts about each family that we must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file

from llava_lite.models import adapter
from llava_lite.models.adapter import Quantize
from llava_lite.models.pretrained import PartError, load_part, read_part_config


@dataclass(frozen=True)
class LanguageFamily:
    """template: the chat template its visual assistants are trained with unless a recipe says otherwise.
    softcaps: whether its own head squashes the logits where its config has a `final_logit_softcapping`."""

    template: str
    softcaps: bool = False


# By exact `model_type`. A row is a promise that tests/models/test_families.py keeps: packed, padded and cached rows,
# saving and loading equal what transformers' own class computes for each document alone.
LANGUAGE_MODELS: dict[str, LanguageFamily] = {
    "llama": LanguageFamily(template="vicuna_v1"),
    "mistral": LanguageFamily(template="mistral_instruct"),
    "qwen2": LanguageFamily(template="qwen_2"),
    "qwen3": LanguageFamily(template="qwen_3"),
    "phi3": LanguageFamily(template="phi_3"),
    "gemma": LanguageFamily(template="gemma"),
    "gemma2": LanguageFamily(template="gemma", softcaps=True),
    "gemma3_text": LanguageFamily(template="gemma", softcaps=True),
}


def find_language_family(model_type: str, where: object) -> LanguageFamily:
    """Return the row of a `model_type`; raise PartError that lists the known ones."""
    if model_type not in LANGUAGE_MODELS:
        raise PartError(f"{where}: unknown language model {model_type!r}; known: {', '.join(LANGUAGE_MODELS)}")
    return LANGUAGE_MODELS[model_type]


def is_plain(config: PretrainedConfig) -> bool:
    """Whether this language model's head is a matrix and no more, which is all that transformers' Llava class has."""
    family = LANGUAGE_MODELS[config.model_type]
    return not family.softcaps or config.final_logit_softcapping is None


def longest_sequence(config: PretrainedConfig) -> int:
    """Return the longest document, in tokens, that a language model of this config takes.

    Positions that stretch once any document of a row is long (`longrope`: Phi-3's long variants) would make a document
    depend on its neighbours: there it is the length up to which they do not stretch.
    """
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope":
        return int(rope["original_max_position_embeddings"])
    return int(config.max_position_embeddings)


def load_language_model(
    name_or_dir: str,
    *,
    dtype: torch.dtype,
    quantize: Quantize | None = None,
    config: PretrainedConfig | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Load a causal language model with its own head. Raises PartError.

    quantize: hold the matrices of its blocks in 4 or 8 bits, which are those of the files whatever `dtype` the rest is.
    config, weights: what `name_or_dir` holds, where it is read already.
    """
    find_language_family((config or read_part_config(name_or_dir)).model_type, name_or_dir)
    model_class: type[PreTrainedModel] | type[AutoModelForCausalLM] = AutoModelForCausalLM
    if config is not None:
        with torch.device("meta"):  # the class that is meant: a class of many cannot take weights from memory
            model_class = type(AutoModelForCausalLM.from_config(config))
    model = load_part(
        model_class,
        name_or_dir,
        dtype="auto" if quantize else dtype,
        may_leave=r".*rotary_emb\.inv_freq$",
        config=config,
        quantization=adapter.quantization(quantize, dtype) if quantize else None,
        weights=weights,
    )
    if quantize:
        adapter.settle(model, dtype)
    return model


def load_tokenizer(name_or_dir: str, config: PretrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """Load a language model's tokenizer. Raises PartError where there is none.

    config: what the language model is, where config.json there says it in a way that transformers does not know.
    """
    try:
        if _is_sentencepiece_alone(name_or_dir):  # `legacy` where nothing says so, as transformers took it before 5
            legacy = get_tokenizer_config(name_or_dir).get("legacy") is not False
            return LlamaTokenizer.from_pretrained(name_or_dir, legacy=legacy)
        return AutoTokenizer.from_pretrained(name_or_dir, config=config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PartError(f"{name_or_dir}: no tokenizer here ({str(error).splitlines()[0]})") from None


def _is_sentencepiece_alone(name_or_dir: str) -> bool:
    """Whether it is Llama's tokenizer and there is only its tokenizer.model.

    For some a model_type transformers 5 takes that for another tokenizer, which cuts words otherwise.
    """
    if get_tokenizer_config(name_or_dir).get("tokenizer_class") != "LlamaTokenizer":
        return False
    quietly = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(name_or_dir, "tokenizer.json", **quietly) is None


def fit_embeddings(model: PreTrainedModel, num_tokens: int) -> None:
    """Grow embeddings and head to `num_tokens` rows if they have fewer; a new row is the mean of the old ones.

    The mean is deterministic, so a part saved without the new rows comes back the same.
    """
    num_rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if num_tokens <= num_rows:
        return
    model.resize_token_embeddings(num_tokens, mean_resizing=False)
    with torch.no_grad():
        for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
            weight = layer.weight
            weight[num_rows:] = weight[:num_rows].float().mean(0).to(weight.dtype)
