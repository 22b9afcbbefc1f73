"""llama.cpp itself on our files: our tokens, our patches, our logits, our answer. Needs `pip install llama-cpp-python`.

It builds llama.cpp, which takes a while; without it these tests are skipped. Caches are in fp32 here.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from llava_lite.checkpoint.gguf_format import write_gguf
from llava_lite.checkpoint.gguf_tokenizer import llama_cpp_template
from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation, Image
from llava_lite.example import Example
from llava_lite.models.llava import Llava
from llava_lite.models.vision_tower import VisionTower
from llava_lite.processor import Processor
from tests.checkpoint.test_chat_template import CONVERSATIONS, messages_of
from tests.checkpoint.test_gguf import make_model
from tests.families import LANGUAGES, write_language, write_tower

llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
mtmd = pytest.importorskip("llama_cpp.mtmd_cpp")
SILENT = llama_cpp.llama_log_callback(lambda *_: None)

NO_WINDOW = {
    "mistral": {"sliding_window": None},
    "phi3": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
}
"""llama.cpp has windows for Gemma only; of others the first window is exact, which is all there is here."""
PICTURE = PilImage.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
"""Of the tower's size: pixels are then the same, as neither side resizes."""


class Reader:
    """A model as llama.cpp runs it."""

    def __init__(self, language: Path, vision: Path) -> None:
        settings = {"n_ctx": 1024, "n_threads": 1, "type_k": 0, "type_v": 0, "flash_attn": False, "verbose": False}
        self.llama = llama_cpp.Llama(str(language), logits_all=True, **settings)
        mtmd.mtmd_log_set(SILENT, None)
        options = mtmd.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings = False, 1, False
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.mtmd = mtmd.mtmd_init_from_file(str(vision).encode(), self.llama.model, options)
        assert self.mtmd

    def logits(self, ids: list[int]) -> np.ndarray:
        """Return the logits behind each token: [T, V]."""
        self.llama.reset()
        self.llama.eval(ids)
        return np.array(self.llama.scores[: len(ids)])

    def chunks(self, text: str, pictures: list[PilImage.Image]) -> Any:
        """Cut a prompt up at its marks."""
        written = mtmd.mtmd_input_text()
        written.text, written.text_len = text.encode(), len(text.encode())
        written.add_special = written.parse_special = True
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * len(pictures))(
            *(
                mtmd.mtmd_bitmap_init(*picture.size, (ctypes.c_uint8 * len(picture.tobytes()))(*picture.tobytes()))
                for picture in pictures
            )
        )
        chunks = mtmd.mtmd_input_chunks_init()
        assert mtmd.mtmd_tokenize(self.mtmd, chunks, ctypes.byref(written), bitmaps, len(bitmaps)) == 0
        return chunks

    def each(self, chunks: Any) -> Iterator[tuple[Any, bool]]:
        """Yield each chunk, and whether it is text."""
        for i in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, i)
            yield chunk, mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT

    def ids(self, chunks: Any, image_token_id: int) -> list[int]:
        """Return a prompt's tokens, images' places as we hold them."""
        ids: list[int] = []
        for chunk, is_text in self.each(chunks):
            count = ctypes.c_size_t()
            if is_text:
                tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                ids += [tokens[j] for j in range(count.value)]
            else:
                ids += [image_token_id] * mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        return ids

    def patches(self, chunks: Any) -> np.ndarray:
        """Return the projected patches of the only image: [P, D]."""
        (image,) = (chunk for chunk, is_text in self.each(chunks) if not is_text)
        assert mtmd.mtmd_encode_chunk(self.mtmd, image) == 0
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(image), self.llama.n_embd())
        return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self.mtmd), shape).copy()

    def last_logits(self, chunks: Any) -> np.ndarray:
        """Return the logits behind a whole prompt: [V]."""
        self.llama.reset()
        self.llama._ctx.kv_cache_clear()
        context, position = self.llama._ctx.ctx, llama_cpp.llama_pos(0)
        result = mtmd.mtmd_helper_eval_chunks(
            self.mtmd, context, chunks, 0, 0, self.llama.n_batch, True, ctypes.byref(position)
        )
        assert result == 0
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (self.llama.n_vocab(),)).copy()


