"""Makes the parts of the demo model: a tokenizer, a CLIP and a Vicuna-like Llama, as ordinary Hugging Face folders.

The tokenizer is trained on the world's words; the weights are random, at a scale that these small widths can learn
from (the library's defaults are meant for widths of a thousand and leave a small model at a standstill).
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made at run time
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
)

from llava_lite.demo.scene import COLORS, NUMBERS, PLACES, PLURALS, SHAPES

VICUNA_PHRASES = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    " USER:",
    "USER:",
    " ASSISTANT:",
)
"""The template's own words, each one piece."""
FREQUENT = 300
"""How often a stretch of words occurs that becomes one piece."""
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"


def write_language_model(
    folder: Path,
    world: Path,
    *,
    seed: int = 0,
    hidden_size: int = 128,
    num_layers: int = 3,
    num_heads: int = 4,
    intermediate_size: int = 256,
) -> None:
    """Write a Llama with random weights and the tokenizer of `world`'s texts (see `write_world`) under `folder`."""
    tokenizer = train_tokenizer(folder, read_texts(world))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        _init_linear(model)
        nn.init.normal_(model.model.embed_tokens.weight, std=0.5)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.save_pretrained(folder)


def write_clip(
    folder: Path,
    world: Path,
    *,
    seed: int = 0,
    image_size: int = 64,
    patch_size: int = 32,
    hidden_size: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    text_hidden_size: int = 64,
    text_layers: int = 2,
    projection_dim: int = 64,
) -> None:
    """Write a CLIPModel with random weights, its image processor and its tokenizer under `folder`."""
    records = json.loads((world / "contrastive.json").read_text(encoding="utf-8"))
    tokenizer = _train_clip_tokenizer(caption for record in records for caption in record["captions"])
    # CLIPTextModel pools at the highest id when eos_token_id is 2, and at the first eos otherwise: with the end token
    # as the last id both are the same place.
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": text_hidden_size,
        "intermediate_size": 4 * text_hidden_size,
        "num_hidden_layers": text_layers,
        "num_attention_heads": max(1, text_hidden_size // 32),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision_config = {
        "image_size": image_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
    }
    config = CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=projection_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
        _init_linear(model)
        _init_clip_embeddings(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": image_size, "width": image_size}
    CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=size).save_pretrained(folder)


def train_tokenizer(folder: Path, texts: Iterable[str]) -> LlamaTokenizer:
    """Train a Llama-style sentencepiece tokenizer with pieces of several words, and save it under `folder`.

    Colors, shapes, places and answers are one piece each, and so is each stretch between them that the world says
    often. Short rows are what lets so small a model learn to look things up within minutes.
    Ids as in Llama: unk 0, bos 1, eos 2, then the 256 bytes; no pad token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    learnt = io.BytesIO()  # rather than a path, which the file would remember
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_phrases(texts)),
        model_writer=learnt,
        model_type="bpe",
        vocab_size=8000,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_by_whitespace=False,
        split_by_unicode_script=False,
        split_digits=True,
        max_sentencepiece_length=200,
        byte_fallback=True,
        minloglevel=2,
    )
    model = ModelProto()
    model.ParseFromString(learnt.getvalue())
    model.normalizer_spec.add_dummy_prefix = True  # as Llama's; while training it would have hidden words without it
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    tokenizer: LlamaTokenizer = LlamaTokenizer.from_pretrained(
        folder, legacy=False, add_bos_token=True, add_eos_token=False
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _phrases(texts: Iterable[str]) -> list[str]:
    """List what becomes one piece, as often as it shall count: first the words that matter, then other words and
    punctuation marks, then the frequent stretches between words that matter."""
    words = sorted([*COLORS, *SHAPES, *PLURALS.values(), *PLACES, *NUMBERS, "yes", "no"], key=len, reverse=True)
    matters = re.compile(rf"( ?\b(?:{'|'.join(words)})\b)")
    runs = Counter(
        run
        for text in texts
        for line in re.split(r"\n|<image>", text)
        for start in (line, f" {line}")  # a text begins a row, or follows a word of the template
        for run in matters.split(start)
    )
    often = {run for run, count in runs.items() if count >= FREQUENT} | set(VICUNA_PHRASES)
    pieces = {piece for run in runs.keys() | often for piece in re.findall(r" ?[\w'-]+| ?[^\w ]", run)}
    lines = 1000 * [form for word in words for form in (word, f" {word}")] + 10 * sorted(pieces) + sorted(often)
    return [line for line in lines if line]


def read_texts(world: Path) -> list[str]:
    """Collect every text that a language model meets in a world's training files."""
    records = []
    for name in ("captions.json", "instructions.json", "dialogues.json"):
        records += json.loads((world / name).read_text(encoding="utf-8"))
    return [turn["value"] for record in records for turn in record["conversations"]]


def _train_clip_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Train CLIP's byte-level BPE with `</w>` word ends; the start and end tokens get the last two ids, as in CLIP."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=2000, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(sorted(set(captions)), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    joined = ["".join(pair) for pair in merges]
    letters = sorted(learnt["vocab"].keys() - set(joined))  # which the trainer numbers anew each time
    vocabulary = {word: number for number, word in enumerate([*letters, *joined, CLIP_START, CLIP_END])}
    # transformers' annotation says list[str]; the tokenizer underneath takes pairs only
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=16)  # type: ignore[arg-type]


def _init_linear(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _init_clip_embeddings(model: CLIPModel) -> None:
    embeddings = model.vision_model.embeddings
    nn.init.normal_(embeddings.patch_embedding.weight, std=(3 * embeddings.patch_size**2) ** -0.5)
    nn.init.normal_(embeddings.position_embedding.weight, std=4.0)  # places must stay visible beside colors
    nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(model.text_model.embeddings.position_embedding.weight, std=0.3)
