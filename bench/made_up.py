"""What the benches feed on, all made up: records with lengths like LLaVA-1.5's mixture, pictures, a
tokenizer, a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PilImage
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava_lite.checkpoint.folder import save
from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.conversation.families import find_template, record_template

NUM_PIECES = 3000


def lengths_like_llava(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of text of so many samples, and whether each has an image: int32 [n], bool [n].

    With 576 visual tokens an image they are 848 tokens on average, 64 % of them the images'; one in sixteen is text
    alone, and long.
    """
    shares = {
        "158k": (0.237, 270),
        "vqa": (0.305, 165),
        "gqa_vg": (0.238, 400),
        "ocr": (0.159, 180),
        "text": (0.061, 1200),
    }
    kinds = generator.choice(len(shares), size=count, p=[share for share, _ in shares.values()])
    means = np.array([mean for _, mean in shares.values()])
    text = np.clip(generator.lognormal(np.log(means[kinds]) - 0.18, 0.6), 50, 2048).astype(np.int32)
    return text, kinds != 4


def write_pictures(folder: Path, count: int, size: tuple[int, int], generator: np.random.Generator) -> None:
    """Write JPEG files of smooth noise: 000000000000.jpg, ..."""
    for number in range(count):
        noise = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        PilImage.fromarray(noise).resize(size, PilImage.Resampling.BICUBIC).save(folder / f"{number:012}.jpg")


def write_records(
    path: Path,
    num_words: np.ndarray,
    image: np.ndarray,
    *,
    num_pictures: int,
    question: int,
    answer: int,
    generator: np.random.Generator,
) -> None:
    """Write LLaVA-like JSON: record i says about `num_words[i]` words, and shows one of the pictures if `image[i]`.

    question, answer: words of a turn before the answer, and at most of the answer (without an image: 400).
    """
    words = vocabulary()
    pool = generator.zipf(1.3, 2_000_000) % len(words)
    at = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(len(num_words)):
            file.write("[" if number == 0 else ",\n")
            turns: list[dict[str, str]] = []
            left = int(num_words[number])
            while left > 0 or not turns:
                learnt = min(max(left - question, 4), answer if image[number] else 400)
                if at + question + learnt > len(pool):
                    at = 0
                said = " ".join(words[i] for i in pool[at : at + question + learnt])
                mark = "<image>\n" if image[number] and not turns else ""
                cut = said.find(" ", len(said) // 4)
                turns += [{"from": "human", "value": mark + said[:cut]}, {"from": "gpt", "value": said[cut + 1 :]}]
                at, left = at + question + learnt, left - question - learnt
            own = {"image": f"{number % num_pictures:012}.jpg"} if image[number] else {}
            json.dump({"id": f"{number:012}", **own, "conversations": turns}, file)
        file.write("]")


def vocabulary() -> list[str]:
    """Made-up words, the frequent ones short."""
    generator = np.random.default_rng(2)
    parts = [a + b for a in "bcdfglmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou")]
    return ["".join(generator.choice(parts, size=1 + min(3, rank // 300))) for rank in range(4000)]


def write_tokenizer(folder: Path) -> None:
    """Train a BPE tokenizer of NUM_PIECES on the words, laid out as Vicuna's."""
    import sentencepiece

    words, generator = vocabulary(), np.random.default_rng(3)
    corpus = folder / "corpus.txt"
    texts = (" ".join(words[i] for i in generator.zipf(1.3, 60) % len(words)) for _ in range(20_000))
    corpus.write_text("\n".join(f"USER: {text} ASSISTANT:" for text in texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=NUM_PIECES,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<unk>"}))


def write_model(
    folder: Path, *, tile: int, tower_size: int, tower_layers: int, hidden_size: int, num_layers: int, vocabulary: int
) -> Path:
    """Write a whole model with random weights as a native checkpoint: a CLIP of patches of 14, a Llama.

    Vicuna's template without its system prompt, which would be as long as all the rest of a short sample.
    """
    tower, lm = folder / "tower", folder / "lm"
    vision = CLIPVisionConfig(
        hidden_size=tower_size,
        intermediate_size=4 * tower_size,
        num_hidden_layers=tower_layers,
        num_attention_heads=4,
        image_size=tile,
        patch_size=14,
    )
    torch.manual_seed(0)
    CLIPVisionModel(vision).save_pretrained(tower)
    CLIPImageProcessorPil(size={"shortest_edge": tile}, crop_size=tile).save_pretrained(tower)
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, hidden_size // 64),
        pad_token_id=None,
    )
    LlamaForCausalLM(text).save_pretrained(lm)
    write_tokenizer(lm)
    template = replace(find_template("vicuna_v1"), system="", system_text="")
    parts = Parts(str(tower), str(lm), image_mode="pad", template=record_template(template))
    save(folder / "model", *assemble(parts, dtype=torch.float32))
    return folder / "model"
