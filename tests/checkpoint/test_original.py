"""The original LLaVA's checkpoints are read as the original computes them, and ours are written as it reads them."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from PIL import Image as PilImage
from transformers import CLIPVisionModel

from llava_lite.checkpoint.folder import (
    base_of,
    holds_adapter,
    holds_projector_alone,
    load,
    load_processor,
    save,
)
from llava_lite.checkpoint.merge import merge_checkpoint
from llava_lite.checkpoint.original_format import write_original
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble, fit_newline
from llava_lite.conversation.families import find_template, record_template
from llava_lite.conversation.message import Conversation
from llava_lite.models.adapter import AdapterError, Lora
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import PartError
from llava_lite.processor import Processor
from llava_lite.recipes import find, load_recipe
from tests.checkpoint.original_llava import TOWER, Plain, write_json, write_weights
from tests.conftest import assemble_lively, row_tokenizer
from tests.families import LANGUAGES, special_tokens, write_language, write_tower

FIVE = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
ANYRES = {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": FIVE}
ANYRES_MAX = {**ANYRES, "image_aspect_ratio": "anyres_max_2", "image_grid_pinpoints": "(1x1),...,(6x6)"}
PAD = {"image_aspect_ratio": "pad"}
SQUARE = {"mm_projector_type": None, "mm_vision_select_feature": None}  # as LLaVA 1.0: the rest it does not say


@pytest.fixture(scope="session")
def picture() -> PilImage.Image:
    return PilImage.effect_mandelbrot((50, 40), (-2, -1, 1, 1), 50).convert("RGB").rotate(20, fillcolor=(200, 40, 90))


@pytest.fixture(scope="session")
def language_dirs(lm_dir: Path, vicuna_dir: Path, legacy_dir: Path, tmp_path_factory) -> dict[str, Path]:
    """Language models as the original has them: sentencepiece alone, legacy and not, and byte-level BPE."""
    mistral, qwen = (tmp_path_factory.mktemp(name) for name in ("mistral", "qwen2"))
    write_language(mistral, LANGUAGES["mistral"], legacy_dir)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(legacy_dir / name, mistral)
    (mistral / "tokenizer.json").unlink()
    write_language(qwen, LANGUAGES["qwen2"], lm_dir)
    return {"vicuna": vicuna_dir, "legacy": legacy_dir, "mistral": mistral, "qwen2": qwen}


@pytest.fixture
def plain(language_dirs: dict[str, Path], clip_dir: Path) -> Plain:
    return Plain(language_dirs["vicuna"], clip_dir)


def asked(picture: PilImage.Image) -> Conversation:
    return Conversation().ask("What is left of it?", [picture]).answer("the red cat").ask("and the blue dog")


@torch.no_grad()
def our_logits(model: Llava, processor: Processor, picture: PilImage.Image) -> torch.Tensor:
    example = processor.encode(asked(picture))
    return model.eval().logits(
        input_ids=example.input_ids[None],
        position_ids=torch.arange(len(example.input_ids))[None],
        pixel_values=example.pixel_values,
        patch_index=example.patch_index,
        patch_weight=example.patch_weight,
    )[0]


def assert_computes(folder: Path, plain: Plain, picture: PilImage.Image, **options: str) -> tuple[Llava, Processor]:
    """Ids, pixels and logits are the original's."""
    model, processor = load(folder, dtype=torch.float32, **options)
    assert load_processor(folder, **options).fingerprint == processor.fingerprint
    prompt = processor._render(asked(picture)).text
    example = processor.encode(asked(picture))
    ids = [i for i in example.input_ids.tolist() if i != processor.image_token_id]
    assert ids == [i for chunk in plain.ids(prompt) for i in chunk]
    assert torch.equal(example.pixel_values, plain.pixels(picture))
    theirs = plain.logits(prompt, picture)
    torch.testing.assert_close(
        our_logits(model, processor, picture)[:, : theirs.shape[1]], theirs, atol=2e-5, rtol=1e-5
    )
    return model, processor


