"""Checkpoints that hold a whole model: all weights, and what makes its tensors. A tower is written as it is run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.initialization import no_init_weights

from llava_lite.checkpoint.chat_template import with_chat_template
from llava_lite.checkpoint.names import our_name
from llava_lite.checkpoint.parts import CheckpointError, choose_template, count_visual_tokens, fit_newline
from llava_lite.checkpoint.transformers_format import (
    generation_config,
    native_config,
    native_names,
    save_native_processor,
    save_tokenizer,
    why_not_native,
)
from llava_lite.checkpoint.weights import fill, read_weights, write_weights
from llava_lite.conversation.families import record_template
from llava_lite.conversation.template import IMAGE_MARK
from llava_lite.images.transform import ImageTransform
from llava_lite.models.adapter import Quantize
from llava_lite.models.language_model import (
    find_language_family,
    load_language_model,
    load_tokenizer,
    longest_sequence,
)
from llava_lite.models.llava import Llava
from llava_lite.models.projector import make_projector
from llava_lite.models.vision_tower import TOWERS, VisionTower
from llava_lite.processor import Processor, prepare_tokenizer

NATIVE = ("llava", "llava_next")
"""The model types of transformers' own classes."""


@dataclass(frozen=True)
class Whole:
    """What a folder says of its model.

    vision_config: of the tower, as far as it is run
    projector:     its kind
    leave:         a pattern of the weights, by our names, that the files hold and the model has not
    """

    vision_config: PretrainedConfig
    text_config: PretrainedConfig
    projector: str
    processor: Processor
    leave: str = r"(?!)"


def write_whole(folder: Path, model: Llava, processor: Processor, weights: dict[str, torch.Tensor]) -> dict:
    """Write all but config.json, which is returned: transformers' own where its classes compute the same, else ours."""
    language_model = model.language_model
    about: dict[str, object] = {"template": record_template(processor.template), "bos": processor.bos}
    generation_config(language_model, processor).save_pretrained(folder)
    if language_model.config.tie_word_embeddings:
        del weights["language_model.lm_head.weight"]
    if model.vision_tower is None:
        write_weights(folder, {name.removeprefix("language_model."): w for name, w in weights.items()})
        with_chat_template(processor).save_pretrained(folder)
        return {**_plain(language_model.config), "llava_lite": about}
    assert model.projector is not None and processor.transform is not None
    about["projector"] = model.projector.kind
    about |= {"image_mode": processor.transform.mode, "tower_short_side": processor.transform.tower.short_side}
    if processor.whole:
        about["whole"] = True
    if processor.image_token != IMAGE_MARK:
        about["image_token"] = processor.image_token
    if not why_not_native(model, processor):
        names = native_names(model)
        write_weights(folder, {names[name]: w for name, w in weights.items()})
        save_native_processor(folder, model, processor)
        return {**_plain(native_config(model, processor)), "llava_lite": about}
    write_weights(folder, weights)
    save_tokenizer(folder, processor)
    processor.transform.image_processor.save_pretrained(folder)
    return {
        "model_type": "llava_lite",
        "vision_config": _plain(model.vision_tower.model.config),
        "text_config": _plain(language_model.config),
        "llava_lite": about,
    }


def read_whole(folder: Path, config: dict, template: str | dict[str, object] | None = None) -> Whole:
    """Read what `write_whole` says of a model, all but the weights; template: instead of the recorded one."""
    about = config["llava_lite"]
    vision_config, text_config = (AutoConfig.for_model(**config[name]) for name in ("vision_config", "text_config"))
    image_token = about.get("image_token", IMAGE_MARK)
    tokenizer = load_tokenizer(str(folder))
    prepare_tokenizer(tokenizer, image=image_token == IMAGE_MARK)
    transform = ImageTransform.from_tower(folder, about.get("image_mode"))
    if "tower_short_side" in about:  # what only crop needs, preprocessor_config.json does not say in other modes
        transform = transform.with_short_side(about["tower_short_side"])
    processor = Processor(
        tokenizer=tokenizer,
        template=choose_template(template or about["template"], tokenizer),
        transform=transform,
        num_patches=count_visual_tokens(vision_config, about["projector"], transform),
        bos=about["bos"],
        max_positions=longest_sequence(text_config),
        image_token=image_token,
        whole=about.get("whole", False),
    )
    return Whole(vision_config, text_config, about["projector"], processor)


def load_whole(folder: Path, whole: Whole, *, dtype: torch.dtype, quantize: Quantize | None) -> Llava:
    """Read the weights of a model; see `folder.load`."""
    text_config, processor = whole.text_config, whole.processor
    find_language_family(text_config.model_type, folder)
    weights = _read_named(folder, whole)
    for config in (whole.vision_config, text_config):
        config._attn_implementation = None  # the class's own, see models.pretrained
    try:
        with no_init_weights():
            tower = VisionTower(TOWERS[whole.vision_config.model_type].model_class(whole.vision_config)).to(dtype)
            if quantize is None:
                language_model = AutoModelForCausalLM.from_config(text_config, dtype=dtype)
    except RuntimeError as error:  # sizes below zero, or of more memory than there is
        raise CheckpointError(f"{folder}: no model can be made of the sizes in its config.json ({error})") from None
    if quantize is not None:
        inside = {name: weights.pop(name) for name in sorted(weights) if name.startswith("language_model.")}
        language_model = load_language_model(
            str(folder),
            dtype=dtype,
            quantize=quantize,
            config=text_config,
            weights={name.removeprefix("language_model."): weight for name, weight in inside.items()},
        )
    model = Llava(
        vision_tower=tower,
        projector=make_projector(whole.projector, tower.hidden_size, text_config.hidden_size).to(dtype),
        language_model=language_model,
        image_token_id=processor.image_token_id,
        quantize=quantize,
    )
    fit_newline(model, processor)  # it has its place before weights are read
    if quantize is not None:  # the language model is whole already
        fill(torch.nn.ModuleDict({n: p for n, p in model.parts().items() if n != "language_model"}), weights, folder)
    else:
        fill(model, weights, folder)
        language_model.tie_weights()
    return model


def _read_named(folder: Path, whole: Whole) -> dict[str, torch.Tensor]:
    """Read the weights by our names, whichever of its layouts transformers wrote them in."""
    tower_type = whole.vision_config.model_type
    weights = {our_name(name, tower_type): weight for name, weight in read_weights(folder).items()}
    return {name: weight for name, weight in weights.items() if not re.match(whole.leave, name)}


def _plain(config: PretrainedConfig) -> dict:
    return json.loads(config.to_json_string(use_diff=False))
