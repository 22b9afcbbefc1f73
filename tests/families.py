"""Tiny random folders of every family: ordinary Hugging Face folders whose config.json says the real model_type."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    GemmaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
)

WINDOW = 7
"""Tokens that a sliding layer sees: less than most documents of the tests have."""


@dataclass(frozen=True)
class Language:
    """A tiny language model: what its config says beside the common sizes, whether transformers' Llava class can
    express it, and whose tokenizer its own is like."""

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    native: bool = True
    tokenizer: Literal["llama", "phi3", "qwen", "gemma"] = "llama"


# Each row has what its family may have: windows, tied embeddings, soft-capping, a tokenizer without BOS.
LANGUAGES = {
    "llama": Language("llama"),
    "mistral": Language("mistral", {"sliding_window": WINDOW}),
    "qwen2": Language(
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1, "tie_word_embeddings": True},
        tokenizer="qwen",
    ),
    "qwen3": Language("qwen3", {"tie_word_embeddings": True}, tokenizer="qwen"),
    "phi3": Language("phi3", {"sliding_window": WINDOW, "pad_token_id": None}, tokenizer="phi3"),
    "gemma": Language("gemma", {"tie_word_embeddings": True}, tokenizer="gemma"),
    "gemma2": Language(
        "gemma2",
        {
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 12,
            "tie_word_embeddings": True,
        },
        native=False,
        tokenizer="gemma",
    ),
    "gemma3_text": Language(
        "gemma3_text",
        {
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 12,
            "tie_word_embeddings": True,
        },
        tokenizer="gemma",
    ),
    "gemma3_text that soft-caps": Language(
        "gemma3_text", {"final_logit_softcapping": 3.0, "tie_word_embeddings": True}, native=False, tokenizer="gemma"
    ),
}


def write_language(folder: Path, language: Language, llama_dir: Path) -> Path:
    """Write a language model of two blocks and its tokenizer; `llama_dir` has the Llama-like one."""
    tokenizer = {
        "llama": lambda: AutoTokenizer.from_pretrained(llama_dir),
        "phi3": lambda: make_phi3_tokenizer(llama_dir),
        "qwen": make_qwen_tokenizer,
        "gemma": make_gemma_tokenizer,
    }[language.tokenizer]()
    tokenizer.save_pretrained(folder)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }
    if language.model_type != "phi3":  # which has none of its own
        sizes["head_dim"] = 8
    config = AutoConfig.for_model(language.model_type, **{**sizes, **language.config})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_phi3_tokenizer(llama_dir: Path) -> PreTrainedTokenizerBase:
    """Llama's with tokens for the turns, as Phi-3's."""
    tokenizer = AutoTokenizer.from_pretrained(llama_dir)
    tokenizer.add_tokens(special_tokens("<|system|>", "<|user|>", "<|end|>", "<|assistant|>"))
    return tokenizer


def make_qwen_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE as Qwen's: no BOS, no UNK, its own padding token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = ["A chat between a curious user and an artificial intelligence assistant.", "USER: What is it? ASSISTANT:"]
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(texts * 20, trainer)
    learnt = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
    )
    tokenizer.add_tokens(special_tokens("<|im_start|>", "</s>"))
    return tokenizer


def make_gemma_tokenizer() -> PreTrainedTokenizerBase:
    """Letters and bytes as Gemma's tokenizer has them: BOS, no space put before the first piece."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256)), "▁"]
    pieces += [chr(i) for i in range(33, 127)]
    tokenizer = GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.add_tokens(special_tokens("<start_of_turn>", "<end_of_turn>", "</s>"))
    return tokenizer


def special_tokens(*names: str) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 8,
    "initializer_range": 0.2,
}
_TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
}
# By model_type; the tile is 32 pixels, 16 patches, for all: DINOv2 was made for another size and interpolates.
TOWER_CONFIGS: dict[str, dict[str, Any]] = {
    "siglip_vision_model": {**_VISION, "intermediate_size": 48, "image_size": 32},
    "siglip": {"vision_config": {**_VISION, "intermediate_size": 48, "image_size": 32}, "text_config": _TEXT},
    "dinov2": {**_VISION, "image_size": 48},
}


def write_tower(folder: Path, model_type: str, **changes: Any) -> PreTrainedModel:
    """Write a vision tower of three blocks for tiles of 32 pixels, and what its pictures are; return it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **{**TOWER_CONFIGS[model_type], **changes})
        model = AutoModel.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # so that norms and biases show
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return model
