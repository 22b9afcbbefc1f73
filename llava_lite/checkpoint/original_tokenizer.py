"""A tokenizer as the original LLaVA's loader reads it: `use_fast=False`, transformers 4.37, no `<image>` token.

For a sentencepiece tokenizer that means its tokenizer.model, which transformers 5 no longer keeps: it is made again of
the pieces. Any other is a tokenizer.json in the spelling of that time. What was written is read back and compared.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made at run time
from transformers import PretrainedConfig

from llava_lite.checkpoint.chat_template import cut, is_legacy, puts_space_first
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.conversation.template import IMAGE_MARK
from llava_lite.models.language_model import load_tokenizer
from llava_lite.processor import Processor, prepare_tokenizer

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PIECE = ModelProto.SentencePiece
_NO_CLASS = {"TokenizersBackend", "PreTrainedTokenizerFast"}


def drops_image_token(processor: Processor) -> bool:
    """Whether the image token can go: it is the last one."""
    return processor.image_token_id == len(processor.tokenizer) - 1


def write_original_tokenizer(folder: Path, processor: Processor, text_config: PretrainedConfig) -> None:
    """Write the tokenizer. Raises CheckpointError where it would not come back the same."""
    tokenizer = copy.deepcopy(processor.tokenizer)
    if processor.writes_bos and tokenizer.encode("a")[0] != tokenizer.bos_token_id:  # that of our own checkpoints
        tokenizer.add_bos_token = True
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if drops_image_token(processor):
        backend["added_tokens"] = [token for token in backend["added_tokens"] if token["content"] != IMAGE_MARK]
    settings: dict[str, Any] = {name: getattr(tokenizer, name) for name in _SPECIAL}
    settings |= {
        "add_bos_token": processor.writes_bos,
        "add_eos_token": False,
        "added_tokens_decoder": {str(token["id"]): _plain(token) for token in backend["added_tokens"]},
        "clean_up_tokenization_spaces": False,
        "model_max_length": processor.max_positions,
        "padding_side": "right",
    }
    model = backend["model"]
    if model.get("byte_fallback"):
        settings |= {"tokenizer_class": "LlamaTokenizer", "legacy": is_legacy(processor), "sp_model_kwargs": {}}
        (folder / "tokenizer.model").write_bytes(_sentencepiece(model["vocab"], processor))
    else:
        name = type(tokenizer).__name__
        settings["tokenizer_class"] = "PreTrainedTokenizerFast" if name in _NO_CLASS else f"{name}Fast"
        model["merges"] = [" ".join(pair) for pair in model["merges"]]  # pairs are what later versions write
        (folder / "tokenizer.json").write_text(json.dumps(backend, ensure_ascii=False), encoding="utf-8")
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    _compare(folder, processor, text_config)


def _plain(token: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in token.items() if key != "id"}


def _sentencepiece(vocab: dict[str, int], processor: Processor) -> bytes:
    """Make a sentencepiece model: BPE, in which a piece of a lower id is merged first."""
    tokenizer = processor.tokenizer
    added = tokenizer.get_added_vocab()
    proto = ModelProto()
    for rank, (text, _) in enumerate(sorted(vocab.items(), key=lambda entry: entry[1])):
        kind = _PIECE.NORMAL
        if text == tokenizer.unk_token:
            kind = _PIECE.UNKNOWN
        elif text in added:
            kind = _PIECE.CONTROL
        elif _BYTE.fullmatch(text):
            kind = _PIECE.BYTE
        proto.pieces.add(piece=text, score=-float(rank) if kind == _PIECE.NORMAL else 0.0, type=kind)
    trainer = proto.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.byte_fallback = True
    trainer.vocab_size = len(vocab)
    trainer.unk_id, trainer.unk_piece = vocab[str(tokenizer.unk_token)], str(tokenizer.unk_token)
    trainer.bos_id, trainer.bos_piece = vocab.get(str(tokenizer.bos_token), -1), str(tokenizer.bos_token)
    trainer.eos_id, trainer.eos_piece = vocab.get(str(tokenizer.eos_token), -1), str(tokenizer.eos_token)
    trainer.pad_id = -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = puts_space_first(processor)
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = True
    return bytes(proto.SerializeToString())


def _compare(folder: Path, processor: Processor, text_config: PretrainedConfig) -> None:
    again, ours = load_tokenizer(str(folder), text_config), processor.tokenizer
    bos = prepare_tokenizer(again, image=True)
    merges, merges_again = (json.loads(one.backend_tokenizer.to_str())["model"]["merges"] for one in (ours, again))
    pieces, pieces_again = (cut(one, f"a b  c{one.eos_token}d \n é") for one in (ours, again))
    if (ours.get_vocab(), merges, pieces, processor.writes_bos) != (again.get_vocab(), merges_again, pieces_again, bos):
        raise CheckpointError(
            f"{ours.name_or_path}: this tokenizer cannot be written as the original reads it; "
            "export to the transformers format"
        )
