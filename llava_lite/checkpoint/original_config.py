"""The original LLaVA's config.json in our words, and ours in its (haotian-liu/LLaVA, LLaVA-VL/LLaVA-NeXT).

It is the config of the language model with fields `mm_*` and `image_*` beside the model's own; what it leaves out has
the value that the original's code takes then. What we compute otherwise, or not at all, is refused with the reason.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from llava_lite.checkpoint.parts import CheckpointError, choose_template, reading
from llava_lite.conversation.template import ChatTemplate
from llava_lite.images.layout import Size, grids, is_anyres
from llava_lite.models.language_model import find_language_family

IM_START, IM_END = "<im_start>", "<im_end>"
SIGLIP_LAYER = -2
"""The original drops a SigLIP tower's last block, and takes what the others give, whatever mm_vision_select_layer."""
TOWER_DIRS = {"clip_vision_model": "clip_vision_tower", "siglip_vision_model": "siglip_vision_tower"}
"""The towers it has; what the folder of one inside a checkpoint is called, since the original tells them by names."""

# Their model_type -> the language model's own; any other is llava_<its own>.
_FAMILIES = {"llava": "llama", "llava_qwen": "qwen2"}
# Of a config only what is about the model itself; older files have the first two in place of `rope_parameters`.
_ROPE = {"rope_theta", "rope_scaling"}
_NOT_THE_MODELS = {"model_type", "architectures", "_name_or_path", "dtype", "transformers_version"}
# What tokens tell of the template that a family's assistants were trained with; else it is the family's.
_TOLD_BY = {
    "llama": {"<|start_header_id|>": "llava_llama_3", "<|im_start|>": "chatml_direct"},
    "mistral": {"<|im_start|>": "chatml_direct"},
}
_PROJECTORS = re.compile(r"linear|mlp[1-9]\d*x_gelu")


def is_original(config: dict[str, Any]) -> bool:
    """Whether a config.json is one of the original's, and not transformers' (which has a config for each part)."""
    return any(key.startswith("mm_") for key in config) and not {"llava_lite", "vision_config"} & config.keys()


def is_projector(kind: str) -> bool:
    """Whether the original has this kind of projector, with weights of the same names."""
    return _PROJECTORS.fullmatch(kind) is not None


def read_text_config(config: dict[str, Any], where: object) -> PretrainedConfig:
    """Return the config of the language model alone. Raises PartError for an unknown family, CheckpointError."""
    name = str(config["model_type"])
    family = _FAMILIES.get(name, name.removeprefix("llava_"))
    find_language_family(family, where)
    config_class = CONFIG_MAPPING[family]
    known = (config_class().to_dict().keys() | _ROPE) - _NOT_THE_MODELS
    with reading(where):
        return config_class(**{key: value for key, value in config.items() if key in known})


def check(config: dict[str, Any], vision: PretrainedConfig, where: object) -> None:
    """Raise CheckpointError with all that a config asks for and we have not."""
    found = []
    if vision.model_type not in TOWER_DIRS:
        found.append(f"vision tower {vision.model_type!r}: the original has CLIP and SigLIP")
    elif vision.model_type != "siglip_vision_model" and type(config.get("mm_vision_select_layer")) is not int:
        found.append("mm_vision_select_layer: missing, or no number")
    if not is_projector(projector_kind(config)):
        found.append(
            f"mm_projector_type {projector_kind(config)!r}: of the original's, linear and mlp<N>x_gelu are read"
        )
    if (feature := config.get("mm_vision_select_feature") or "patch") != "patch":
        found.append(f"mm_vision_select_feature {feature!r}: the patches of one layer are read, without class token")
    if resampler := config.get("mm_resampler_type"):
        found.append(f"mm_resampler_type {resampler!r}: resamplers are not read, the original itself does not run them")
    if config.get("s2"):
        found.append("s2: a picture in several scales is not read")
    found += _check_mode(config, int(vision.image_size))
    if found:
        raise CheckpointError(f"{where}: {'; '.join(found)}")


def projector_kind(config: dict[str, Any]) -> str:
    return str(config.get("mm_projector_type") or "linear")


def feature_layer(config: dict[str, Any], vision: PretrainedConfig) -> int:
    return SIGLIP_LAYER if vision.model_type == "siglip_vision_model" else int(config["mm_vision_select_layer"])


def image_mode(config: dict[str, Any], vision: PretrainedConfig) -> str:
    """Return our mode of a config that `check` let pass: where it says nothing, the tower's own processor is all."""
    ratio = config.get("image_aspect_ratio") or "square"
    if ratio != "square":
        return str(ratio)
    return "resize" if vision.model_type == "siglip_vision_model" else "crop"


def _check_mode(config: dict[str, Any], tile_size: int) -> list[str]:
    ratio = str(config.get("image_aspect_ratio") or "square")
    if not is_anyres(ratio):
        known = "square, pad, anyres and anyres_max_<N> are read"
        return [] if ratio in ("square", "pad") else [f"image_aspect_ratio {ratio!r}: {known}"]
    found = []
    merge = config.get("mm_patch_merge_type") or "flat"
    if merge != "spatial_unpad":
        found.append(f"mm_patch_merge_type {merge!r} with {ratio}: rows without padding, ended by a newline, are read")
    if _read_pinpoints(config.get("image_grid_pinpoints"), tile_size) != pinpoints(ratio, tile_size):
        grid = "LLaVA-1.6's five canvases" if ratio == "anyres" else "those of (1x1),...,(6x6)"
        found.append(f"image_grid_pinpoints: with {ratio}, {grid} for tiles of {tile_size} pixels are read")
    return found


def pinpoints(mode: str, tile_size: int) -> list[list[int]]:
    """List the canvases, width and height in pixels, of an anyres mode."""
    return [[across * tile_size, down * tile_size] for across, down in grids(mode)]


def _read_pinpoints(value: object, tile_size: int) -> object:
    """Read canvases in any of the original's spellings: a list, a list in a string, or `(1x1),...,(6x6)` in tiles."""
    if not isinstance(value, str):
        return value
    corners: list[Size] = [(int(across), int(down)) for across, down in re.findall(r"\((\d+)x(\d+)\)", value)]
    if corners:
        (left, top), (right, bottom) = corners[0], corners[-1]
        columns, rows = range(left, right + 1), range(top, bottom + 1)
        return [[across * tile_size, down * tile_size] for across in columns for down in rows]
    try:
        return json.loads(value.replace("(", "[").replace(")", "]"))
    except json.JSONDecodeError:
        return None


def find_chat_template(
    config: dict[str, Any], family: str, tokenizer: PreTrainedTokenizerBase, which: str | dict[str, object] | None
) -> ChatTemplate:
    """Return the template `which`; by default the one that the tokenizer's tokens tell, or the family's.

    An original config.json does not say it. Raises ConversationError, or CheckpointError for tokens that are not there.
    """
    tokens = tokenizer.get_added_vocab()
    if which is None:
        told = (name for token, name in _TOLD_BY.get(family, {}).items() if token in tokens)
        which = next(told, find_language_family(family, tokenizer.name_or_path).template)
    template = choose_template(which, tokenizer)
    if not config.get("mm_use_im_start_end") or IM_START in template.image:
        return template
    if not {IM_START, IM_END} <= tokens.keys():
        raise CheckpointError(
            f"{tokenizer.name_or_path}: mm_use_im_start_end, but the tokenizer has no {IM_START} and {IM_END}; only "
            "whole checkpoints, which have their embeddings, are read"
        )
    return replace(template, image=template.image.replace("{}", f"{IM_START}{{}}{IM_END}"))