@pytest.mark.parametrize(
    ("language", "form", "inside", "kind", "fields", "template", "mode"),
    [
        ("vicuna", "bin shards", True, "mlp2x_gelu", PAD, "vicuna_v1", "pad"),
        ("legacy", "safetensors", False, "linear", SQUARE, "vicuna_v1", "crop"),
        ("mistral", "bin", False, "mlp3x_gelu", ANYRES, "mistral_instruct", "anyres"),
        ("qwen2", "shards", True, "mlp2x_gelu", ANYRES_MAX, "qwen_2", "anyres_max_2"),
    ],
)
def test_a_whole_folder_computes_what_the_original_does(
    language_dirs, clip_dir, tmp_path, picture, language, form, inside, kind, fields, template, mode
) -> None:
    plain = Plain(language_dirs[language], clip_dir, kind, fields)
    plain.write_whole(tmp_path, form=form, inside=inside)
    model, processor = assert_computes(tmp_path, plain, picture)
    assert processor.template.name == template and processor.transform.mode == mode
    assert model.projector.kind == kind and model.vision_tower.model.config.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("model_type", "family"),
    [("llava", "llama"), ("llava_llama", "llama"), ("llava_qwen2", "qwen2"), ("llava_phi3", "phi3")],
)
def test_the_language_model_is_what_the_model_type_says(model_type: str, family: str) -> None:
    from llava_lite.checkpoint.original_config import read_text_config

    config = {"model_type": model_type, "hidden_size": 64, "rope_theta": 500.0, "mm_hidden_size": 5, "torch_dtype": "a"}
    text = read_text_config(config, "x")
    assert (text.model_type, text.hidden_size, text.rope_parameters["rope_theta"]) == (family, 64, 500.0)
    assert not {"mm_hidden_size", "torch_dtype"} & text.to_dict().keys()


def test_a_tower_inside_is_what_was_trained(plain: Plain, clip_dir: Path, tmp_path: Path) -> None:
    weights = plain.weights(inside=True)
    trained = {name: w + 0.1 if name.startswith(TOWER) else w for name, w in weights.items()}
    plain.write_whole(tmp_path / "m", form="bin")
    write_weights(tmp_path / "m", trained, "bin")
    tower = load(tmp_path / "m", dtype=torch.float32)[0].vision_tower.model.state_dict()
    name = "encoder.layers.1.mlp.fc1.weight"
    assert torch.equal(tower[name], trained[TOWER + name]) and not torch.equal(tower[name], weights[TOWER + name])


def test_of_the_named_tower_of_one_inside_only_what_it_is_is_read(
    plain: Plain, clip_dir: Path, tmp_path: Path, picture: PilImage.Image
) -> None:
    plain.write_whole(tmp_path / "m", inside=True, mm_vision_tower="./somewhere/else")
    with pytest.raises(
        CheckpointError, match=r"its vision_tower './somewhere/else' is not to be found .*model.vision_tower"
    ):
        load(tmp_path / "m", dtype=torch.float32)
    (tmp_path / "what").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(clip_dir / name, tmp_path / "what")
    assert_computes(tmp_path / "m", plain, picture, vision_tower=str(tmp_path / "what"))


@pytest.mark.parametrize("named", ["absolute", "beside the checkpoint", "from here"])
def test_a_tower_is_found_from_the_checkpoint_and_from_here(
    plain: Plain, clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    name = {"absolute": str(clip_dir), "beside the checkpoint": "../clip", "from here": "here/clip"}[named]
    plain.write_whole(tmp_path / "m", mm_vision_tower=name)
    shutil.copytree(clip_dir, tmp_path / ("here/clip" if named == "from here" else "clip"))
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path / "m", dtype=torch.float32)[0].vision_tower is not None


@pytest.mark.parametrize("safe", [False, True])
def test_a_projector_finds_its_language_model(
    plain: Plain, tmp_path: Path, picture: PilImage.Image, safe: bool
) -> None:
    plain.write_projector(tmp_path / "checkpoint-7", safe=safe)
    assert_computes(tmp_path / "checkpoint-7", plain, picture)
    assert holds_projector_alone(tmp_path / "checkpoint-7") and not holds_adapter(tmp_path / "checkpoint-7")
    plain.write_projector(tmp_path / "lost", safe=safe, _name_or_path="./checkpoints/vicuna")
    with pytest.raises(
        CheckpointError, match=r"its language_model './checkpoints/vicuna' is not .*model.language_model="
    ):
        load(tmp_path / "lost", dtype=torch.float32)
    assert_computes(tmp_path / "lost", plain, picture, language_model=str(plain.language_model))


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.", "", "model."])
@pytest.mark.parametrize("base", ["language model", "whole"])
def test_an_adapter_computes_what_the_original_does(
    plain: Plain, tmp_path: Path, picture: PilImage.Image, base: str, prefix: str
) -> None:
    whole = replace(plain, kind="mlp1x_gelu").write_whole(tmp_path / "whole", inside=True)
    named = str(plain.language_model if base == "language model" else whole)
    plain.write_lora(tmp_path / "a", base=named, safe=prefix == "", prefix=prefix)
    model, _ = assert_computes(tmp_path / "a", plain, picture)
    assert model.lora == Lora(3, 6, 0.05, ("down_proj", "q_proj"))
    assert holds_adapter(tmp_path / "a") and not holds_projector_alone(tmp_path / "a")


