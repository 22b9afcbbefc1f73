"""Language models as transformers has them, with the few facts about each family that we must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llava_lite.models.pretrained import PartError, load_part, read_part_config


@dataclass(frozen=True)
class LanguageFamily:
    """template: the chat template its visual assistants are trained with unless a recipe says otherwise.
    native: whether transformers' Llava class computes exactly what this model's own class does."""

    template: str
    native: bool


# By exact `model_type`.
LANGUAGE_MODELS: dict[str, LanguageFamily] = {"llama": LanguageFamily(template="vicuna_v1", native=True)}


def find_language_family(model_type: str, where: object) -> LanguageFamily:
    """Return the row of a `model_type`; raise PartError that lists the known ones."""
    if model_type not in LANGUAGE_MODELS:
        raise PartError(f"{where}: unknown language model {model_type!r}; known: {', '.join(LANGUAGE_MODELS)}")
    return LANGUAGE_MODELS[model_type]


def load_language_model(name_or_dir: str, *, dtype: torch.dtype) -> PreTrainedModel:
    """Load a causal language model with its own head. Raises PartError."""
    config = read_part_config(name_or_dir)
    find_language_family(config.model_type, name_or_dir)
    return load_part(AutoModelForCausalLM, name_or_dir, dtype=dtype, may_leave=r".*rotary_emb\.inv_freq$")


def load_tokenizer(name_or_dir: str) -> PreTrainedTokenizerBase:
    """Load a language model's tokenizer. Raises PartError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(name_or_dir)
    except (OSError, ValueError) as error:
        raise PartError(f"{name_or_dir}: no tokenizer here ({str(error).splitlines()[0]})") from None


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
