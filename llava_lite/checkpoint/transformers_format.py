"""Whole models as transformers' own folders: `LlavaForConditionalGeneration` and `AutoProcessor` open them as they are.

The chat template written here reproduces the training prompt, so that transformers' processor gives our input_ids.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Literal

from transformers import GenerationConfig, LlavaConfig, LlavaProcessor, PreTrainedModel, PreTrainedTokenizerBase

from llava_lite.conversation.template import IMAGE_MARK, ChatTemplate
from llava_lite.models.language_model import is_plain
from llava_lite.models.llava import Llava
from llava_lite.models.vision_tower import VisionTower
from llava_lite.processor import Processor

# Our names -> the names of published folders, which transformers, vLLM and SGLang read: all patterns, in this order.
_NAMES = (
    (r"^projector\.0\.", "multi_modal_projector.linear_1."),
    (r"^projector\.2\.", "multi_modal_projector.linear_2."),
)
_VISION_MODEL = ((r"^vision_tower\.model\.", "vision_tower.vision_model."),)
_DINOV2 = (
    (r"^vision_tower\.model\.", "vision_tower."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
_TOWER_NAMES = {"clip_vision_model": _VISION_MODEL, "siglip_vision_model": _VISION_MODEL, "dinov2": _DINOV2}


def is_native(model: Llava) -> bool:
    """Whether transformers' Llava class computes exactly what this model computes, and knows its weights by name."""
    projector = model.projector
    if model.vision_tower is None or projector is None:
        return False
    plain_projector = projector.kind == "mlp2x_gelu" and projector.image_newline is None
    return plain_projector and is_plain(model.language_model.config) and not _has_gates(model.vision_tower)


def native_names(model: Llava) -> dict[str, str]:
    """Our names of a model's weights -> the published ones."""
    assert model.vision_tower is not None
    patterns = _NAMES + _TOWER_NAMES[model.vision_tower.model.config.model_type]
    return {name: _rename(name, patterns) for name in model.state_dict()}


def _rename(name: str, patterns: tuple[tuple[str, str], ...]) -> str:
    if not name.startswith("language_model."):
        for pattern, instead in patterns:
            name = re.sub(pattern, instead, name)
    return name


def _has_gates(tower: VisionTower) -> bool:
    """Whether it is DINOv2's giant, whose published folder has its gate and its values in one matrix."""
    return tower.model.config.model_type == "dinov2" and bool(tower.model.config.use_swiglu_ffn)


def native_config(model: Llava, num_patches: int) -> LlavaConfig:
    """Describe a model as transformers does; num_patches: visual tokens of a tile.

    The tower has no layers above the selected one, hence layer -1: for transformers this is the last block's output,
    before any final norm. `default` drops one class token, `full` drops none.
    """
    assert model.vision_tower is not None
    text_config = model.language_model.config
    return LlavaConfig(
        vision_config=model.vision_tower.model.config.to_dict(),
        text_config=text_config.to_dict(),
        image_token_index=model.image_token_id,
        image_seq_length=num_patches,
        vision_feature_select_strategy=_select_strategy(model.vision_tower),
        vision_feature_layer=-1,
        tie_word_embeddings=bool(text_config.tie_word_embeddings),
        architectures=["LlavaForConditionalGeneration"],
        dtype=model.language_model.dtype,
    )


def _select_strategy(tower: VisionTower) -> Literal["default", "full"]:
    return "default" if tower.family.num_prefix_tokens else "full"


