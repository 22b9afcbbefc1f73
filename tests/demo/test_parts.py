"""The demo's parts open with plain transformers and have the layout of the models they stand for."""

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer, CLIPModel, CLIPVisionModel, LlamaForCausalLM, PreTrainedTokenizerBase

from llava_lite.demo.parts import read_texts, write_clip, write_language_model
from llava_lite.demo.world import write_world


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_world(folder / "world", num_scenes=20, num_test_scenes=8, questions_per_kind=2, pope_scenes=3)
    write_language_model(
        folder / "lm", folder / "world", hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64
    )
    write_clip(folder / "clip", folder / "world", image_size=32, hidden_size=32, num_layers=2, num_heads=2)
    return folder


@pytest.fixture(scope="module")
def tokenizer(parts: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(parts / "lm")


def test_tokenizer_is_shaped_like_vicunas(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token is None
    assert "<image>" not in tokenizer.get_vocab()
    assert tokenizer.convert_tokens_to_ids("<0x0A>") == 3 + 10
    assert tokenizer("red").input_ids[0] == 1


def test_words_that_matter_and_roles_are_one_piece(tokenizer: PreTrainedTokenizerBase) -> None:
    text = " The object at the top left is red.</s>USER: Is there a blue square? ASSISTANT: yes"
    pieces = tokenizer.tokenize(text)
    assert {"▁top▁left", "▁red", "USER:", "▁blue", "▁square", "▁ASSISTANT:", "▁yes", "</s>"} <= set(pieces)


def test_fast_tokenizer_equals_sentencepiece(parts: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(parts / "lm" / "tokenizer.model"))
    texts = [*read_texts(parts / "world"), "words of é another 42 world\n\n"]
    assert [tokenizer.encode(text, add_special_tokens=False) for text in texts] == reference.encode(texts)


def test_texts_survive_the_tokenizer(parts: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    for text in read_texts(parts / "world"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_language_model_opens_and_speaks(parts: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = LlamaForCausalLM.from_pretrained(parts / "lm")
    assert model.config.model_type == "llama" and model.config.pad_token_id is None
    assert model.config.vocab_size == len(tokenizer)
    reply = model.generate(**tokenizer("Where is", return_tensors="pt", return_token_type_ids=False), max_new_tokens=3)
    assert reply.shape[1] <= 6


def test_clip_opens_whole_and_as_a_tower(parts: Path) -> None:
    assert json.loads((parts / "clip" / "config.json").read_text())["model_type"] == "clip"
    clip, tower = CLIPModel.from_pretrained(parts / "clip"), CLIPVisionModel.from_pretrained(parts / "clip")
    pixel_values = torch.rand(2, 3, 32, 32)
    expected = clip.vision_model(pixel_values).last_hidden_state
    torch.testing.assert_close(tower(pixel_values).last_hidden_state, expected)
    processor = json.loads((parts / "clip" / "preprocessor_config.json").read_text())
    assert processor["crop_size"] == {"height": 32, "width": 32}


def test_clip_pools_text_alike_for_old_and_new_configs(parts: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(parts / "clip")
    clip = CLIPModel.from_pretrained(parts / "clip")
    batch = tokenizer(["a red circle", "red"], padding=True, return_tensors="pt")
    assert batch.input_ids.max() == tokenizer.eos_token_id == len(tokenizer) - 1
    pooled = clip.text_model(**batch).pooler_output
    clip.text_model.eos_token_id = 2  # openai's configs say so: transformers then pools at the highest id
    torch.testing.assert_close(clip.text_model(**batch).pooler_output, pooled, rtol=0, atol=0)


def test_clip_words_are_one_piece(parts: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(parts / "clip")
    assert tokenizer.tokenize("a red circle") == ["a</w>", "red</w>", "circle</w>"]


def test_same_seed_gives_same_weights(parts: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64}
    write_language_model(tmp_path / "lm", parts / "world", **sizes)
    assert (tmp_path / "lm" / "model.safetensors").read_bytes() == (parts / "lm" / "model.safetensors").read_bytes()
    assert (tmp_path / "lm" / "tokenizer.model").read_bytes() == (parts / "lm" / "tokenizer.model").read_bytes()
    assert torch.equal(torch.get_rng_state(), state)


def test_same_seed_gives_the_same_clip(parts: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):  # the trainer underneath numbers some letters anew each time
        write_clip(tmp_path / name, parts / "world", image_size=32, hidden_size=32, num_layers=2, num_heads=2)
        for file in ("model.safetensors", "tokenizer.json"):
            assert (tmp_path / name / file).read_bytes() == (parts / "clip" / file).read_bytes()
