"""Folders of transformers' Llava classes that others made, such as llava-hf's: what they say, in our words.

They name no image mode and no template of ours. The mode is what their image processor does; the template is read off
their Jinja, unless it is given. Whatever our model cannot follow exactly is refused with its reason.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image as PilImage
from transformers import AutoConfig, AutoProcessor, PretrainedConfig

from llava_lite.checkpoint.parts import CheckpointError, choose_template, count_visual_tokens, option, reading
from llava_lite.checkpoint.transformers_format import select_strategy
from llava_lite.checkpoint.whole import Whole
from llava_lite.conversation.derived import derive_template
from llava_lite.conversation.families import TEMPLATES
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.conversation.template import IMAGE_MARK, ChatTemplate
from llava_lite.images.layout import is_anyres
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import find_language_family, is_plain, longest_sequence
from llava_lite.models.vision_tower import TOWERS, cut_config, left_out
from llava_lite.processor import Processor, prepare_tokenizer

_PROJECTOR = "mlp2x_gelu"
_TOWERS = [name for name, family in TOWERS.items() if family.config_class.model_type == name]  # vision halves alone


def read_foreign(folder: Path, config: dict, template: str | dict[str, object] | None) -> Whole:
    """Read what a folder of transformers' says of its model, all but the weights.

    template: as `choose_template` takes it, instead of the one that the folder's own chat template writes.
    Raises CheckpointError, PartError, ImageError or ConversationError.
    """
    parsed = _parse(folder, config)
    vision_config, text_config = parsed.vision_config, parsed.text_config
    if complaints := _complain(parsed):
        raise CheckpointError(f"{folder}: a LLaVA of transformers with what this version has not: {complaints}")
    text_config.tie_word_embeddings = parsed.tie_word_embeddings
    cut = cut_config(vision_config, parsed.vision_feature_layer, folder)
    return Whole(
        vision_config=cut,
        text_config=text_config,
        projector=_PROJECTOR,
        processor=_read_processor(folder, parsed, cut, template),
        leave=rf".*rotary_emb\.inv_freq$|vision_tower\.model\.({left_out(vision_config, cut)})",
    )


def _parse(folder: Path, config: dict) -> PretrainedConfig:
    """Read a config as transformers does, which knows what it leaves out. Raises CheckpointError, PartError."""
    with reading(folder):
        vision, text = (dict(config.get(name) or {}) for name in ("vision_config", "text_config"))
        tower = vision.get("model_type", "clip_vision_model")
        if tower not in _TOWERS:
            raise CheckpointError(f"{folder}: unknown vision tower {tower!r}; known: {', '.join(_TOWERS)}")
        find_language_family(text.get("model_type", "llama"), folder)
        return AutoConfig.for_model(**config)


def _complain(config: PretrainedConfig) -> str:
    """Say what of a config our model has not; "" where it has all."""
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    expected = select_strategy(TOWERS[config.vision_config.model_type])
    complaints = []
    if not isinstance(layer, int):
        complaints.append(f"vision_feature_layer {layer} (several layers side by side)")
    if strategy != expected:
        kind = config.vision_config.model_type
        complaints.append(f"vision_feature_select_strategy {strategy} (of a {kind}, {expected} is every patch, once)")
    if config.projector_hidden_act != "gelu":
        complaints.append(f"projector_hidden_act {config.projector_hidden_act} (gelu)")
    if not config.multimodal_projector_bias:
        complaints.append("a projector without bias")
    if not is_plain(config.text_config):
        complaints.append("a language model whose soft-capping transformers' Llava class leaves out")
    return "; ".join(complaints)


def _read_processor(
    folder: Path, config: PretrainedConfig, cut: PretrainedConfig, template: str | dict[str, object] | None
) -> Processor:
    try:
        theirs = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        image_token = str(theirs.image_token)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no LLaVA processor here ({str(error).splitlines()[0]})") from None
    tokenizer = theirs.tokenizer
    if tokenizer.get_added_vocab().get(image_token) != config.image_token_id:
        raise CheckpointError(
            f"{folder}: config.json has the image token at {config.image_token_id}, and {image_token!r} is at "
            f"{tokenizer.get_added_vocab().get(image_token)} among the tokenizer's special tokens"
        )
    bos = prepare_tokenizer(tokenizer, image=image_token == IMAGE_MARK)
    transform = _read_transform(folder, config)
    processor = Processor(
        tokenizer=tokenizer,
        template=choose_template(template, tokenizer) if template else _derive(folder, theirs, image_token),
        transform=transform,
        num_patches=count_visual_tokens(cut, _PROJECTOR, transform),
        bos=bos,
        max_positions=longest_sequence(config.text_config),
        image_token=image_token,
    )
    return _cut_as_they_do(folder, processor)


def _read_transform(folder: Path, config: PretrainedConfig) -> ImageTransform:
    transform = ImageTransform.from_tower(folder, None)
    if is_anyres(transform.mode) != (config.model_type == "llava_next"):
        raise CheckpointError(f"{folder}: a {config.model_type} whose image processor is not its own")
    if is_anyres(transform.mode):
        given = sorted(map(list, config.image_grid_pinpoints))
        if given != sorted(transform.pinpoints) or transform.size != config.vision_config.image_size:
            raise CheckpointError(
                f"{folder}: image_grid_pinpoints {config.image_grid_pinpoints}; anyres has {transform.pinpoints}"
            )
        if transform.tower.resample != PilImage.Resampling.BICUBIC:
            raise CheckpointError(f"{folder}: resizes pictures with filter {transform.tower.resample}; anyres with 3")
    return transform


def _derive(folder: Path, theirs: Any, image_token: str) -> ChatTemplate:
    """Read a processor's chat template, or else its tokenizer's; where it writes no BOS, the tokenizer may."""
    in_tokenizer = None if theirs.chat_template is not None else theirs.tokenizer.chat_template
    remedy = f"say which it was trained with, one of {', '.join(sorted(TEMPLATES))}: {option('template')}"
    if theirs.chat_template is None and in_tokenizer is None:
        raise CheckpointError(f"{folder}: has no chat template; {remedy}")

    def render(messages: list[dict[str, Any]], ask: bool) -> str:
        return str(theirs.apply_chat_template(messages, chat_template=in_tokenizer, add_generation_prompt=ask))

    try:
        template = derive_template("processor", render, theirs.tokenizer.bos_token, image_token=image_token)
    except ConversationError as error:
        raise CheckpointError(f"{folder}: {error}: {option('template')}") from None
    return template if template.bos else replace(template, bos=None)


def _cut_as_they_do(folder: Path, processor: Processor) -> Processor:
    """Return the processor with the spaces of the folder's tokenizer, which cuts up a prompt as one text."""
    asked = Conversation().ask("What is it?\nAnd why?", [PilImage.new("RGB", (8, 8))]).answer("A cat.").ask("Where?")
    text = processor.template.render(asked).text.replace(IMAGE_MARK, processor.image_token)
    written = bool(processor.template.bos)
    text = str(processor.tokenizer.bos_token) + text if written else text
    theirs = processor.tokenizer(text, add_special_tokens=not written).input_ids
    for whole in (False, True):
        attempt = replace(processor, whole=whole)
        ours = attempt.encode(asked).input_ids.tolist()
        place = processor.image_token_id
        if [a for a, b in zip(ours, [None, *ours], strict=False) if (a, b) != (place, place)] == theirs:
            return attempt
    raise CheckpointError(f"{folder}: its tokenizer cuts {text!r} up otherwise than any of ours would")
