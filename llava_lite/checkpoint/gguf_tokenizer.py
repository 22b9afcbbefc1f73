"""A tokenizer and a chat template in llama.cpp's words, so that it cuts our prompt into our tokens.

llama.cpp tokenises each stretch of text between images on its own, as we do. With a sentencepiece-like tokenizer it
merges by scores, not by a list: the rank of a merge, negated, is the score of what it makes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llava_lite.checkpoint.chat_template import chat_template, is_legacy
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.processor import Processor

if TYPE_CHECKING:
    from gguf import GGUFWriter

_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_PHI3 = {"</s>", "<s>", "<unk>", "<|endoftext|>"}  # llama.cpp looks these up in it
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SLASHES = _REST.replace(r"[\r\n]*", r"[\r\n/]*")
# How a byte-level tokenizer splits text before it merges, and whether it takes whole words from the vocabulary first:
# llama.cpp's name for it. None: GPT-2's pattern, which is ByteLevel's own.
_PRE: dict[tuple[str | None, bool], str] = {
    (None, False): "gpt-2",
    (rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}", False): "qwen2",
    (rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", True): "llama-bpe",
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*|\p{{N}}|{_SLASHES}",
        True,
    ): "tekken",
}


def describe_tokenizer(writer: GGUFWriter, processor: Processor, *, num_rows: int) -> None:
    """Write vocabulary, special tokens and chat template; num_rows: of the embeddings, which may be more than tokens.

    Raises CheckpointError for a kind of tokenizer that llama.cpp has not.
    """
    tokenizer = processor.tokenizer
    record: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model, changes = record["model"], _changes(record["normalizer"])
    is_pieces = model["type"] == "BPE" and model["byte_fallback"] and model["vocab"].keys() >= _BYTES
    is_bytes = model["type"] == "BPE" and not model["byte_fallback"]
    if is_pieces and changes <= {"Prepend", "Replace"}:
        _describe_pieces(writer, processor, model, num_rows)
    elif is_bytes and changes <= {"NFC"}:
        _describe_bytes(writer, processor, record, num_rows)
    else:
        num_bytes = len(model["vocab"].keys() & _BYTES)
        raise CheckpointError(
            "GGUF: llama.cpp's tokenizers are BPE over bytes, or over letters with all bytes as tokens, and change "
            f"nothing of a text but its spaces; this is {model['type']} with {num_bytes} of the bytes, changing text "
            f"by {', '.join(sorted(changes)) or 'nothing'}"
        )
    _describe_special(writer, processor)
    writer.add_chat_template(llama_cpp_template(processor))


def _changes(record: dict[str, Any] | None) -> set[str]:
    """Return the kinds of changes that a text undergoes before it is split."""
    steps = record["normalizers"] if record and record["type"] == "Sequence" else [record] if record else []
    return {str(step["type"]) for step in steps}


def _describe_pieces(writer: GGUFWriter, processor: Processor, model: dict[str, Any], num_rows: int) -> None:
    """Write a sentencepiece-like vocabulary.

    The space that such a tokenizer puts in front of a text is written by the chat template, except where it puts one
    behind every special token, as llama.cpp does: there llama.cpp puts it.
    """
    tokens, types = _tokens(processor, num_rows)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(model["merges"]):
        ranks.setdefault(left + right, rank)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(ranks.get(token, len(model["merges"]))) for token in tokens])
    writer.add_token_types(types)
    writer.add_add_space_prefix(is_legacy(processor))


def _describe_bytes(writer: GGUFWriter, processor: Processor, record: dict[str, Any], num_rows: int) -> None:
    """Write a byte-level vocabulary."""
    pattern, ignores = _split_pattern(record["pre_tokenizer"]), bool(record["model"]["ignore_merges"])
    if (pattern, ignores) not in _PRE:
        raise CheckpointError(
            f"GGUF: the tokenizer splits text by {pattern!r} (ignore_merges: {ignores}), which no row here names for "
            f"llama.cpp; known: {', '.join(_PRE.values())}"
        )
    tokens, types = _tokens(processor, num_rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE[pattern, ignores])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{left} {right}" for left, right in record["model"]["merges"]])


def _split_pattern(record: dict[str, Any] | None) -> str | None:
    """Return the pattern that a byte-level tokenizer splits by; None: ByteLevel's own. Raises CheckpointError."""
    steps = record["pretokenizers"] if record and record["type"] == "Sequence" else [record]
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return None
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    raise CheckpointError(f"GGUF: the tokenizer splits text in a way that llama.cpp does not: {json.dumps(record)}")