@pytest.fixture(params=LANGUAGES, scope="module")
def both(request, clip_dir: Path, lm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model here and there, with LLaVA-1.5's template."""
    language = LANGUAGES[request.param]
    language = replace(language, config={**language.config, **NO_WINDOW.get(request.param, {})})
    folder = write_language(tmp_path_factory.mktemp("lm"), language, lm_dir)
    return here_and_there(clip_dir, folder, tmp_path_factory.mktemp("gguf"))


def here_and_there(tower: Path, language: Path, folder: Path) -> tuple[Llava, Processor, Reader]:
    model, processor = make_model(tower, language, template="vicuna_v1")
    return model.eval(), processor, Reader(*write_gguf(folder, model, processor, dtype="f32"))


def tolerance(model: Llava) -> float:
    """llama.cpp looks GELU up in a table of fp16, in Gemma's MLPs as in all projectors."""
    return 5e-3 if model.language_model.config.model_type.startswith("gemma") else 1e-4


def test_text_gives_the_same_logits(both: tuple[Llava, Processor, Reader]) -> None:
    model, _, reader = both
    compare_text(model, reader)


@torch.no_grad()
def compare_text(model: Llava, reader: Reader) -> None:
    last = model.language_model.config.vocab_size - 10
    ids = torch.randint(5, last, (1, 60), generator=torch.Generator().manual_seed(0))
    ours = model.language_model(input_ids=ids, use_cache=False).logits[0]
    theirs = torch.from_numpy(reader.logits(ids[0].tolist()))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=tolerance(model))


