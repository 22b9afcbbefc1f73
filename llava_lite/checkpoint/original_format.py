"""A whole model in the layout of the original LLaVA repository, whose loader reads it. `original_layouts` reads it.

    config.json, model*.safetensors       language model, projector and vision tower, under the original's names
    tokenizer.model or tokenizer.json     without the `<image>` token, which the original does not have
    clip_vision_tower/                    the tower as a folder of its own: the original opens a tower by its name

The original takes the tower, and what its pictures are, from the path or hub id in `mm_vision_tower`. Our tower may be
trained, and ends at the layer that is used, so it is no published one: what is written there is the sub-folder, as an
absolute path, and -1 as `mm_vision_select_layer`. Whoever moves the folder changes that path in config.json (we find
the sub-folder all the same). Whoever knows that the tower is a published one, unchanged, may put its hub id and its own
layer (LLaVA-1.5: -2) in place of both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from llava_lite.checkpoint.original_config import IM_START, SIGLIP_LAYER, TOWER_DIRS, is_projector, pinpoints
from llava_lite.checkpoint.original_layouts import NEWLINE, PROJECTOR, TOWER
from llava_lite.checkpoint.original_tokenizer import drops_image_token, write_original_tokenizer
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.checkpoint.weights import write_weights
from llava_lite.images.layout import is_anyres
from llava_lite.images.transform import TowerPixels
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

# By the language model's model_type, the original's model_type and class: those which hold weights under these names.
_CLASSES = {
    "llama": ("llava_llama", "LlavaLlamaForCausalLM"),
    "mistral": ("llava_mistral", "LlavaMistralForCausalLM"),
    "qwen2": ("llava_qwen", "LlavaQwenForCausalLM"),
}
# What the original makes of a picture for any SigLIP tower, whatever its folder says.
_SIGLIP_PIXELS = TowerPixels(384, 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resample=3, rescale_factor=1 / 255)
_SIGLIP_PATCHES = 729
_LAST = "encoder.layers.{}."


def write_original(folder: Path, model: Llava, processor: Processor, *, stands_at: Path | None = None) -> None:
    """Write a whole model into `folder`, config.json last.

    stands_at: where the folder will stand, if it is moved there once it is written. Rows of the vocabulary that the
    language model had stay, but for the one of the image token where it is the last of both.
    Raises CheckpointError that says what the original cannot express.
    """
    _check(model, processor)
    folder.mkdir(parents=True, exist_ok=True)
    assert model.vision_tower is not None and processor.transform is not None
    weights = _weights(model, processor)
    write_weights(folder, weights)
    write_original_tokenizer(folder, processor, model.language_model.config)
    tower_dir = TOWER_DIRS[model.vision_tower.model.config.model_type]
    _write_tower(folder / tower_dir, model, processor)
    tokenizer = processor.tokenizer
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", tokens)
    num_rows = len(weights["model.embed_tokens.weight"])
    mm_vision_tower = ((stands_at or folder) / tower_dir).absolute()
    _write_json(folder / "config.json", _config(model, processor, num_rows, str(mm_vision_tower)))


def differences(processor: Processor) -> list[str]:
    """Say what the original needs to be told, or does otherwise than this model."""
    return [
        "it opens the vision tower at the path in mm_vision_tower: change that in config.json if you move the folder",
        f"it does not know the chat template: give it --conv-mode, here what is called {processor.template.name!r}",
        "people's words that spell a special token are text here and that token there",
    ]


def _check(model: Llava, processor: Processor) -> None:
    if model.vision_tower is None or model.projector is None or processor.transform is None:
        raise CheckpointError("original: a language model alone is not a LLaVA, and is transformers' already")
    if model.lora is not None or model.quantize is not None:
        raise CheckpointError("original: an adapter; make it whole first, with llava-lite merge")
    text, vision, mode = model.language_model.config, model.vision_tower.model.config, processor.transform.mode
    found = []
    if text.model_type not in _CLASSES:
        found.append(f"it has no class for a {text.model_type}, only for {', '.join(_CLASSES)}")
    elif getattr(text, "head_dim", None) not in (None, text.hidden_size // text.num_attention_heads):
        found.append("its heads are hidden_size / num_attention_heads wide, these are not")
    if processor.whole:
        found.append("it puts a space before each stretch of text between images, this model before the first alone")
    if not is_projector(model.projector.kind):
        found.append(f"it has no projector {model.projector.kind!r}, only linear and mlp<N>x_gelu")
    if vision.model_type not in TOWER_DIRS:
        found.append(f"it has no vision tower {vision.model_type!r}, only CLIP and SigLIP")
    elif vision.model_type == "siglip_vision_model":
        if (processor.transform.tower, processor.num_patches) != (_SIGLIP_PIXELS, _SIGLIP_PATCHES):
            found.append(
                f"it knows SigLIP towers of 384 pixels, {_SIGLIP_PATCHES} patches, mean and deviation 0.5 alone"
            )
        if mode == "crop":
            found.append("it stretches pictures for a SigLIP tower, and does not crop them")
    elif mode == "resize":
        found.append("it crops or pads pictures for a CLIP tower, and does not stretch them (mode resize)")
    if found:
        raise CheckpointError(f"the original LLaVA cannot express this model: {'; '.join(found)}")


def _weights(model: Llava, processor: Processor) -> dict[str, torch.Tensor]:
    """Return all weights by the original's names, without what it does not have."""
    assert model.projector is not None
    tied = bool(model.language_model.config.tie_word_embeddings)
    weights: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        part, _, rest = name.partition(".")
        if name == "projector.image_newline":
            weights[NEWLINE] = weight
        elif part == "projector":
            weights[PROJECTOR + (rest.removeprefix("0.") if model.projector.kind == "linear" else rest)] = weight
        elif part == "vision_tower":
            weights[TOWER + rest.removeprefix("model.")] = weight
        elif not (tied and rest == "lm_head.weight"):
            weights[rest] = weight
    if drops_image_token(processor):
        for name in {"model.embed_tokens.weight", "lm_head.weight"} & weights.keys():
            if len(weights[name]) == len(processor.tokenizer):  # else it is one of the rows that were to spare
                weights[name] = weights[name][:-1]
    return weights


