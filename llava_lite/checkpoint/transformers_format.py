"""Whole models as transformers' own folders: its Llava class, for anyres its LlavaNext, and `AutoProcessor` open them.

Only what these classes compute exactly is written so; `why_not_native` names what keeps a model from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from PIL import Image as PilImage
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llava_lite.checkpoint.chat_template import chat_template, is_legacy, with_chat_template
from llava_lite.checkpoint.names import published_name
from llava_lite.images.layout import is_anyres
from llava_lite.models.language_model import is_plain
from llava_lite.models.llava import Llava
from llava_lite.models.vision_tower import TowerFamily
from llava_lite.processor import Processor


def why_not_native(model: Llava, processor: Processor) -> str:
    """Return what transformers' Llava or LlavaNext class cannot express of a model with a tower; "" where nothing.

    Where nothing is named, the class computes what this model computes, and knows its weights by name.
    """
    assert model.vision_tower is not None and model.projector is not None and processor.transform is not None
    vision_config, transform = model.vision_tower.model.config, processor.transform
    assert is_anyres(transform.mode) == (model.projector.image_newline is not None)  # see `parts.fit_newline`
    if model.projector.kind != "mlp2x_gelu":
        return f"the projector {model.projector.kind} (the class has mlp2x_gelu alone)"
    if not is_plain(model.language_model.config):
        return f"the soft-capping of {model.language_model.config.model_type}'s head (the class's head is a matrix)"
    if vision_config.model_type == "dinov2" and vision_config.use_swiglu_ffn:  # two of ours are one matrix there
        return "the SwiGLU layers of DINOv2 (published folders have other matrices)"
    if not is_anyres(transform.mode):
        return ""
    if transform.mode != "anyres":
        return f"the image mode {transform.mode} (LlavaNext thins no mosaic; LlavaOnevision is another model)"
    if transform.size != vision_config.image_size:
        return (
            f"the image mode anyres on tiles of {transform.size} pixels of a tower whose positions are made for "
            f"{vision_config.image_size} (LlavaNext cuts tiles of this size)"
        )
    if transform.tower.resample != PilImage.Resampling.BICUBIC:
        return "the image mode anyres of a tower whose pictures are not resized bicubically (LlavaNext has one filter)"
    return ""


def native_names(model: Llava) -> dict[str, str]:
    """Our names of a model's weights -> the published ones."""
    assert model.vision_tower is not None
    tower_type = model.vision_tower.model.config.model_type
    return {name: published_name(name, tower_type) for name in model.state_dict()}


def differences(processor: Processor) -> list[str]:
    """Say where transformers, reading such a folder, does otherwise than this model; see docs/interchange.md."""
    told = ["people's words that spell a special token are text here and that token there"]
    if processor.transform is not None:
        told.append("with torchvision installed, pixels are off by up to 2/255; AutoProcessor takes backend='pil'")
    if processor.end_text:
        told.append(f"answers end at {processor.end_text!r}: pass tokenizer=... to generate, for its stop_strings")
    if processor.transform is not None and is_anyres(processor.transform.mode):
        told += [
            "of several pictures in a conversation each is cut into tiles there, and is one padded tile here",
            "about 1 in 70,000 sizes of pictures gets two rows of patches more there (88 x 55 on tiles of 336)",
            "readers that take image_grid_pinpoints as (width, height) transpose the grid of pictures within one tile",
        ]
    return told


def native_config(model: Llava, processor: Processor) -> LlavaConfig | LlavaNextConfig:
    """Describe a model as transformers does.

    The tower has no layers above the selected one, hence layer -1: for transformers this is the last block's output,
    before any final norm. `default` drops one class token, `full` drops none.
    """
    assert model.vision_tower is not None and processor.transform is not None
    text_config = model.language_model.config
    settings: dict[str, Any] = {
        "vision_config": model.vision_tower.model.config.to_dict(),
        "text_config": text_config.to_dict(),
        "image_token_index": model.image_token_id,
        "image_seq_length": processor.num_patches,
        "vision_feature_select_strategy": select_strategy(model.vision_tower.family),
        "vision_feature_layer": -1,
        "tie_word_embeddings": bool(text_config.tie_word_embeddings),
        "dtype": model.language_model.dtype,
    }
    if not is_anyres(processor.transform.mode):
        return LlavaConfig(**settings, architectures=["LlavaForConditionalGeneration"])
    return LlavaNextConfig(
        **settings,
        image_grid_pinpoints=processor.transform.pinpoints,
        architectures=["LlavaNextForConditionalGeneration"],
    )


def select_strategy(family: TowerFamily) -> Literal["default", "full"]:
    """Return what transformers calls dropping as many class tokens as these towers have."""
    return "default" if family.num_prefix_tokens else "full"


def save_native_processor(folder: Path, model: Llava, processor: Processor) -> None:
    """Write tokenizer, image processor and chat template as `AutoProcessor` reads them."""
    assert model.vision_tower is not None and processor.transform is not None
    family = model.vision_tower.family
    processor_class = LlavaNextProcessor if is_anyres(processor.transform.mode) else LlavaProcessor
    processor_class(
        image_processor=processor.transform.image_processor,
        tokenizer=_without_bos(processor),
        patch_size=model.vision_tower.model.config.patch_size,
        vision_feature_select_strategy=select_strategy(family),
        num_additional_image_tokens=family.num_prefix_tokens,
        image_token=processor.image_token,
        chat_template=chat_template(processor),
    ).save_pretrained(folder)
    processor.transform.image_processor.save_pretrained(folder)  # what older readers look for
    save_tokenizer(folder, processor)


def save_tokenizer(folder: Path, processor: Processor) -> None:
    """Write the tokenizer so that it adds no BOS: the chat template, and our processor, write it themselves."""
    _without_bos(processor).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"add_bos_token": False, "legacy": is_legacy(processor)}  # transformers drops both
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_bos(processor: Processor) -> PreTrainedTokenizerBase:
    tokenizer = with_chat_template(processor)
    if processor.bos:
        tokenizer.add_bos_token = False
    return tokenizer


def generation_config(language_model: PreTrainedModel, processor: Processor) -> GenerationConfig:
    """Greedy, ending at the template's end mark, never an image token."""
    tokenizer = processor.tokenizer
    ends = {int(tokenizer.eos_token_id)} | ({processor.end_token_id} - {None})
    return GenerationConfig(
        do_sample=False,
        eos_token_id=sorted(ends),
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[processor.image_token_id] if processor.image_token_id >= 0 else None,
        stop_strings=[processor.end_text] if processor.end_text else None,
    )
