"""Folders that transformers' own classes write, as llava-hf publishes them: nothing in them is ours."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from tests.families import special_tokens

TILE, PATCH = 32, 8
SQUARE = {"height": TILE, "width": TILE}
_IMAGES = "{% for part in m.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
_TEXTS = "{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
# What llava-hf's 1.5 and 1.6 folders write: nothing closes an answer but a space.
ROLES = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role | upper + ': ' }}{% endif %}"
    + _IMAGES
    + _TEXTS
    + "{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    + _IMAGES
    + _TEXTS
    + "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    + _IMAGES
    + _TEXTS
    + "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
BOS_ROLES = "{{ bos_token }}" + ROLES


def write_foreign(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    *,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    image_processor: Any = None,
    image_token: str = "<image>",
    anyres: bool = False,
    strategy: str = "default",
    num_additional: int = 1,
    original_format: bool = True,
    **config: Any,
) -> LlavaForConditionalGeneration | LlavaNextForConditionalGeneration:
    """Write a tiny random LLaVA: `<image>`, `<pad>` and rows up to a multiple of 64, a tower of four blocks."""
    tokenizer.add_tokens(special_tokens(image_token, "<pad>"))
    tokenizer.pad_token = "<pad>"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text_config = AutoConfig.for_model(
        **{
            "model_type": "llama",
            **sizes,
            "num_key_value_heads": 2,
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **(text or {}),
        }
    )
    tower = {**sizes, "num_hidden_layers": 4, "patch_size": PATCH, "image_size": TILE, "initializer_range": 0.2}
    vision_config = AutoConfig.for_model(**{"model_type": "clip_vision_model", **tower, **(vision or {})})
    settings = {
        "vision_config": vision_config,
        "text_config": text_config,
        "image_token_index": tokenizer.convert_tokens_to_ids(image_token),
        "vision_feature_select_strategy": strategy,
        **config,
    }
    if anyres:
        pinpoints = [[TILE * down, TILE * across] for down, across in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
        model_class, processor_class = LlavaNextForConditionalGeneration, LlavaNextProcessor
        settings["image_grid_pinpoints"] = pinpoints
        image_processor = image_processor or LlavaNextImageProcessorPil(
            size={"shortest_edge": TILE}, crop_size=SQUARE, image_grid_pinpoints=pinpoints
        )
        whole_config: Any = LlavaNextConfig(**settings)
    else:
        model_class, processor_class = LlavaForConditionalGeneration, LlavaProcessor
        image_processor = image_processor or CLIPImageProcessorPil(size={"shortest_edge": TILE}, crop_size=SQUARE)
        whole_config = LlavaConfig(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(whole_config).eval()
        with torch.no_grad():
            for parameter in model.model.multi_modal_projector.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder, save_original_format=original_format)
    processor_class(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=num_additional,
        image_token=image_token,
        chat_template=chat_template,
    ).save_pretrained(folder)
    assert "llava_lite" not in json.loads((folder / "config.json").read_text())
    return model


def padding_image_processor() -> LlavaImageProcessorPil:
    return LlavaImageProcessorPil(size={"shortest_edge": TILE}, crop_size=SQUARE, do_pad=True)