def save_native_processor(folder: Path, model: Llava, processor: Processor) -> None:
    """Write tokenizer, image processor and chat template as `AutoProcessor` reads them."""
    assert model.vision_tower is not None and processor.transform is not None
    LlavaProcessor(
        image_processor=processor.transform.image_processor,
        tokenizer=_without_bos(processor),
        patch_size=model.vision_tower.model.config.patch_size,
        vision_feature_select_strategy=_select_strategy(model.vision_tower),
        num_additional_image_tokens=model.vision_tower.family.num_prefix_tokens,
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


def with_chat_template(processor: Processor) -> PreTrainedTokenizerBase:
    """Copy the tokenizer, with the template that the model was trained with instead of the one it came with."""
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.chat_template = chat_template(processor)
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


def chat_template(processor: Processor) -> str:
    """Write our template in Jinja, so that the whole prompt tokenised at once gives the ids of our parts.

    Where the tokenizer puts a space before the first piece of a text (sentencepiece), that space is written out after
    BOS and after an image, because there the whole prompt has no first piece. A special token gets none.
    """
    template = processor.template
    before_system, after_system = template.system.split("{}") if template.system else ("", "")
    before_user, after_user = template.user.split("{}")
    before_answer, after_answer = template.answer.split("{}")
    before_image, after_image = template.image.split("{}")
    special = sorted(processor.tokenizer.get_added_vocab())
    pieces: dict[str, object] = {
        "IMAGE": before_image + IMAGE_MARK + after_image,
        "MARK": IMAGE_MARK,
        "SPACE": " " if _puts_space_first(processor) else "",
        "SPACELESS": [" ", *(token for token in special if any(token in text for text in _markup(template)))],
        "BOS": processor.tokenizer.bos_token if processor.writes_bos else "",
        "OPENING": template.opening,
        "BETWEEN": template.between,
        "SYSTEM": template.system_text,
        "HAS_SYSTEM": bool(template.system),
        "SYSTEM_IN_USER": template.system_in_user,
        "BEFORE_SYSTEM": before_system,
        "AFTER_SYSTEM": after_system,
        "BEFORE_USER": before_user,
        "AFTER_USER": after_user,
        "BEFORE_ANSWER": before_answer,
        "AFTER_ANSWER": after_answer,
        "USER_TEXT": template.user_text,
        "TRIM": template.trim,
    }
    text = "".join(line.strip() for line in _JINJA.splitlines())
    for name, value in pieces.items():
        text = text.replace(f"${name}$", json.dumps(value, ensure_ascii=False))
    return text


def _markup(template: ChatTemplate) -> tuple[str, ...]:
    return (template.user, template.answer, template.system, template.opening, template.between, IMAGE_MARK)


def _puts_space_first(processor: Processor) -> bool:
    ids = processor.tokenizer.encode("a", add_special_tokens=False)
    return str(processor.tokenizer.convert_ids_to_tokens(ids)[0]).startswith("▁")


def is_legacy(processor: Processor) -> bool:
    """Whether the tokenizer puts that space also after a special token (sentencepiece's legacy way)."""
    end = processor.tokenizer.eos_token
    tokens = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer.encode(f"{end}a", add_special_tokens=False))
    return str(tokens[1]).startswith("▁") and _puts_space_first(processor)


# One image in a turn comes first; a newline follows each leading image (see conversation/message.py). Only what
# llama.cpp's Jinja knows as well: no tuples, `startswith` of one string.
_JINJA = """
{%- macro trimmed(text) -%}{{ text | trim if $TRIM$ else text }}{%- endmacro -%}
{%- macro words(content) -%}
  {%- if content is string -%}{{ content }}
  {%- else -%}{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- macro user(content) -%}
  {%- set images = [] if content is string else content | rejectattr('type', 'equalto', 'text') | list -%}
  {%- if not $USER_TEXT$ -%}{%- for image in images -%}{{ $IMAGE$ }}{%- endfor -%}
  {%- elif not images -%}{{ words(content) }}
  {%- elif images | length == 1 -%}
    {%- set text = words(content) | trim -%}
    {{ $IMAGE$ + ('\\n' + text if text else '') }}
  {%- else -%}
    {%- set at = namespace(leading=true, after=false) -%}
    {%- for part in content -%}
      {%- set text = '' if part.type != 'text' else part.text.lstrip() if at.leading else part.text -%}
      {%- if text or part.type != 'text' -%}
        {%- if at.leading and at.after -%}{{ '\\n' }}{%- endif -%}
        {{ text if text else $IMAGE$ }}
        {%- set at.after = not text -%}
        {%- if text -%}{%- set at.leading = false -%}{%- endif -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if messages[0].role == 'system' -%}
  {%- set system = words(messages[0].content) -%}{%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = $SYSTEM$ -%}{%- set turns = messages -%}
{%- endif -%}
{%- if system and not $HAS_SYSTEM$ -%}{{ raise_exception('there is no place for a system text') }}{%- endif -%}
{%- set place = $BEFORE_SYSTEM$ + trimmed(system) + $AFTER_SYSTEM$ if system else '' -%}
{%- set body -%}
  {%- if not system -%}{{ $OPENING$ }}{%- elif not $SYSTEM_IN_USER$ -%}{{ place }}{%- endif -%}
  {%- for message in turns -%}
    {%- if message.role == 'user' -%}
      {{ ('' if loop.first else $BETWEEN$) + $BEFORE_USER$ + (place if loop.first and $SYSTEM_IN_USER$ else '') }}
      {{ trimmed(user(message.content)) + $AFTER_USER$ }}
    {%- elif message.role == 'assistant' -%}
      {{ $BEFORE_ANSWER$ + trimmed(words(message.content)) + $AFTER_ANSWER$ }}
    {%- else -%}{{ raise_exception('unknown role ' + message.role) }}{%- endif -%}
  {%- endfor -%}
{%- endset -%}
{{ $BOS$ }}
{%- for piece in body.split($MARK$) -%}
  {%- set at = namespace(spaceless=not piece or (loop.first and not $BOS$)) -%}
  {%- for start in $SPACELESS$ -%}
    {%- if piece.startswith(start) -%}{%- set at.spaceless = true -%}{%- endif -%}
  {%- endfor -%}
  {{ ('' if loop.first else $MARK$) + ('' if at.spaceless else $SPACE$) + piece }}
{%- endfor -%}
"""
