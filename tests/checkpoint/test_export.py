"""Every checkpoint of ours becomes a folder from which transformers computes the same, or is refused by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration
from typer.testing import CliRunner

import llava_lite
from llava_lite.checkpoint import export
from llava_lite.checkpoint.export import export_checkpoint
from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.merge import merge_checkpoint
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble
from llava_lite.cli import app
from llava_lite.conversation.families import find_template
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from tests.checkpoint.test_adapter_folder import adapted
from tests.checkpoint.test_transformers_import import assert_same_inputs, assert_same_model
from tests.conftest import assemble_lively
from tests.families import LANGUAGES, write_language, write_tower
from tests.foreign import ROLES, write_foreign


def assert_same_weights(a: Llava, b: Llava) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(weight, b.state_dict()[name]) for name, weight in a.state_dict().items())


def assert_native(folder: Path) -> None:
    """The class finds all weights and no others, and computes what we compute: ids, pixels, logits, answer."""
    theirs, report = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert_same_model(theirs.eval(), folder)


def lively(parts: Parts, folder: Path) -> Path:
    save(folder, *assemble_lively(parts))
    return folder


@pytest.mark.parametrize("family", [name for name, language in LANGUAGES.items() if language.native])
def test_every_plain_language_family_opens_in_transformers(
    clip_dir: Path, lm_dir: Path, tmp_path: Path, family: str
) -> None:
    language = write_language(tmp_path / "lm", LANGUAGES[family], lm_dir)
    lively(Parts(str(clip_dir), str(language), template="vicuna_v1"), tmp_path / "m")
    told = export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="transformers")
    assert "LlavaForConditionalGeneration; read back, logits differ by at most 0\n" in told
    assert_native(tmp_path / "out")
    written, original = (load(tmp_path / name, dtype=torch.float32)[0] for name in ("out", "m"))
    assert_same_weights(written, original)


@pytest.mark.parametrize("tower", ["siglip_vision_model", "dinov2"])
def test_every_tower_opens_in_transformers(lm_dir: Path, tmp_path: Path, tower: str) -> None:
    write_tower(tmp_path / "tower", tower)
    lively(Parts(str(tmp_path / "tower"), str(lm_dir)), tmp_path / "m")
    export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="transformers")
    assert_native(tmp_path / "out")


@pytest.mark.parametrize("mode", ["pad", "crop", "resize"])
def test_every_mode_of_one_tile_gives_the_same_ids_and_pixels(parts: Parts, tmp_path: Path, mode: str) -> None:
    lively(replace(parts, image_mode=mode), tmp_path / "m")
    export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="transformers")
    assert_same_inputs(tmp_path / "out", load(tmp_path / "m", dtype=torch.float32)[1])


def aligned(parts: Parts, folder: Path) -> None:
    save(folder, *assemble(parts, dtype=torch.float32), parts=parts)


def beside_parts(parts: Parts, folder: Path) -> None:
    save(folder, *adapted(parts), parts=parts)


def beside_whole(parts: Parts, folder: Path) -> None:
    base = str(lively(parts, folder.parent / "base"))
    save(folder, *adapted(base), parts=base)


@pytest.mark.parametrize("write", [aligned, beside_parts, beside_whole])
def test_a_projector_and_an_adapter_become_whole(
    parts: Parts, tmp_path: Path, write: Callable[[Parts, Path], None]
) -> None:
    write(parts, tmp_path / "m")
    export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="transformers")
    assert_native(tmp_path / "out")
    if write is aligned:
        expected, _ = load(tmp_path / "m", dtype=torch.float32)
    else:
        merge_checkpoint(tmp_path / "m", tmp_path / "merged")
        expected, _ = load(tmp_path / "merged", dtype=torch.float32)
    assert_same_weights(load(tmp_path / "out", dtype=torch.float32)[0], expected)


def test_a_language_model_alone_is_a_plain_folder(lm_dir: Path, tmp_path: Path) -> None:
    told = export_checkpoint(str(lm_dir), tmp_path / "out", format="transformers")
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert "LlamaForCausalLM" in told and "pixels" not in told


def test_an_anyres_model_goes_to_llava_next_and_what_differs_is_told(parts: Parts, tmp_path: Path) -> None:
    lively(replace(parts, image_mode="anyres"), tmp_path / "m")
    told = export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="transformers")
    assert "LlavaNextForConditionalGeneration" in told
    assert "of several pictures in a conversation" in told and "88 x 55 on tiles of 336" in told


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"projector": "linear"}, "projector linear"),
        ({"projector": "pool2_mlp2x_gelu"}, "projector pool2_mlp2x_gelu"),
        ({"image_mode": "anyres_max_9"}, "image mode anyres_max_9"),
        ({"language_model": "gemma2"}, "soft-capping of gemma2's head"),
        ({"vision_tower": "dinov2"}, "SwiGLU layers of DINOv2"),
    ],
)
def test_what_the_class_cannot_express_is_named_and_nothing_is_left(
    parts: Parts, lm_dir: Path, tmp_path: Path, changes: dict[str, str], part: str
) -> None:
    if "language_model" in changes:
        folder = write_language(tmp_path / "lm", LANGUAGES["gemma2"], lm_dir)
        changes = {"language_model": str(folder), "template": "gemma"}
    if "vision_tower" in changes:
        write_tower(tmp_path / "tower", "dinov2", use_swiglu_ffn=True)
        changes = {"vision_tower": str(tmp_path / "tower")}
    lively(replace(parts, **changes), tmp_path / "m")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=f"transformers' Llava classes cannot express the {part}"):
        export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="transformers")
    assert sorted(tmp_path.iterdir()) == before


def test_what_does_not_come_back_the_same_is_not_kept(
    llava_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(folder: Path, model: Llava, processor: Processor) -> None:
        with torch.no_grad():
            model.projector[0].weight[0, 0] += 0.5
            save(folder, model, processor)
            model.projector[0].weight[0, 0] -= 0.5

    monkeypatch.setattr(export, "save", spoil)
    with pytest.raises(CheckpointError, match=r"read back, its logits differ by .*; nothing was written"):
        export_checkpoint(str(llava_dir), tmp_path / "out", format="transformers")
    assert not list(tmp_path.iterdir())


def test_prompts_that_become_other_tokens_are_not_kept(
    llava_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(folder: Path, model: Llava, processor: Processor) -> None:
        save(folder, model, replace(processor, bos=not processor.bos))

    monkeypatch.setattr(export, "save", spoil)
    with pytest.raises(CheckpointError, match=r"read back, a prompt becomes other tokens; nothing was written"):
        export_checkpoint(str(llava_dir), tmp_path / "out", format="transformers")


@pytest.mark.parametrize("dtype", [None, "float16", "float32"])
def test_weights_keep_their_dtype_unless_told(llava_dir: Path, tmp_path: Path, dtype: str | None) -> None:
    save(tmp_path / "half", *load(llava_dir, dtype=torch.bfloat16))
    export_checkpoint(str(tmp_path / "half"), tmp_path / "out", format="transformers", dtype=dtype)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == (dtype or "bfloat16")


def test_an_unknown_format_or_dtype_and_a_full_folder_are_named(llava_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown format 'onnx'; there are: transformers, original, gguf"):
        export_checkpoint(str(llava_dir), tmp_path / "out", format="onnx")
    with pytest.raises(CheckpointError, match="no dtype 'int8'; there are: float32"):
        export_checkpoint(str(llava_dir), tmp_path / "out", format="transformers", dtype="int8")
    with pytest.raises(CheckpointError, match="is there already"):
        export_checkpoint(str(llava_dir), llava_dir, format="transformers")


def test_the_verb_prints_what_was_written(llava_dir: Path, tmp_path: Path) -> None:
    arguments = ["export", str(llava_dir), str(tmp_path / "out"), "--format", "transformers"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "written as LlavaForConditionalGeneration" in done.stdout
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_language_model_that_a_run_of_ours_wrote_goes_to_every_format(
    parts: Parts, tmp_path: Path, format: str
) -> None:
    """Its config.json says more of itself than that of others."""
    save(tmp_path / "lm", *assemble(replace(parts, vision_tower=None), dtype=torch.float32))
    lively(replace(parts, language_model=str(tmp_path / "lm")), tmp_path / "m")
    export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format=format)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "m" / "config.json").stat().st_mode & 0o777}


def test_the_row_of_an_image_token_that_training_has_moved_is_no_difference(parts: Parts, tmp_path: Path) -> None:
    """The original has no such token: its row, which no logit that counts comes from, is new in what is read."""
    model, processor = assemble_lively(parts)
    with torch.no_grad():
        model.language_model.get_output_embeddings().weight[model.image_token_id] += 1
    save(tmp_path / "m", model, processor)
    told = export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="original")
    assert "logits differ by at most 0\n" in told


@pytest.mark.parametrize("format", ["transformers", "gguf"])
def test_a_source_that_does_not_say_its_template_is_told_it(lm_dir: Path, tmp_path: Path, format: str) -> None:
    write_foreign(tmp_path / "m", load_tokenizer(str(lm_dir)), None)
    source, out = str(tmp_path / "m"), tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"no chat template; .*: template=\.\.\. of llava_lite\.load"):
        export_checkpoint(source, out, format=format)
    options = [source, str(out), "--format", format, "--template", "llava_v1"]
    done = CliRunner().invoke(app, ["export", *options])
    assert done.exit_code == 0, done.output
    if format == "transformers":
        assert llava_lite.load(out).processor.template == find_template("llava_v1")


def test_a_template_outside_the_table_is_exported_to_the_original_too(llava_dir: Path, tmp_path: Path) -> None:
    model, processor = load(llava_dir, dtype=torch.float32)
    template = replace(processor.template, name="mine", opening="So: ")
    save(tmp_path / "m", model, processor.with_template(template))
    assert "'mine'" in export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="original")
    told = export_checkpoint(str(tmp_path / "m"), tmp_path / "again", format="original", template="llava_v1")
    assert "'llava_v1'" in told


def test_spaces_that_the_original_puts_elsewhere_are_named(vicuna_dir: Path, tmp_path: Path) -> None:
    write_foreign(tmp_path / "m", load_tokenizer(str(vicuna_dir)), ROLES)
    with pytest.raises(CheckpointError, match="puts a space before each stretch of text between images"):
        export_checkpoint(str(tmp_path / "m"), tmp_path / "out", format="original")
