"""Our chat template in Jinja, which transformers' tokenizers and processors carry.

It reproduces the training prompt, so that transformers' processor gives our input_ids.
"""

from __future__ import annotations

import copy
import json

from transformers import PreTrainedTokenizerBase

from llava_lite.processor import Processor


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
    spaced = puts_space_first(processor)
    pieces: dict[str, object] = {
        "IMAGE": before_image + processor.image_token + after_image,
        "MARK": processor.image_token,
        "FIRST": " " if spaced and processor.writes_bos and not (processor.whole and template.bos) else "",
        "SPACE": " " if spaced and not processor.whole else "",
        "SPACELESS": [" ", *(token for token in special if any(token in text for text in _markup(processor)))],
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


def with_chat_template(processor: Processor) -> PreTrainedTokenizerBase:
    """Copy the tokenizer, with the template that the model was trained with instead of the one it came with."""
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.chat_template = chat_template(processor)
    return tokenizer


def _markup(processor: Processor) -> tuple[str, ...]:
    template = processor.template
    return (template.user, template.answer, template.system, template.opening, template.between, processor.image_token)


def puts_space_first(processor: Processor) -> bool:
    """Whether the tokenizer puts a space before the first piece of a text (sentencepiece)."""
    return cut(processor.tokenizer, "a")[0].startswith("▁")


def is_legacy(processor: Processor) -> bool:
    """Whether the tokenizer puts that space also after a special token (sentencepiece's legacy way)."""
    end = processor.tokenizer.eos_token
    return cut(processor.tokenizer, f"{end}a")[1].startswith("▁") and puts_space_first(processor)


def cut(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Return the pieces that a text is cut into."""
    return [str(piece) for piece in tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))]


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
  {%- set at = namespace(space=$FIRST$ if loop.first else $SPACE$) -%}
  {%- for start in $SPACELESS$ -%}
    {%- if piece.startswith(start) -%}{%- set at.space = '' -%}{%- endif -%}
  {%- endfor -%}
  {{ ('' if loop.first else $MARK$) + (at.space if piece else '') + piece }}
{%- endfor -%}
"""
