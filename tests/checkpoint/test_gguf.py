"""What llama.cpp reads is what we have: weights, numbers, tokens, template. What it computes otherwise is refused."""

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from jinja2 import Environment, nodes
from tokenizers import AddedToken, Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from llava_lite.checkpoint.folder import load_processor
from llava_lite.checkpoint.gguf_format import write_gguf
from llava_lite.checkpoint.gguf_tokenizer import llama_cpp_template
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble
from llava_lite.conversation.families import find_template
from llava_lite.models.language_model import fit_embeddings, load_tokenizer
from llava_lite.models.llava import Llava
from llava_lite.models.projector import make_projector
from llava_lite.processor import Processor
from tests.checkpoint.test_chat_template import CONVERSATIONS, exported_text, messages_of
from tests.families import LANGUAGES, WINDOW, write_language, write_tower
from tests.foreign import write_foreign


@dataclass(frozen=True)
class Exported:
    """A model and its two files, in fp32."""

    name: str
    model: Llava
    processor: Processor
    language: gguf.GGUFReader
    vision: gguf.GGUFReader

    @property
    def config(self) -> Any:
        return self.model.language_model.config


@pytest.fixture(params=LANGUAGES, scope="module")
def exported(request, clip_dir: Path, lm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = write_language(tmp_path_factory.mktemp("lm"), LANGUAGES[request.param], lm_dir)
    model, processor = make_model(clip_dir, folder)
    language, vision = write_gguf(tmp_path_factory.mktemp("gguf"), model, processor, dtype="f32")
    return Exported(request.param, model, processor, gguf.GGUFReader(language), gguf.GGUFReader(vision))


def make_model(tower: Path, language: Path, **options: Any) -> tuple[Llava, Processor]:
    """A model whose weights are all different, norms and biases too."""
    torch.manual_seed(0)
    model, processor = assemble(Parts(str(tower), str(language), **options), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, processor


@pytest.fixture
def made(clip_dir: Path, lm_dir: Path) -> tuple[Llava, Processor]:
    return make_model(clip_dir, lm_dir)


def weights(reader: gguf.GGUFReader) -> dict[str, torch.Tensor]:
    """All tensors of a file in fp32, in torch's order of sizes."""
    return {
        tensor.name: torch.from_numpy(
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape.tolist()[::-1]).copy()
        )
        for tensor in reader.tensors
    }


def numbers(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


# transformers' names -> llama.cpp's, as its documents and its loader (src/llama-arch.cpp, clip-impl.h) spell them
LANGUAGE_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SANDWICH_NAMES = {  # Gemma 2 and 3 have norms behind their parts as well
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TOWER_NAMES = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding": "v.patch_embd",
    "embeddings.position_embedding": "v.position_embd",
    "pre_layrnorm": "v.pre_ln",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


def their_name(name: str, layers: str, block: str, names: dict[str, str]) -> str:
    """`model.layers.0.mlp.up_proj.weight` -> `blk.0.ffn_up.weight`."""
    place, dot, end = name.rpartition(".")
    if name in names:
        return names[name]
    if not place.startswith(layers):
        return names[place] + dot + end
    number, _, part = place.removeprefix(layers).partition(".")
    return f"{block}.{number}.{names[part]}.{end}"


def neighbours(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of each head as llama.cpp rotates them: x0 and x(n/2), which rotate together, are neighbours."""
    size = len(weight) // num_heads
    rows = [
        head * size + half * size // 2 + i for head in range(num_heads) for i in range(size // 2) for half in (0, 1)
    ]
    return weight[rows]


def test_every_weight_of_the_language_model_is_in_its_file_once(exported: Exported) -> None:
    config, model_type = exported.config, exported.config.model_type
    names = LANGUAGE_NAMES | (SANDWICH_NAMES if model_type in ("gemma2", "gemma3_text") else {})
    expected = {}
    for name, weight in exported.model.language_model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if model_type in ("llama", "mistral") and ".q_proj." in name:
            weight = neighbours(weight, config.num_attention_heads)
        if model_type in ("llama", "mistral") and ".k_proj." in name:
            weight = neighbours(weight, config.num_key_value_heads)
        if model_type.startswith("gemma") and "norm" in name:
            weight = weight + 1
        if (model_type == "gemma2" and "q_proj" in name) or (model_type == "gemma3_text" and "q_norm" in name):
            weight = weight * math.sqrt(config.head_dim) / math.sqrt(config.query_pre_attn_scalar)
        expected[their_name(name, "model.layers.", "blk", names)] = weight
    assert_same(weights(exported.language), expected)


def test_every_weight_of_tower_and_projector_is_in_their_file_once(exported: Exported) -> None:
    assert_same(weights(exported.vision), expected_vision(exported.model))


def expected_vision(model: Llava) -> dict[str, torch.Tensor]:
    assert model.vision_tower is not None and model.projector is not None
    expected = {
        their_name(name, "encoder.layers.", "v.blk", TOWER_NAMES): weight
        for name, weight in model.vision_tower.model.state_dict().items()
        if not name.startswith("post_layernorm")
    }
    config = model.language_model.config
    scale = math.sqrt(config.hidden_size) if config.model_type in ("gemma", "gemma2") else 1
    for name, weight in model.projector.state_dict().items():
        expected[f"mm.{name}"] = weight / scale if name in ("2.weight", "2.bias") else weight
    return expected


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(
            found[name], weight, rtol=1e-6, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


ARCHS = {"mistral": "llama", "gemma3_text": "gemma3"}


def test_the_numbers_of_the_language_model_are_its_configs(exported: Exported) -> None:
    config, found = exported.config, numbers(exported.language)
    arch = ARCHS.get(config.model_type, config.model_type)
    head_size = config.hidden_size // config.num_attention_heads
    assert found["general.architecture"] == arch
    expected = {
        "block_count": 2,
        "embedding_length": 32,
        "feed_forward_length": 48,
        "vocab_size": config.vocab_size,
        "context_length": 2048,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "attention.layer_norm_rms_epsilon": pytest.approx(config.rms_norm_eps),
        "rope.dimension_count": head_size,
        "rope.freq_base": 10000.0,
    }
    caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    windows = {"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": [True, False]}
    wide = {"attention.sliding_window": 4096, "attention.sliding_window_pattern": [True, True]}
    two_bases = {"rope.freq_base": 1000000.0, "rope.freq_base_swa": 10000.0}
    expected |= {
        "mistral": {"context_length": WINDOW},  # llama.cpp lets it see farther than its window
        "qwen2": {"context_length": WINDOW},
        "phi3": {"context_length": WINDOW},
        "gemma2": caps | windows,
        "gemma3_text": two_bases | windows,
        "gemma3_text that soft-caps": two_bases | wide | {"final_logit_softcapping": 3.0},
    }.get(exported.name, {})
    assert {
        key.removeprefix(f"{arch}."): value for key, value in found.items() if key.startswith(f"{arch}.")
    } == expected


def test_the_numbers_of_the_tower_are_its_configs(exported: Exported) -> None:
    found = numbers(exported.vision)
    assert {name: value for name, value in found.items() if name.startswith(("clip.", "general."))} == {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": False,
        "clip.vision.projection_dim": 32,
        "clip.vision.image_size": 32,
        "clip.vision.patch_size": 8,
        "clip.vision.embedding_length": 32,
        "clip.vision.feed_forward_length": 128,
        "clip.vision.block_count": 2,  # of three: LLaVA's layer -2
        "clip.vision.feature_layer": [2],
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": pytest.approx(1e-5),
        "clip.vision.image_mean": pytest.approx([0.48145466, 0.4578275, 0.40821073]),
        "clip.vision.image_std": pytest.approx([0.26862954, 0.26130258, 0.27577711]),
    }


def test_tokens_stand_at_their_numbers_with_their_kinds(exported: Exported) -> None:
    found, tokenizer = numbers(exported.language), exported.processor.tokenizer
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert len(tokens) == exported.config.vocab_size
    vocabulary = tokenizer.get_vocab()
    assert {token: tokens.index(token) for token in vocabulary} == vocabulary
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert {number for number, kind in enumerate(types) if kind in (2, 3)} == special  # unknown, control
    pieces = found["tokenizer.ggml.model"] == "llama"
    assert types.count(6) == (256 if pieces else 0)
    for key, number in {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "padding": tokenizer.pad_token_id,
        "unknown": tokenizer.unk_token_id,
        "eot": exported.processor.end_token_id,
    }.items():
        assert found.get(f"tokenizer.ggml.{key}_token_id") == number
    assert found["tokenizer.ggml.add_bos_token"] is False  # the template writes it
    assert found["tokenizer.ggml.suppress_tokens"] == [exported.processor.image_token_id]


@pytest.fixture(params=["lm", "vicuna", "legacy"])
def pieces(request, lm_dir: Path, vicuna_dir: Path, legacy_dir: Path, clip_dir: Path, tmp_path: Path) -> Any:
    """A processor with a sentencepiece-like tokenizer, and the numbers of its file."""
    folder = {"lm": lm_dir, "vicuna": vicuna_dir, "legacy": legacy_dir}[request.param]
    model, processor = make_model(clip_dir, folder)
    return processor, numbers(gguf.GGUFReader(write_gguf(tmp_path, model, processor)[0]))


def test_merging_by_scores_gives_the_tokenizers_tokens(pieces: Any) -> None:
    processor, found = pieces
    for text in TEXTS:
        ours = processor.tokenizer.encode(text, add_special_tokens=False)
        assert merge_by_score("▁" + text.replace(" ", "▁"), found) == ours


TEXTS = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "USER: what is left of the red cat?\nhelpful, detailed, and polite  answers ASSISTANT:",
    "aaaa bbbb 1234 élan 图 \t\t x",
)


def merge_by_score(text: str, found: dict[str, Any]) -> list[int]:
    """llama.cpp's own way (llm_tokenizer_spm): join the two neighbours of the highest score, the first among equals."""
    tokens = {token: number for number, token in enumerate(found["tokenizer.ggml.tokens"])}
    scores = found["tokenizer.ggml.scores"]
    parts = list(text)
    while pairs := [(-scores[tokens[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in tokens]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [
        number
        for part in parts
        for number in ([tokens[part]] if part in tokens else [tokens[f"<0x{byte:02X}>"] for byte in part.encode()])
    ]


def test_the_space_in_front_is_llama_cpps_where_it_stands_behind_every_special_token(pieces: Any) -> None:
    processor, found = pieces
    after_end = processor.tokenizer.encode("</s>a", add_special_tokens=False)
    everywhere = processor.tokenizer.convert_ids_to_tokens(after_end)[1].startswith("▁")
    assert found["tokenizer.ggml.add_space_prefix"] is everywhere
    text = written(processor, [{"role": "user", "content": "Q"}])
    assert text.startswith("<s>A chat") if everywhere else text.startswith("<s> A chat")


def written(processor: Processor, messages: list[dict[str, Any]]) -> str:
    template = llama_cpp_template(processor)
    return str(
        processor.tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    )


def test_merges_and_their_kind_are_those_of_a_byte_level_tokenizer(exported: Exported) -> None:
    found = numbers(exported.language)
    if exported.name not in ("qwen2", "qwen3"):
        assert found["tokenizer.ggml.model"] == "llama" and "tokenizer.ggml.merges" not in found
        return
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    tokens = found["tokenizer.ggml.tokens"]
    assert len(found["tokenizer.ggml.merges"]) == 66
    assert {merge.replace(" ", "") for merge in found["tokenizer.ggml.merges"]} <= set(tokens)
    assert found["tokenizer.ggml.merges"][0] == "Ġ a"


@pytest.mark.parametrize("mark", ["<__media__>", "<__media_Xy7_a__>"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_template_writes_our_text_with_llama_cpps_marks(row_processor: Processor, name: str, mark: str) -> None:
    processor = row_processor.with_template(find_template("vicuna_v1"))
    conversation = CONVERSATIONS[name]
    messages = messages_of(conversation)
    for message in messages:  # llama.cpp joins a message that shows images to one text
        parts = message["content"]
        message["content"] = "".join(part.get("text", mark) for part in parts)  # type: ignore[attr-defined]
    ours = exported_text(processor, conversation).replace("<image>", mark)
    if (theirs := written(processor, messages)).startswith("<s>A"):  # there llama.cpp writes these spaces
        ours = ours.replace("<s> ", "<s>").replace(f"{mark} ", mark)
    assert theirs == ours


def test_the_template_takes_parts_as_well(row_processor: Processor) -> None:
    for conversation in CONVERSATIONS.values():
        theirs, ours = written(row_processor, messages_of(conversation)), exported_text(row_processor, conversation)
        if theirs.startswith("<s>A"):
            ours = ours.replace("<s> ", "<s>").replace("<image> ", "<image>")
        assert theirs == ours


def test_the_template_has_only_what_llama_cpps_jinja_reads(row_processor: Processor) -> None:
    tree = Environment().parse(llama_cpp_template(row_processor))
    assert not list(tree.find_all(nodes.Tuple))
    calls = [call for call in tree.find_all(nodes.Call) if getattr(call.node, "attr", "") == "startswith"]
    assert calls and all(isinstance(call.args[0], nodes.Name) for call in calls)


@pytest.mark.parametrize(("dtype", "kind"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_matrices_are_rounded_and_all_else_is_not(
    made: tuple[Llava, Processor], tmp_path: Path, dtype: Any, kind: torch.dtype
) -> None:
    exact = [weights(gguf.GGUFReader(path)) for path in write_gguf(tmp_path, *made, dtype="f32")]
    paths = write_gguf(tmp_path, *made, dtype=dtype)
    assert [path.name for path in paths] == [f"model-{dtype}.gguf", f"mmproj-model-{dtype}.gguf"]
    for path, expected in zip(paths, exact, strict=True):
        reader = gguf.GGUFReader(path)
        for tensor in reader.tensors:
            whole = len(tensor.shape) == 1 or tensor.name == "v.position_embd.weight"
            whole |= tensor.name == "v.patch_embd.weight" and dtype == "bf16"
            assert tensor.tensor_type.name == ("F32" if whole else dtype.upper()), tensor.name
            assert torch.equal(
                weights(reader)[tensor.name],
                expected[tensor.name] if whole else expected[tensor.name].to(kind).float(),
            )


def test_weights_too_large_for_fp16_are_refused(made: tuple[Llava, Processor], tmp_path: Path) -> None:
    with torch.no_grad():
        made[0].language_model.lm_head.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"output\.weight has weights that fp16 does not hold; choose bf16"):
        write_gguf(tmp_path, *made)
    assert write_gguf(tmp_path, *made, dtype="bf16")


def test_a_siglip_model_is_written(lm_dir: Path, tmp_path: Path) -> None:
    write_tower(tmp_path / "tower", "siglip_vision_model")
    model, processor = make_model(tmp_path / "tower", lm_dir)
    reader = gguf.GGUFReader(write_gguf(tmp_path, model, processor, dtype="f32")[1])
    assert_same(weights(reader), expected_vision(model))
    assert numbers(reader)["clip.use_gelu"] is True


def test_a_language_model_alone_is_one_file(lm_dir: Path, tmp_path: Path) -> None:
    model, processor = assemble(Parts(None, str(lm_dir)), dtype=torch.float32)
    (path,) = write_gguf(tmp_path, model, processor)
    assert "tokenizer.ggml.suppress_tokens" not in numbers(gguf.GGUFReader(path))


def rope(**changes: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config.rope_parameters = {"rope_theta": 10000.0, **changes}

    return change


def test_stretched_positions_are_written(made: tuple[Llava, Processor], tmp_path: Path) -> None:
    model, processor = made
    config = model.language_model.config
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    rope(rope_type="llama3", **llama3)(config)
    found = weights(gguf.GGUFReader(write_gguf(tmp_path, model, processor, dtype="f32")[0]))
    turns = 32 / (2 * math.pi * 10000.0 ** (torch.arange(0, 16, 2) / 16))  # 5.1, 1.6, 0.5, ...
    kept = (turns - 1) / (4 - 1)  # 4 turns and more are kept, those of less than one are stretched by 8
    expected = [1.0, float(1 / (kept[1] + (1 - kept[1]) / 8)), *[8.0] * 6]
    assert found["rope_freqs.weight"].tolist() == pytest.approx(expected)
    rope(rope_type="linear", factor=4.0)(config)
    found = numbers(gguf.GGUFReader(write_gguf(tmp_path, model, processor, dtype="f32")[0]))
    assert (found["llama.rope.scaling.type"], found["llama.rope.scaling.factor"]) == ("linear", 4.0)


def test_phi3s_two_sets_of_factors_are_written(clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    folder = write_language(tmp_path / "lm", LANGUAGES["phi3"], lm_dir)
    model, processor = make_model(clip_dir, folder)
    config = model.language_model.config
    config.sliding_window, config.original_max_position_embeddings = None, 512
    short, long = [1.0, 1.5, 2.0, 2.5], [4.0, 5.0, 6.0, 7.0]
    rope(rope_type="longrope", short_factor=short, long_factor=long, original_max_position_embeddings=512)(config)
    reader = gguf.GGUFReader(write_gguf(tmp_path, model, processor, dtype="f32")[0])
    assert weights(reader)["rope_factors_short.weight"].tolist() == short
    assert weights(reader)["rope_factors_long.weight"].tolist() == long
    found = numbers(reader)
    assert found["phi3.context_length"] == found["phi3.rope.scaling.original_context_length"] == 512
    assert found["phi3.rope.scaling.attn_factor"] == pytest.approx(math.sqrt(1 + math.log(2048 / 512) / math.log(512)))


def projector(kind: str) -> Callable[[Llava, Processor], tuple[Llava, Processor]]:
    def change(model: Llava, processor: Processor) -> tuple[Llava, Processor]:
        model.projector = make_projector(kind, 32, 32)
        return model, processor

    return change


def with_config(change: Callable[[Any], None]) -> Callable[[Llava, Processor], tuple[Llava, Processor]]:
    def changed(model: Llava, processor: Processor) -> tuple[Llava, Processor]:
        change(model.language_model.config)
        return model, processor

    return changed


def with_tower(**changes: Any) -> Callable[[Llava, Processor], tuple[Llava, Processor]]:
    def changed(model: Llava, processor: Processor) -> tuple[Llava, Processor]:
        assert model.vision_tower is not None
        for name, value in changes.items():
            setattr(model.vision_tower.model.config, name, value)
        return model, processor

    return changed


def with_mode(mode: str) -> Callable[[Llava, Processor], tuple[Llava, Processor]]:
    return lambda model, processor: (model, processor.with_image_mode(mode))


def with_words(model: Llava, processor: Processor) -> tuple[Llava, Processor]:
    words = Tokenizer(models.WordLevel({"a": 0, "<image>": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=["<image>"])
    return model, replace(processor, tokenizer=tokenizer, template=find_template("llava_v0"), bos=False)


def in_small_letters(model: Llava, processor: Processor) -> tuple[Llava, Processor]:
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase()])
    return model, replace(processor, tokenizer=tokenizer)


REFUSED = {
    "linear": (projector("linear"), "it puts a GELU behind the only layer of projector 'linear'"),
    "one layer": (projector("mlp1x_gelu"), "it puts a GELU behind the only layer"),
    "three layers": (projector("mlp3x_gelu"), "its LLaVA path has no projector 'mlp3x_gelu'; it runs mlp2x_gelu"),
    "shuffle": (projector("shuffle2_mlp2x_gelu"), "no projector 'shuffle2_mlp2x_gelu'"),
    "pool": (projector("pool2_mlp2x_gelu"), "no projector 'pool2_mlp2x_gelu'"),
    "anyres": (with_mode("anyres"), "it lays the tiles of image mode anyres out in another order"),
    "anyres_max": (with_mode("anyres_max_9"), "it lays the tiles of image mode anyres_max_9 out in another order"),
    "relu tower": (with_tower(hidden_act="relu"), "it has no activation relu in a tower"),
    "square MLP": (with_tower(intermediate_size=32), "both matrices swapped"),
    "gelu": (with_config(lambda config: setattr(config, "hidden_act", "gelu")), "its activation is gelu, there it is"),
    "dynamic": (with_config(rope(rope_type="dynamic", factor=2.0)), "rope_type 'dynamic' is not known there"),
    "own yarn": (
        with_config(rope(rope_type="yarn", factor=2.0, attention_factor=1.0)),
        "its yarn sets attention_factor, there they follow from the factor",
    ),
    "words": (with_words, "this is WordLevel with 0 of the bytes, changing text by nothing"),
    "small letters": (in_small_letters, "this is BPE with 256 of the bytes, changing text by Lowercase"),
}


@pytest.mark.parametrize("cell", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    made: tuple[Llava, Processor], tmp_path: Path, cell: str
) -> None:
    change, reason = REFUSED[cell]
    with pytest.raises(CheckpointError, match=r"^GGUF: ") as caught:
        write_gguf(tmp_path, *change(*made))
    assert reason in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_dinov2_tower_is_refused(lm_dir: Path, tmp_path: Path) -> None:
    write_tower(tmp_path / "tower", "dinov2")
    with pytest.raises(CheckpointError, match="knows CLIP and SigLIP towers, not dinov2"):
        write_gguf(tmp_path, *make_model(tmp_path / "tower", lm_dir))


def test_special_tokens_that_swallow_space_are_phi3s_by_name(made: tuple[Llava, Processor], tmp_path: Path) -> None:
    model, processor = made
    assert numbers(gguf.GGUFReader(write_gguf(tmp_path, model, processor)[0]))["general.name"] == "LLaVA"
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.add_tokens([AddedToken("<|end|>", special=True, rstrip=True)])
    processor = replace(processor, tokenizer=tokenizer)
    fit_embeddings(model.language_model, len(tokenizer) + 1)
    with pytest.raises(CheckpointError, match=r"Phi-3's alone, which has <\|endoftext\|> as well$"):
        write_gguf(tmp_path, model, processor)
    tokenizer.add_tokens([AddedToken("<|endoftext|>", special=True)])
    assert numbers(gguf.GGUFReader(write_gguf(tmp_path, model, processor)[0]))["general.name"] == "LLaVA Phi-3"


@pytest.mark.parametrize(
    ("name", "setting", "value", "reason"),
    [
        ("gemma2", "attn_logit_softcapping", None, "it does not soft-cap its logits, there they always are"),
        ("gemma", "tie_word_embeddings", False, "its head is a matrix of its own"),
        ("gemma3_text", "use_bidirectional_attention", True, "it sees what comes later"),
    ],
)
def test_a_gemma_that_llama_cpp_has_not_is_refused(
    clip_dir: Path, lm_dir: Path, tmp_path: Path, name: str, setting: str, value: Any, reason: str
) -> None:
    folder = write_language(tmp_path / "lm", LANGUAGES[name], lm_dir)
    model, processor = make_model(clip_dir, folder)
    setattr(model.language_model.config, setting, value)
    with pytest.raises(CheckpointError, match=reason):
        write_gguf(tmp_path, model, processor)


def test_a_file_that_does_not_read_back_is_an_error(
    made: tuple[Llava, Processor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf.GGUFWriter.write_tensor_data
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", lambda self, data: write(self, np.zeros_like(data)))
    with pytest.raises(CheckpointError, match=r"model-f16\.gguf: .* is not what was written"):
        write_gguf(tmp_path, *made)


def test_without_the_package_one_line_names_the_extra(
    made: tuple[Llava, Processor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"pip install 'llava-lite\[gguf\]'$"):
        write_gguf(tmp_path, *made)


def test_the_mark_of_an_image_takes_the_place_of_any_image_token(lm_dir: Path, tmp_path: Path) -> None:
    write_foreign(tmp_path, load_tokenizer(str(lm_dir)), None, image_token="<|image|>")
    processor = load_processor(tmp_path, template="vicuna_v1")
    messages = [{"role": "user", "content": "<__media__>What is it?"}]
    text = processor.tokenizer.apply_chat_template(
        messages, chat_template=llama_cpp_template(processor), tokenize=False
    )
    assert "<__media__>" in text and "<|image|>" not in text