def test_an_adapter_is_merged_into_a_whole_checkpoint(plain: Plain, tmp_path: Path, picture: PilImage.Image) -> None:
    plain.write_lora(tmp_path / "a", base=str(plain.language_model))
    assert "merged; logits differ" in merge_checkpoint(tmp_path / "a", tmp_path / "whole")
    merged, adapted = (load(tmp_path / name, dtype=torch.float32) for name in ("whole", "a"))
    torch.testing.assert_close(our_logits(*merged, picture), our_logits(*adapted, picture), atol=1e-5, rtol=1e-5)


def test_an_adapter_without_its_projector_is_no_checkpoint(plain: Plain, tmp_path: Path) -> None:
    plain.write_lora(tmp_path / "a", base=str(plain.language_model))
    (tmp_path / "a" / "non_lora_trainables.bin").unlink()
    with pytest.raises(CheckpointError, match=r"only at the end of a run, so a checkpoint-N"):
        load(tmp_path / "a", dtype=torch.float32)


@pytest.mark.parametrize(
    "setting", [{"use_rslora": True}, {"use_dora": True}, {"bias": "lora_only"}, {"alpha_pattern": {"q_proj": 3}}]
)
def test_more_than_plain_lora_is_refused(plain: Plain, tmp_path: Path, setting: dict) -> None:
    plain.write_lora(tmp_path / "a", base=str(plain.language_model))
    edit_json(tmp_path / "a" / "adapter_config.json", **setting)
    with pytest.raises(AdapterError, match=f"sets {next(iter(setting))}; only plain LoRA is read"):
        load(tmp_path / "a", dtype=torch.float32)


def edit_json(path: Path, **changes: object) -> None:
    config = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in config.items() if value != "absent"})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mm_projector_type": "identity"}, r"mm_projector_type 'identity': .*linear and mlp<N>x_gelu are read"),
        ({"mm_projector_type": "mlp2x_res2x_gelu"}, "mm_projector_type 'mlp2x_res2x_gelu'"),
        ({"mm_projector_type": "shuffle2_mlp2x_gelu"}, "mm_projector_type 'shuffle2_mlp2x_gelu'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch': .*without class token"),
        ({"mm_vision_select_layer": "absent"}, "mm_vision_select_layer: missing"),
        ({"mm_vision_select_layer": -9}, "has no layer -9; it has 3 blocks"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type 'perceiver': resamplers are not read"),
        ({"s2": True, "s2_scales": "1,2"}, "s2: a picture in several scales is not read"),
        ({"image_aspect_ratio": "highres"}, "image_aspect_ratio 'highres': square, pad, anyres"),
        ({**ANYRES, "mm_patch_merge_type": "absent"}, "mm_patch_merge_type 'flat' with anyres"),
        ({**ANYRES, "mm_patch_merge_type": "spatial"}, "mm_patch_merge_type 'spatial' with anyres"),
        ({**ANYRES, "image_grid_pinpoints": FIVE[::-1]}, "image_grid_pinpoints: with anyres, LLaVA-1.6's five"),
        ({**ANYRES, "image_grid_pinpoints": "(1x1),...,(6x6)"}, "image_grid_pinpoints: with anyres"),
        ({**ANYRES_MAX, "image_grid_pinpoints": FIVE}, r"with anyres_max_2, those of \(1x1\),...,\(6x6\)"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end, but the tokenizer has no <im_start>"),
        ({"model_type": "llava_mpt"}, "unknown language model 'mpt'"),
        ({"mm_vision_tower": None}, "its vision_tower None is not to be found"),
        ({"hidden_size": "large"}, "config.json, .* is broken .*: Field 'hidden_size' expected int, got str"),
    ],
)
def test_what_is_not_computed_as_the_original_does_is_refused(
    plain: Plain, tmp_path: Path, fields: dict, told: str
) -> None:
    plain.write_whole(tmp_path)
    edit_json(tmp_path / "config.json", **fields)
    for opened in (load_processor, lambda folder: load(folder, dtype=torch.float32)):
        if "no layer" in told and opened is load_processor:
            continue
        with pytest.raises(ValueError, match=told) as raised:
            opened(tmp_path)
        assert type(raised.value).__module__.startswith("llava_lite")


def test_all_that_is_refused_is_said_at_once(plain: Plain, tmp_path: Path) -> None:
    plain.write_whole(tmp_path, s2=True, mm_resampler_type="qformer", image_aspect_ratio="highres")
    with pytest.raises(CheckpointError, match=r"mm_resampler_type .*; s2: .*; image_aspect_ratio"):
        load_processor(tmp_path)


