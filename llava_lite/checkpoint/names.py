"""Names of weights: ours, and those of published folders, which transformers' Llava classes, vLLM and SGLang read."""

from __future__ import annotations

import re

Patterns = tuple[tuple[str, str], ...]

# All patterns, in this order. Ours -> the published ones.
_PUBLISHED: Patterns = (
    (r"^projector\.0\.", "multi_modal_projector.linear_1."),
    (r"^projector\.2\.", "multi_modal_projector.linear_2."),
    (r"^projector\.image_newline$", "image_newline"),
)
_VISION_MODEL: Patterns = ((r"^vision_tower\.model\.", "vision_tower.vision_model."),)
_DINOV2: Patterns = (
    (r"^vision_tower\.model\.", "vision_tower."),
    (r"^(vision_tower\..*)\.attention\.q_proj\.", r"\1.attention.attention.query."),
    (r"^(vision_tower\..*)\.attention\.k_proj\.", r"\1.attention.attention.key."),
    (r"^(vision_tower\..*)\.attention\.v_proj\.", r"\1.attention.attention.value."),
    (r"^(vision_tower\..*)\.attention\.o_proj\.", r"\1.attention.output.dense."),
)
_TOWERS = {"clip_vision_model": _VISION_MODEL, "siglip_vision_model": _VISION_MODEL, "dinov2": _DINOV2}

# What transformers writes and reads -> ours: published long ago (language_model.model, vision_tower.vision_model),
# written today (vision_tower without it), or as the classes name them in memory (model.language_model, lm_head).
_OURS: Patterns = (
    (r"^model\.(?=(language_model|vision_tower|multi_modal_projector)\.|image_newline$)", ""),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^language_model\.(?!model\.|lm_head\.)", "language_model.model."),
    (r"^multi_modal_projector\.linear_1\.", "projector.0."),
    (r"^multi_modal_projector\.linear_2\.", "projector.2."),
    (r"^image_newline$", "projector.image_newline"),
    (r"^vision_tower\.(?!model\.)(vision_model\.)?", "vision_tower.model."),
)
_OUR_DINOV2: Patterns = (
    (r"^(vision_tower\..*)\.attention\.attention\.query\.", r"\1.attention.q_proj."),
    (r"^(vision_tower\..*)\.attention\.attention\.key\.", r"\1.attention.k_proj."),
    (r"^(vision_tower\..*)\.attention\.attention\.value\.", r"\1.attention.v_proj."),
    (r"^(vision_tower\..*)\.attention\.output\.dense\.", r"\1.attention.o_proj."),
)


def published_name(name: str, tower_type: str) -> str:
    """Return what a weight of ours is called in a published folder; tower_type: the `model_type` of its tower."""
    return _rename(name, _PUBLISHED + _TOWERS[tower_type])


def our_name(name: str, tower_type: str) -> str:
    """Return what we call a weight of a folder, in any of the layouts that transformers reads; ours stay."""
    return _rename(name, _OURS + (_OUR_DINOV2 if tower_type == "dinov2" else ()))


def _rename(name: str, patterns: Patterns) -> str:
    for pattern, instead in patterns:
        name = re.sub(pattern, instead, name)
    return name
