"""What a model will be, from configurations alone: the modules themselves, on the meta device, which stores nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from llava_lite.budget.hardware import BudgetError
from llava_lite.images.layout import Layout, is_anyres, lay_out
from llava_lite.models.adapter import Lora, Quantize
from llava_lite.models.language_model import find_language_family
from llava_lite.models.llava import Llava, Part
from llava_lite.models.pretrained import PartError, read_part_config
from llava_lite.models.projector import make_projector
from llava_lite.models.vision_tower import TOWERS, VisionTower, count_patches, cut_config, read_tower_config

PICTURE = (640, 480)
"""What anyres is assumed to see."""


def _clip_large(image_size: int) -> dict[str, Any]:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return {"model_type": "clip_vision_model", **sizes, "image_size": image_size, "patch_size": 14}


def _siglip(*sizes: int, image_size: int, patch_size: int) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    row = dict(zip(names, sizes, strict=True))
    return {"model_type": "siglip_vision_model", **row, "image_size": image_size, "patch_size": patch_size}


def _language(model_type: str, *sizes: int, vocab_size: int = 32000, **more: Any) -> dict[str, Any]:
    names = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings"),
    )
    row = dict(zip(names, sizes, strict=True))
    return {"model_type": model_type, "vocab_size": vocab_size, "tie_word_embeddings": False, **row, **more}


_7B = _language("llama", 4096, 11008, 32, 32, 32, 4096)
_13B = _language("llama", 5120, 13824, 40, 40, 40, 4096)
_QWEN3 = {"vocab_size": 151936, "head_dim": 128}
# By exact hub id: what their config.json says, so that they need not be fetched to be reckoned with.
KNOWN: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": _clip_large(224),
    "openai/clip-vit-large-patch14-336": _clip_large(336),
    "google/siglip2-base-patch16-384": _siglip(768, 3072, 12, 12, image_size=384, patch_size=16),
    "google/siglip2-so400m-patch14-384": _siglip(1152, 4304, 27, 16, image_size=384, patch_size=14),
    "google/siglip-so400m-patch14-384": _siglip(1152, 4304, 27, 16, image_size=384, patch_size=14),
    "lmsys/vicuna-7b-v1.1": {**_7B, "max_position_embeddings": 2048},
    "lmsys/vicuna-7b-v1.5": _7B,
    "lmsys/vicuna-13b-v1.1": {**_13B, "max_position_embeddings": 2048},
    "lmsys/vicuna-13b-v1.5": _13B,
    "meta-llama/Llama-2-7b-chat-hf": _7B,
    "meta-llama/Llama-2-13b-chat-hf": _13B,
    "Qwen/Qwen3-0.6B": _language("qwen3", 1024, 3072, 28, 16, 8, 40960, **{**_QWEN3, "tie_word_embeddings": True}),
    "Qwen/Qwen3-1.7B": _language("qwen3", 2048, 6144, 28, 16, 8, 40960, **{**_QWEN3, "tie_word_embeddings": True}),
    "Qwen/Qwen3-4B": _language("qwen3", 2560, 9728, 36, 32, 8, 40960, **{**_QWEN3, "tie_word_embeddings": True}),
    "Qwen/Qwen3-8B": _language("qwen3", 4096, 12288, 36, 32, 8, 40960, **_QWEN3),
}


@dataclass(frozen=True)
class Shape:
    """Of a Llava and what trains of it.

    vision, text: their transformers configs; vision is cut to the layers that run, None for text alone
    tile_size:    pixels a side of what the tower takes
    train:        the parts that learn; lora, quantize, vision_layers: as finetune's
    """

    vision: PretrainedConfig | None
    text: PretrainedConfig
    projector: str
    image_mode: str
    train: tuple[Part, ...]
    lora: Lora | None = None
    quantize: Quantize | None = None
    vision_layers: int | None = None

    @property
    def tile_size(self) -> int:
        return int(self.vision.image_size) if self.vision is not None else 0

    def picture(self) -> Layout | None:
        """Return the tiles and visual tokens of a picture (an anyres one: of 640 x 480); None for text alone."""
        if self.vision is None:
            return None
        with torch.device("meta"):
            num_patches = make_projector(self.projector, 1, 1).num_patches(count_patches(self.vision, self.tile_size))
        return lay_out(PICTURE, self.image_mode, tile_size=self.tile_size, num_patches=num_patches)

    def make(self, dtype: torch.dtype) -> Llava:
        """Make the model on the meta device, what trains marked. Raises PartError, ProjectorError, AdapterError."""
        vision = projector = None
        with torch.device("meta"):
            text: Any = AutoModelForCausalLM.from_config(self.text, dtype=dtype)
            if self.vision is not None:
                tower: Any = TOWERS[self.vision.model_type].model_class(self.vision)
                vision = VisionTower(tower.to(dtype))
                projector = make_projector(self.projector, vision.hidden_size, self.text.hidden_size).to(dtype)
                if is_anyres(self.image_mode):
                    projector.add_newline(self.text.hidden_size)
            model = Llava(vision_tower=vision, projector=projector, language_model=text, image_token_id=_IMAGE)
            if self.lora is not None:
                model.add_lora(self.lora)
        model.train_only(self.train, vision_layers=self.vision_layers)
        return model

    def shallow(self, num_layers: int, *, period: int) -> Shape:
        """Return the same with so many layers in the language model, and few in a tower that does not learn.

        Layers are numbered through both, so of a tower's as many are left as keep every `period`-th where it falls.
        """
        text = _with_layers(self.text, num_layers)
        if self.vision is None or "vision_tower" in self.train:
            return replace(self, text=text)
        return replace(
            self, text=text, vision=_with_layers(self.vision, 1 + (int(self.vision.num_hidden_layers) - 1) % period)
        )


_IMAGE = 1


def _with_layers(config: PretrainedConfig, num_layers: int) -> PretrainedConfig:
    settings = config.to_dict() | {"num_hidden_layers": num_layers}
    if settings.get("layer_types"):
        settings["layer_types"] = settings["layer_types"][:num_layers]
    return type(config)(**{name: value for name, value in settings.items() if value is not None})


def find_tower(name: str, feature_layer: int) -> PretrainedConfig:
    """Return the config of a tower up to a layer, by its folder or hub id. Raises BudgetError, PartError."""
    config = AutoConfig.for_model(**KNOWN[name]) if name in KNOWN else _read(name, tower=True)
    return cut_config(config, feature_layer, name)


def find_text(name: str) -> PretrainedConfig:
    """Return the config of a language model, by its folder or hub id. Raises BudgetError, PartError."""
    config = AutoConfig.for_model(**KNOWN[name]) if name in KNOWN else _read(name, tower=False)
    find_language_family(config.model_type, name)
    return config


def _read(name: str, *, tower: bool) -> PretrainedConfig:
    try:
        return read_tower_config(name) if tower else read_part_config(name)
    except PartError as error:
        if "no model here" not in str(error):
            raise
        raise BudgetError(
            f"{error.args[0].partition(' (')[0]}; give a folder with its config.json (no weights needed), or one of: "
            f"{', '.join(known for known in KNOWN if (KNOWN[known]['model_type'] in TOWERS) == tower)}"
        ) from None
