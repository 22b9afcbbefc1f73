"""Tiny real parts for all tests: a small demo world, and ordinary Hugging Face folders trained on nothing."""

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llava_lite.checkpoint.folder import save
from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.conversation.families import find_template
from llava_lite.demo.parts import write_clip, write_language_model
from llava_lite.demo.world import write_world
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor, prepare_tokenizer


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo world of twenty scenes."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, seed=0, num_scenes=20, num_test_scenes=8, questions_per_kind=2, pope_scenes=2)
    return folder


@pytest.fixture(scope="session")
def clip_dir(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP folder laid out as openai/clip-vit-large-patch14-336 is: 32 px, 16 patches, three blocks."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder, world, image_size=32, patch_size=8, hidden_size=32, num_layers=3, num_heads=2)
    return folder


@pytest.fixture(scope="session")
def lm_dir(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama folder with the world's tokenizer."""
    folder = tmp_path_factory.mktemp("lm")
    write_language_model(folder, world, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48)
    return folder


@pytest.fixture(scope="session")
def vicuna_dir(lm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Vicuna-shaped folder: only a sentencepiece tokenizer.model, no `<image>`, no pad token, `legacy: false`."""
    return write_vicuna(tmp_path_factory.mktemp("vicuna"), lm_dir, legacy=False)


def write_vicuna(folder: Path, lm_dir: Path, *, legacy: bool) -> Path:
    """Lay a language model out as lmsys/vicuna-7b-v1.5 is, with BPE, so that words fall into several pieces."""
    text = folder / "text.txt"
    words = [
        f"the {color} {shape} USER: ASSISTANT: what is left of it?"
        for color in ("red", "blue")
        for shape in ("cat", "dog")
    ]
    text.write_text(
        "\n".join(words * 50 + ["A chat between a curious user and an artificial intelligence assistant."] * 20)
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    text.unlink()
    (folder / "tokenizer.vocab").unlink()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": legacy,
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((lm_dir / "config.json").read_text())
    config |= {"vocab_size": 340, "pad_token_id": None}
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
    return folder


ROW_TOKENS = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
)
"""The special tokens of all rows of the table of templates."""


def row_tokenizer(kind: str, folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that has every row's special tokens: of the Vicuna-shaped folder, or over bytes alone as Qwen's."""
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(["Human: A\nassistant\n\nQ ###"] * 9, trainer)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    else:
        fast = load_tokenizer(str(folder))
    fast.add_tokens([AddedToken(token, special=True, normalized=False) for token in ROW_TOKENS])
    return fast


@pytest.fixture(scope="session")
def legacy_dir(lm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vicuna as it was published: `legacy: true`, a prefix space after every special token."""
    return write_vicuna(tmp_path_factory.mktemp("legacy"), lm_dir, legacy=True)


@pytest.fixture(scope="session", params=["bytes", "vicuna", "legacy"])
def row_processor(request: pytest.FixtureRequest, clip_dir: Path, vicuna_dir: Path, legacy_dir: Path) -> Processor:
    """A processor that can take any row's template, of 16 visual tokens an image."""
    tokenizer = row_tokenizer(request.param, legacy_dir if request.param == "legacy" else vicuna_dir)
    bos = prepare_tokenizer(tokenizer, image=True)
    return Processor(tokenizer, find_template("vicuna_v1"), ImageTransform.from_tower(clip_dir, "pad"), 16, bos)


@pytest.fixture(scope="session")
def parts(clip_dir: Path, lm_dir: Path) -> Parts:
    return Parts(str(clip_dir), str(lm_dir))


@pytest.fixture
def llava(parts: Parts) -> tuple[Llava, Processor]:
    """A freshly assembled model in fp32, and its processor."""
    return assemble_lively(parts)


@pytest.fixture(scope="session")
def llava_dir(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole native checkpoint."""
    folder = tmp_path_factory.mktemp("llava")
    save(folder, *assemble_lively(parts))
    return folder


def assemble_lively(parts: Parts) -> tuple[Llava, Processor]:
    """Assemble with weights large enough that images and words change the logits visibly, and EOS is not the first."""
    torch.manual_seed(0)
    model, processor = assemble(parts, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.projector.parameters():
            parameter.mul_(4)
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(2 if "embed" not in name else 1)
    return model.eval(), processor