def _config(model: Llava, processor: Processor, num_rows: int, mm_vision_tower: str) -> dict[str, Any]:
    assert model.vision_tower is not None and model.projector is not None and processor.transform is not None
    text, mode = model.language_model.config, processor.transform.mode
    model_type, class_name = _CLASSES[text.model_type]
    siglip = model.vision_tower.model.config.model_type == "siglip_vision_model"
    config = {
        **_text_fields(text),
        "architectures": [class_name],
        "model_type": model_type,
        "torch_dtype": str(model.language_model.dtype).removeprefix("torch."),
        "vocab_size": num_rows,
        "mm_vision_tower": mm_vision_tower,
        "mm_vision_select_layer": SIGLIP_LAYER if siglip else -1,
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": model.vision_tower.hidden_size,
        "mm_projector_type": model.projector.kind,
        "mm_resampler_type": None,
        "mm_use_im_start_end": IM_START in processor.template.image,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_aspect_ratio": "square" if mode in ("crop", "resize") else mode,
        "tokenizer_model_max_length": processor.max_positions,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": False,
    }
    if is_anyres(mode):
        config |= {
            "mm_patch_merge_type": "spatial_unpad",
            "image_grid_pinpoints": pinpoints(mode, processor.transform.size),
        }
    return config


def _text_fields(text: PretrainedConfig) -> dict[str, Any]:
    """Return what a language model's config says of itself, positions as transformers 4 spells them."""
    fields = {key: value for key, value in text.to_dict().items() if key not in PretrainedConfig().to_dict()}
    fields.pop("llava_lite", None)  # what a folder of ours says of itself, from which the language model came
    rope = dict(fields.pop("rope_parameters"))
    fields["rope_theta"] = rope.pop("rope_theta")
    kind = rope.get("rope_type", "default")
    fields["rope_scaling"] = None if kind == "default" else {**rope, "type": kind}
    return fields


def _write_tower(folder: Path, model: Llava, processor: Processor) -> None:
    """Write the tower as transformers 4 names it; a SigLIP one with one more block, which the original drops."""
    assert model.vision_tower is not None and processor.transform is not None
    config, transform = model.vision_tower.model.config.to_dict(), processor.transform
    weights = dict(model.vision_tower.model.state_dict())
    if config["model_type"] == "siglip_vision_model":
        last, more = (_LAST.format(config["num_hidden_layers"] + i) for i in (-1, 0))
        weights |= {name.replace(last, more): w.clone() for name, w in weights.items() if name.startswith(last)}
        config["num_hidden_layers"] += 1
    folder.mkdir()
    write_weights(folder, {f"vision_model.{name}": weight for name, weight in weights.items()})
    (transform if transform.mode == "crop" else transform.with_short_side(transform.size)).save_tower(folder)
    _write_json(folder / "config.json", config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