def _tokens(processor: Processor, num_rows: int) -> tuple[list[str], list[int]]:
    """Return all tokens and their types; a row of the embeddings without a token gets an unused one."""
    from gguf import TokenType

    tokenizer = processor.tokenizer
    tokens = [f"[PAD{row}]" for row in range(num_rows)]
    types = [TokenType.UNUSED] * num_rows
    for token, number in tokenizer.get_vocab().items():
        tokens[number] = token
        types[number] = TokenType.BYTE if token in _BYTES else TokenType.NORMAL
    for number, added in tokenizer.added_tokens_decoder.items():
        tokens[number] = added.content if added.special else added.content.replace("▁", " ")
        types[number] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    if tokenizer.unk_token_id is not None and types[tokenizer.unk_token_id] == TokenType.CONTROL:
        types[tokenizer.unk_token_id] = TokenType.UNKNOWN
    return tokens, [int(kind) for kind in types]


def _describe_special(writer: GGUFWriter, processor: Processor) -> None:
    """Write which tokens begin, end and pad a text, and that no image token is ever generated.

    BOS is the template's, as in our folders for transformers: some of llama.cpp's users take a second one off again,
    and some do not.
    """
    tokenizer = processor.tokenizer
    ids = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
        writer.add_eot_token_id: processor.end_token_id,
    }
    for add, number in ids.items():
        if number is not None:
            add(int(number))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if processor.image_token_id >= 0:
        writer.add_array("tokenizer.ggml.suppress_tokens", [processor.image_token_id])
    writer.add_name(_name(processor))


def _name(processor: Processor) -> str:
    """Return the name of a model, by which llama.cpp knows Phi-3, whose special tokens swallow white space behind them.

    Raises CheckpointError where those of another tokenizer do.
    """
    tokens = processor.tokenizer.added_tokens_decoder.values()
    if not any(token.rstrip for token in tokens):
        return "LLaVA"
    if missing := _PHI3 - {token.content for token in tokens}:
        raise CheckpointError(
            "GGUF: special tokens of this tokenizer swallow the white space behind them, as llama.cpp knows it of "
            f"Phi-3's alone, which has {', '.join(sorted(missing))} as well"
        )
    return "LLaVA Phi-3"


def llama_cpp_template(processor: Processor) -> str:
    """Write our chat template for llama.cpp, which shows an image as a mark in the words of a message.

    Spaces behind BOS and images are left out where llama.cpp puts one there (see `_describe_pieces`).
    """
    before, after = (
        "".join(line.strip() for line in text.splitlines()).replace("$IMAGE$", json.dumps(processor.image_token))
        for text in (_MARKS_TO_IMAGES, _IMAGES_TO_MARKS)
    )
    spaceless = [processor.image_token, processor.tokenizer.bos_token] if is_legacy(processor) else []
    shorter = "".join(f".replace({json.dumps(f'{token} ')}, {json.dumps(token)})" for token in spaceless)
    return before + chat_template(processor) + after.replace("$SHORTER$", shorter)


# The mark is <__media__>, or <__media_...__> with something random in it (llama-server).
_MARKS_TO_IMAGES = """
{%- set media = namespace(mark=$IMAGE$, messages=[]) -%}
{%- for message in messages -%}
  {%- if message.content is string -%}{%- set text = message.content -%}
  {%- else -%}{%- set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join -%}
  {%- endif -%}
  {%- if '<__media' in text -%}
    {%- set media.mark = '<__media' + text.split('<__media')[1].split('__>')[0] + '__>' -%}
    {%- set parts = namespace(list=[]) -%}
    {%- for words in text.split(media.mark) -%}
      {%- if not loop.first -%}{%- set parts.list = parts.list + [{'type': 'image'}] -%}{%- endif -%}
      {%- if words -%}{%- set parts.list = parts.list + [{'type': 'text', 'text': words}] -%}{%- endif -%}
    {%- endfor -%}
    {%- set media.messages = media.messages + [{'role': message.role, 'content': parts.list}] -%}
  {%- else -%}
    {%- set media.messages = media.messages + [message] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = media.messages -%}
{%- set prompt -%}
"""
_IMAGES_TO_MARKS = """
{%- endset -%}
{{ prompt$SHORTER$.replace($IMAGE$, media.mark) }}
"""