def test_a_padded_tile_that_the_original_would_cut_is_refused(plain: Plain, clip_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_dir, tmp_path / "clip")
    edit_json(tmp_path / "clip" / "preprocessor_config.json", size={"shortest_edge": 40})
    plain.write_whole(tmp_path / "m", mm_vision_tower=str(tmp_path / "clip"))
    with pytest.raises(CheckpointError, match="resizes to 40 and cuts 32 out"):
        load_processor(tmp_path / "m")
    edit_json(tmp_path / "m" / "config.json", image_aspect_ratio="square")
    assert load_processor(tmp_path / "m").transform.tower.short_side == 40


@pytest.mark.parametrize("token", ["<|start_header_id|>", "<|im_start|>", None])
def test_the_template_is_told_by_the_tokens_and_may_be_said(plain: Plain, tmp_path: Path, token: str | None) -> None:
    plain.write_whole(tmp_path)
    tokenizer = load_tokenizer(str(plain.language_model))
    tokenizer.add_tokens(special_tokens(*([token, "<|eot_id|>", "<|im_end|>"] if token else [])))
    decoder = {i: {"content": t, "special": True, "normalized": False} for t, i in tokenizer.get_added_vocab().items()}
    edit_json(tmp_path / "tokenizer_config.json", added_tokens_decoder=decoder)
    edit_json(tmp_path / "config.json", vocab_size=343)
    told = {"<|start_header_id|>": "llava_llama_3", "<|im_start|>": "chatml_direct", None: "vicuna_v1"}[token]
    assert load_processor(tmp_path).template == find_template(told)
    assert load_processor(tmp_path, template="llava_v0").template == find_template("llava_v0")


def test_a_template_may_be_said_of_any_checkpoint(llava_dir: Path, plain: Plain, tmp_path: Path) -> None:
    plain.write_projector(tmp_path / "p")
    for folder in (llava_dir, plain.language_model, tmp_path / "p"):
        for said, is_there in (("llava_v0", "llava_v0"), (None, "vicuna_v1")):
            assert load(folder, dtype=torch.float32, template=said)[1].template == find_template(is_there)
            assert load_processor(folder, template=said).template == find_template(is_there)


def test_images_stand_between_start_and_end_tokens_where_the_config_says_so(
    plain: Plain, tmp_path: Path, picture: PilImage.Image
) -> None:
    shutil.copytree(plain.language_model, tmp_path / "lm")
    tokens = {340: "<im_patch>", 341: "<im_start>", 342: "<im_end>"}
    decoder = {i: {"content": token, "special": True, "normalized": False} for i, token in tokens.items()}
    edit_json(tmp_path / "lm" / "tokenizer_config.json", added_tokens_decoder=decoder)
    from transformers import AutoModelForCausalLM

    grown = AutoModelForCausalLM.from_pretrained(plain.language_model)
    grown.resize_token_embeddings(343)
    grown.save_pretrained(tmp_path / "lm")
    fields = {**PAD, "mm_use_im_start_end": True, "mm_use_im_patch_token": True}
    marked = Plain(tmp_path / "lm", plain.tower, fields=fields)
    marked.write_whole(tmp_path / "m")
    model, processor = assert_computes(tmp_path / "m", marked, picture)
    assert "USER: <im_start><image><im_end>\nWhat is" in processor._render(asked(picture)).text
    write_original(tmp_path / "out", model, processor)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["mm_use_im_start_end"] is True and config["vocab_size"] == 343
    assert load_processor(tmp_path / "out").fingerprint == processor.fingerprint
    model.add_lora(Lora(2, 4))
    save(tmp_path / "a", model, processor, parts=str(tmp_path / "m"))
    assert load(tmp_path / "a", dtype=torch.float32)[1].template == processor.template
    again = load_processor(tmp_path / "m", template=record_template(processor.template))
    assert again.template == processor.template  # which has the tokens already
    named = (
        load_processor(tmp_path / "m", template="vicuna_v1"),
        load(tmp_path / "m", dtype=torch.float32, template="vicuna_v1")[1],
    )
    assert all(again.template == processor.template for again in named)


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", "llava_mistral"])
@pytest.mark.parametrize(("legacy", "has_space"), [(True, True), ("absent", True), (None, True), (False, False)])
def test_words_are_cut_as_by_the_originals_transformers(
    plain: Plain, tmp_path: Path, model_type: str, legacy: object, has_space: bool
) -> None:
    plain.write_whole(tmp_path, model_type=model_type)
    edit_json(tmp_path / "tokenizer_config.json", legacy=legacy)
    tokenizer = load_processor(tmp_path, template="vicuna_v1").tokenizer
    theirs = sentencepiece.SentencePieceProcessor()
    theirs.Load(str(tmp_path / "tokenizer.model"))
    ids = tokenizer.encode("what is it</s>USER: the dog")
    before = [1, *theirs.EncodeAsIds("what is it"), 2]
    assert ids[: len(before)] == before
    assert tokenizer.convert_ids_to_tokens(ids[len(before)]).startswith("▁") == has_space
    if has_space:
        assert ids[len(before) :] == theirs.EncodeAsIds("USER: the dog")