THETA = {"rope_theta": 10000.0, "original_max_position_embeddings": 32}
STRETCHED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama linear": ("llama", {"rope_type": "linear", "factor": 4.0}),
    "llama yarn": ("llama", {"rope_type": "yarn", "factor": 4.0}),
    "llama llama3": ("llama", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    "qwen2 yarn": ("qwen2", {"rope_type": "yarn", "factor": 4.0}),
    "qwen3 yarn": ("qwen3", {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0}),
    "phi3 partly": ("phi3", {"rope_type": "default", "partial_rotary_factor": 0.5}),
    "phi3 longrope": (
        "phi3",
        {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]},
    ),
    "gemma3_text linear": (
        "gemma3_text",
        {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}


@pytest.mark.parametrize("name", STRETCHED)
def test_stretched_positions_give_the_same_logits(name: str, clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    family, rope = STRETCHED[name]
    config = {**LANGUAGES[family].config, **NO_WINDOW.get(family, {})}
    config["rope_parameters"] = rope if "full_attention" in rope else THETA | rope
    if family == "phi3":
        config["original_max_position_embeddings"] = 1024  # llama.cpp takes the long factors in a longer context
    (tmp_path / "gguf").mkdir()
    folder = write_language(tmp_path / "lm", replace(LANGUAGES[family], config=config), lm_dir)
    model, _, reader = here_and_there(clip_dir, folder, tmp_path / "gguf")
    compare_text(model, reader)


def prompt(processor: Processor, conversation: Conversation) -> tuple[str, list[PilImage.Image]]:
    """Write a conversation as llama.cpp's programs do, with the template in the file."""
    messages = messages_of(conversation)
    for message in messages:
        parts: Any = message["content"]
        message["content"] = "".join(part.get("text", "<__media__>") for part in parts)
    text = processor.tokenizer.apply_chat_template(
        messages, chat_template=llama_cpp_template(processor), tokenize=False, add_generation_prompt=True
    )
    return str(text), [PICTURE for message in conversation.messages for _ in message.images]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_gives_the_same_tokens(both: tuple[Llava, Processor, Reader], name: str) -> None:
    _, processor, reader = both
    conversation = CONVERSATIONS[name]
    chunks = reader.chunks(*prompt(processor, conversation))
    assert reader.ids(chunks, processor.image_token_id) == processor.encode(conversation).input_ids.tolist()


@pytest.mark.parametrize("kind", ["vicuna", "legacy"])
def test_a_conversation_gives_the_same_tokens_with_a_sentencepiece_tokenizer(
    kind: str, clip_dir: Path, vicuna_dir: Path, legacy_dir: Path, tmp_path: Path
) -> None:
    _, processor, reader = here_and_there(clip_dir, {"vicuna": vicuna_dir, "legacy": legacy_dir}[kind], tmp_path)
    different = []
    for name in ("vicuna_v1", "llama_2", "mistral_instruct", "llava_v0"):
        templated = processor.with_template(find_template(name))
        for talk, conversation in CONVERSATIONS.items():
            ids = reader.ids(reader.chunks(*prompt(templated, conversation)), processor.image_token_id)
            if ids != templated.encode(conversation).input_ids.tolist():
                different.append((name, talk))
    assert different == []


def seen(processor: Processor) -> tuple[Example, tuple[str, list[PilImage.Image]]]:
    conversation = Conversation().ask("What is it?", [Image(PICTURE)])
    return processor.encode(conversation), prompt(processor, conversation)


@torch.no_grad()
def test_a_picture_gives_the_same_patches_and_the_same_logits(both: tuple[Llava, Processor, Reader]) -> None:
    compare_picture(*both)


@torch.no_grad()
def test_a_siglip_picture_gives_the_same_patches_and_the_same_logits(lm_dir: Path, tmp_path: Path) -> None:
    write_tower(tmp_path / "tower", "siglip_vision_model")
    (tmp_path / "gguf").mkdir()
    compare_picture(*here_and_there(tmp_path / "tower", lm_dir, tmp_path / "gguf"))


def compare_picture(model: Llava, processor: Processor, reader: Reader) -> None:
    """Compare the patches of a picture, and the logits that a language model has behind them."""
    example, written = seen(processor)
    chunks = reader.chunks(*written)
    assert model.vision_tower is not None and model.projector is not None
    features = model.vision_tower(example.pixel_values)
    config = model.language_model.config
    scale = config.hidden_size**0.5 if config.model_type in ("gemma", "gemma2") else 1  # which it multiplies by later
    theirs = torch.from_numpy(reader.patches(chunks)) * scale
    patches = model.projector(features)
    if model.vision_tower.family.num_prefix_tokens and (theirs - patches).abs().max() > 0.1:
        patches = model.projector(class_token_last(model.vision_tower, example.pixel_values))
    torch.testing.assert_close(theirs, patches, rtol=0, atol=1e-2)
    embeds = model.language_model.get_input_embeddings()(example.input_ids)
    embeds[example.input_ids == model.image_token_id] = patches
    logits = model.language_model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
    torch.testing.assert_close(torch.from_numpy(reader.last_logits(chunks)), logits, rtol=0, atol=2e-2)


def class_token_last(tower: VisionTower, pixel_values: torch.Tensor) -> torch.Tensor:
    """What llama.cpp computes instead since its PR 13321 (its issue 25814; PR 25844 mends it).

    The class token stands behind the patches, but positions and choice are as if it stood in front: each patch has its
    neighbour's position, the first one is lost, and the class token is the last.
    """
    model: Any = tower.model
    parts = model.embeddings
    patches = parts.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    hidden = (
        torch.cat([patches, parts.class_embedding.expand(len(patches), 1, -1)], 1) + parts.position_embedding.weight
    )
    return model.encoder(inputs_embeds=model.pre_layrnorm(hidden)).last_hidden_state[:, 1:]