class Malice:
    """Unpickled in full, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "mm_projector.bin", "adapter_model.bin", "non_lora_trainables.bin"]
)
def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(plain: Plain, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    if name == "pytorch_model.bin":
        plain.write_whole(folder, form="bin")
    elif name == "mm_projector.bin":
        plain.write_projector(folder)
    else:
        plain.write_lora(folder, base=str(plain.language_model))
    for legacy in (False, True):
        weights = torch.load(folder / name, weights_only=False) if not legacy else {}
        weights["malice"] = Malice(tmp_path / "was run")
        torch.save(weights, folder / name, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(PartError, match=f"{name}: damaged, or it holds more than tensors"):
            load(folder, dtype=torch.float32)
        assert not (tmp_path / "was run").exists()
    torch.load(folder / name, weights_only=False)
    assert (tmp_path / "was run").exists()  # it would have been


@pytest.mark.parametrize("content", [b"", b"not torch's", {"a": 1}, [torch.zeros(1)]])
def test_a_bin_of_anything_but_tensors_by_name_is_refused(plain: Plain, tmp_path: Path, content: object) -> None:
    plain.write_projector(tmp_path / "p")
    path = tmp_path / "p" / "mm_projector.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(PartError, match=r"mm_projector.bin: (damaged|cannot be read|holds something else)"):
        load(tmp_path / "p", dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.layers.1.mlp.up_proj.weight", "1 missing weights: model.layers.1.mlp.up_proj.weight"),
        ("model.mm_projector.2.bias", "1 missing weights: projector.2.bias"),
        (TOWER + "encoder.layers.0.mlp.fc1.bias", "1 missing weights: .*encoder.layers.0.mlp.fc1.bias"),
    ],
)
def test_a_missing_weight_is_named(plain: Plain, tmp_path: Path, name: str, told: str) -> None:
    plain.write_whole(tmp_path)
    weights = plain.weights(inside=True)
    del weights[name]
    write_weights(tmp_path, weights, "safetensors")
    with pytest.raises(PartError, match=told):
        load(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.extra.weight",
        "model.vision_resampler.query",
        "model.mm_projector.4.bias",
        TOWER + "encoder.layers.0.mlp.fc3.bias",
    ],
)
def test_an_unexpected_weight_is_named(plain: Plain, tmp_path: Path, name: str) -> None:
    plain.write_whole(tmp_path)
    write_weights(tmp_path, {**plain.weights(inside=True), name: torch.zeros(1)}, "safetensors")
    with pytest.raises(PartError, match=f"1 unexpected weights: .*{'.'.join(name.split('.')[-2:])}"):
        load(tmp_path, dtype=torch.float32)


def test_old_folders_rotary_tables_and_unused_newline_are_no_weights(plain: Plain, tmp_path: Path) -> None:
    plain.write_whole(tmp_path)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4), "model.image_newline": torch.zeros(32)}
    write_weights(tmp_path, {**plain.weights(inside=False), **more}, "safetensors")
    assert load(tmp_path, dtype=torch.float32)[0].projector.image_newline is None


def test_a_projector_file_with_embeddings_beside_it_is_named(plain: Plain, tmp_path: Path) -> None:
    plain.write_projector(tmp_path / "p")
    more = {"model.embed_tokens.weight": torch.zeros(2, 32)}
    torch.save({**plain.projector, **more}, tmp_path / "p" / "mm_projector.bin")
    with pytest.raises(PartError, match=r"1 unexpected weights: model.embed_tokens.weight"):
        load(tmp_path / "p", dtype=torch.float32)


def test_folders_that_are_not_whole_say_what_is_missing(plain: Plain, tmp_path: Path) -> None:
    plain.write_projector(tmp_path / "p")
    (tmp_path / "p" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.json\); mm_projector.bin needs the config.json"):
        load(tmp_path / "p", dtype=torch.float32)
    (tmp_path / "p" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: damaged"):
        load(tmp_path / "p", dtype=torch.float32)
    (tmp_path / "p" / "mm_projector.bin").unlink()
    write_json(tmp_path / "p" / "config.json", plain.config())
    with pytest.raises(CheckpointError, match="but no weights beside it; there should be pytorch_model"):
        load(tmp_path / "p", dtype=torch.float32)


def test_a_base_that_is_itself_a_projector_is_refused(plain: Plain, tmp_path: Path) -> None:
    plain.write_projector(tmp_path / "p")
    plain.write_lora(tmp_path / "a", base=str(tmp_path / "p"))
    with pytest.raises(CheckpointError, match=r"its language model, .*, is itself a projector"):
        load(tmp_path / "a", dtype=torch.float32)


@pytest.mark.parametrize("layout", ["whole", "projector"])
def test_what_was_read_is_saved_and_finetuned_as_any_other(
    plain: Plain, tmp_path: Path, picture: PilImage.Image, layout: str
) -> None:
    folder = tmp_path / "m"
    plain.write_whole(folder, form="bin") if layout == "whole" else plain.write_projector(folder)
    model, processor = load(folder, dtype=torch.float32)
    save(tmp_path / "saved", model, processor)
    again = load(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(our_logits(*again, picture), our_logits(model, processor, picture))
    base = base_of(folder)
    assert isinstance(base, Parts) == (layout == "projector")
    model.add_lora(Lora(2, 4, targets=("q_proj",)))
    for name, weight in model.language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save(tmp_path / "a", model, processor, parts=base)
    adapted = load(tmp_path / "a", dtype=torch.float32)
    assert torch.equal(our_logits(*adapted, picture), our_logits(model, processor, picture))


def test_finetuning_starts_from_all_but_an_adapter(plain: Plain, tmp_path: Path) -> None:
    finetune = load_recipe(find("train", "finetune"))
    plain = replace(plain, fields={"image_aspect_ratio": "square"})
    plain.write_whole(tmp_path / "whole")
    plain.write_projector(tmp_path / "projector")
    plain.write_lora(tmp_path / "adapter", base=str(plain.language_model))
    for name, mode in (("whole", "crop"), ("projector", "pad")):
        model, processor = finetune.start_model(finetune.ModelConfig(checkpoint=str(tmp_path / name)))
        assert processor.transform.mode == mode and torch.equal(model.projector[0].weight, plain.layers[0][0])
    with pytest.raises(CheckpointError, match="an adapter; make it whole first, with llava-lite merge"):
        finetune.start_model(finetune.ModelConfig(checkpoint=str(tmp_path / "adapter")))


# ---- written


def assert_same(a: tuple[Llava, Processor], b: tuple[Llava, Processor], picture: PilImage.Image) -> None:
    ours, theirs = a[0].state_dict(), b[0].state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name, weight in ours.items() if not torch.equal(weight, theirs[name])] == []
    assert a[1].fingerprint == b[1].fingerprint and a[1].transform == b[1].transform
    examples = [processor.encode(asked(picture)) for _, processor in (a, b)]
    assert torch.equal(examples[0].input_ids, examples[1].input_ids)
    assert torch.equal(examples[0].pixel_values, examples[1].pixel_values)
    assert torch.equal(our_logits(*a, picture), our_logits(*b, picture))


@pytest.mark.parametrize(
    ("language", "projector", "mode"),
    [
        ("vicuna", "mlp2x_gelu", "pad"),
        ("legacy", "linear", "crop"),
        ("mistral", "mlp3x_gelu", "anyres"),
        ("qwen2", "mlp2x_gelu", "anyres_max_9"),
    ],
)
def test_written_and_read_is_the_same_model(
    language_dirs, clip_dir, tmp_path, picture, language: str, projector: str, mode: str
) -> None:
    parts = Parts(str(clip_dir), str(language_dirs[language]), projector=projector, image_mode=mode)
    before = assemble_lively(parts)
    write_original(tmp_path / "m", *before)
    assert_same(before, load(tmp_path / "m", dtype=torch.float32), picture)
    save(tmp_path / "ours", *before)  # whose tokenizer adds no BOS of its own
    write_original(tmp_path / "again", *load(tmp_path / "ours", dtype=torch.float32))
    assert_same(before, load(tmp_path / "again", dtype=torch.float32), picture)


def test_a_byte_level_tokenizer_puts_bos_again_in_front(
    language_dirs: dict[str, Path], clip_dir: Path, tmp_path: Path, picture: PilImage.Image
) -> None:
    shutil.copytree(language_dirs["vicuna"], tmp_path / "lm")
    (tmp_path / "lm" / "tokenizer.model").unlink()
    tokenizer = row_tokenizer("bytes", tmp_path)
    tokenizer.add_bos_token = True
    tokenizer.save_pretrained(tmp_path / "lm")
    before = assemble_lively(Parts(str(clip_dir), str(tmp_path / "lm"), template="llava_llama_3"))
    assert before[1].writes_bos
    save(tmp_path / "ours", *before)
    loaded = load(tmp_path / "ours", dtype=torch.float32)
    assert loaded[1].tokenizer.encode("a")[0] != tokenizer.bos_token_id  # ours puts it there, not the tokenizer
    write_original(tmp_path / "m", *loaded)
    again = load(tmp_path / "m", dtype=torch.float32)
    assert again[1].tokenizer.encode("a")[0] == tokenizer.bos_token_id
    assert again[1].template == before[1].template  # told by its tokens
    assert torch.equal(our_logits(*again, picture), our_logits(*before, picture))
    merges = json.loads((tmp_path / "m" / "tokenizer.json").read_text())["model"]["merges"]
    assert all(isinstance(pair, str) for pair in merges)  # what the original's version of tokenizers reads


def test_a_tokenizer_that_does_not_come_back_is_refused(parts: Parts, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("llava_lite.checkpoint.original_tokenizer.is_legacy", lambda _: True)
    with pytest.raises(CheckpointError, match="cannot be written as the original reads it"):
        write_original(tmp_path / "m", *assemble_lively(parts))


@pytest.mark.parametrize("language", ["vicuna", "legacy", "mistral", "qwen2"])
def test_read_and_written_is_the_same_folder(language_dirs, clip_dir, tmp_path, language: str) -> None:
    plain = Plain(language_dirs[language], clip_dir, fields=ANYRES)
    plain.write_whole(tmp_path / "m", inside=True)
    write_original(tmp_path / "out", *load(tmp_path / "m", dtype=torch.float32))
    weights, again = plain.weights(inside=True), read_all(tmp_path / "out")
    unused = {name for name in weights if name.startswith(TOWER + "encoder.layers.2.")}  # above the selected layer
    assert weights.keys() - unused == again.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in again.items())
    config, written = plain.config(), json.loads((tmp_path / "out" / "config.json").read_text())
    same = {*plain.text_config, *ANYRES, "rope_theta", "rope_scaling", "mm_hidden_size", "mm_projector_type"}
    same |= {"mm_vision_select_feature", "mm_use_im_start_end", "mm_use_im_patch_token", "use_mm_proj"}
    same -= {"rope_parameters", "dtype", "transformers_version", "architectures", "model_type", "head_dim"}
    assert {key: written.get(key) for key in same} == {key: config.get(key) for key in same}
    theirs, ours = (load_tokenizer(str(folder)) for folder in (plain.language_model, tmp_path / "out"))
    assert ours.get_vocab() == theirs.get_vocab()


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}


def test_the_written_tower_gives_the_original_the_same_features(parts: Parts, tmp_path: Path, picture) -> None:
    model, processor = assemble_lively(parts)
    write_original(tmp_path / "m", model, processor)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    named = Path(config["mm_vision_tower"])
    assert named.is_absolute() and "clip" in named.name  # what the original's builder takes
    tower, report = CLIPVisionModel.from_pretrained(named, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    pixels = processor.transform(picture)
    with torch.no_grad():
        hidden = tower(pixels, output_hidden_states=True).hidden_states
        assert torch.equal(hidden[config["mm_vision_select_layer"]][:, 1:], model.vision_tower(pixels))


def test_a_written_folder_that_is_moved_finds_its_tower(parts: Parts, tmp_path: Path, picture) -> None:
    before = assemble_lively(parts)
    write_original(tmp_path / "new", *before, stands_at=tmp_path / "m")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["mm_vision_tower"].startswith(str(tmp_path / "m"))
    (tmp_path / "new").rename(tmp_path / "elsewhere")
    assert_same(before, load(tmp_path / "elsewhere", dtype=torch.float32), picture)


@pytest.mark.parametrize("spare", [0, 5])
def test_the_image_tokens_row_goes_and_spare_rows_stay(
    language_dirs: dict[str, Path], clip_dir: Path, tmp_path: Path, spare: int
) -> None:
    from transformers import AutoModelForCausalLM

    shutil.copytree(language_dirs["vicuna"], tmp_path / "lm")
    grown = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    grown.resize_token_embeddings(340 + spare)
    grown.save_pretrained(tmp_path / "lm")
    model, processor = assemble(Parts(str(clip_dir), str(tmp_path / "lm")), dtype=torch.float32)
    write_original(tmp_path / "m", model, processor)
    rows = {name: len(read_all(tmp_path / "m")[name]) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    assert set(rows.values()) == {340 + spare}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"] == 340 + spare
    assert "<image>" not in load_tokenizer(str(tmp_path / "m")).get_vocab()


@pytest.mark.parametrize("language", ["vicuna", "legacy", "mistral"])
def test_sentencepiece_itself_reads_the_written_tokenizer(language_dirs, clip_dir, tmp_path, language: str) -> None:
    write_original(tmp_path / "m", *assemble_lively(Parts(str(clip_dir), str(language_dirs[language]))))
    theirs, ours = sentencepiece.SentencePieceProcessor(), sentencepiece.SentencePieceProcessor()
    theirs.Load(str(language_dirs[language] / "tokenizer.model"))
    ours.Load(str(tmp_path / "m" / "tokenizer.model"))
    letters = random.Random(0)
    noise = "".join(letters.choice("the cat is left") for _ in range(2000))  # where the order of merges matters
    for text in ("what is left of it?", "  two spaces", "é 漢 \n\t", "the red catUSER: dogs", noise):
        assert ours.EncodeAsIds(text) == theirs.EncodeAsIds(text)
        assert ours.DecodeIds(ours.EncodeAsIds(text)) == text
    settings = [
        json.loads((d / "tokenizer_config.json").read_text()) for d in (language_dirs[language], tmp_path / "m")
    ]
    assert len({(s["legacy"], s["add_bos_token"], s["tokenizer_class"]) for s in settings}) == 1


def test_a_siglip_tower_has_one_more_block_which_the_original_drops(
    language_dirs: dict[str, Path], tmp_path: Path, picture: PilImage.Image
) -> None:
    siglip = write_tower(tmp_path / "siglip", "siglip_vision_model", image_size=384, patch_size=14)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 384, "width": 384}}
    edit_json(
        tmp_path / "siglip" / "preprocessor_config.json",
        **half,
        image_processor_type="SiglipImageProcessor",
        do_center_crop=None,
        crop_size=None,
    )
    parts = Parts(str(tmp_path / "siglip"), str(language_dirs["vicuna"]), image_mode="resize")
    before = assemble_lively(parts)
    write_original(tmp_path / "m", *before)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["image_aspect_ratio"] == "square" and "siglip" in Path(config["mm_vision_tower"]).name
    assert_same(before, load(tmp_path / "m", dtype=torch.float32), picture)
    tower = type(siglip).from_pretrained(config["mm_vision_tower"])
    del tower.encoder.layers[-1:]  # as the original does
    pixels = before[1].transform(picture)
    with torch.no_grad():
        encoded = tower.encoder(inputs_embeds=tower.embeddings(pixels)).last_hidden_state
        assert torch.equal(encoded, before[0].vision_tower(pixels))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"projector": "pool2_mlp2x_gelu"}, r"no projector 'pool2_mlp2x_gelu', only linear and mlp<N>x_gelu"),
        ({"image_mode": "resize"}, "crops or pads pictures for a CLIP tower"),
        ({"language_model": "gemma"}, "no class for a gemma"),
        ({"language_model": "phi3"}, "no class for a phi3"),
        ({"language_model": "wide"}, "hidden_size / num_attention_heads wide"),
        ({"vision_tower": "dinov2"}, "no vision tower 'dinov2'"),
        ({"vision_tower": "siglip_vision_model"}, "SigLIP towers of 384 pixels"),
        ({"vision_tower": None}, "a language model alone"),
        ({"lora": True}, "an adapter; make it whole first, with llava-lite merge"),
    ],
)
def test_what_the_original_cannot_express_is_refused(
    parts: Parts, lm_dir: Path, tmp_path: Path, change: dict, told: str
) -> None:
    lora = change.pop("lora", False) if change == {"lora": True} else False
    change = dict(change)
    if change.get("language_model") in LANGUAGES:
        change["language_model"] = str(write_language(tmp_path / "lm", LANGUAGES[change["language_model"]], lm_dir))
    elif "language_model" in change:
        wide = replace(LANGUAGES["llama"], config={"head_dim": 16})
        change["language_model"] = str(write_language(tmp_path / "lm", wide, lm_dir))
    elif change.get("vision_tower"):
        write_tower(tmp_path / "tower", change["vision_tower"])
        change["vision_tower"] = str(tmp_path / "tower")
    model, processor = assemble(replace(parts, template="vicuna_v1", **change), dtype=torch.float32)
    if lora:
        model.add_lora(Lora(2, 2))
    with pytest.raises(CheckpointError, match=told):
        write_original(tmp_path / "out", model, processor)
    assert not (tmp_path / "out").exists()


def test_a_newline_survives_a_change_of_mode(plain: Plain, tmp_path: Path) -> None:
    plain = Plain(plain.language_model, plain.tower, fields=ANYRES)
    plain.write_whole(tmp_path / "m")
    model, processor = load(tmp_path / "m", dtype=torch.float32)
    fit_newline(model, processor)
    assert torch.equal(model.projector.image_newline, plain.newline)
