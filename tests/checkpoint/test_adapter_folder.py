"""An adapter's folder is PEFT's own, comes back as it was, and is merged into a whole checkpoint that is proven."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_lite.checkpoint import merge
from llava_lite.checkpoint.folder import base_of, load, load_processor, save
from llava_lite.checkpoint.merge import merge_checkpoint
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble
from llava_lite.models.adapter import AdapterError, Quantize
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import PartError
from llava_lite.processor import Processor
from tests.checkpoint.test_folder import reply
from tests.families import LANGUAGES, write_language
from tests.models.test_adapter import LORA, speak
from tests.models.test_families import batch_of, examples, logits_of


def adapted(base: Parts | str, quantize: Quantize | None = None) -> tuple[Llava, Processor]:
    """A model whose adapter and projector have learnt something."""
    torch.manual_seed(0)
    if isinstance(base, Parts):
        model, processor = assemble(base, dtype=torch.float32, quantize=quantize)
    else:
        model, processor = load(base, dtype=torch.float32, quantize=quantize)
    model.add_lora(LORA)
    speak(model)
    if model.projector is not None:
        model.projector[0].weight.data.mul_(3)
    return model.eval(), processor


@pytest.fixture
def adapter_dir(parts: Parts, tmp_path: Path) -> Path:
    save(tmp_path / "adapter", *adapted(parts), parts=parts)
    return tmp_path / "adapter"


def assert_same(a: Llava, b: Llava) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype and torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("quantize", [None, "4bit", "8bit"])
@pytest.mark.parametrize("kind", ["parts", "whole"])
def test_saved_and_loaded_is_the_same_adapter_beside_the_same_base(
    parts: Parts, llava_dir: Path, tmp_path: Path, world: Path, kind: str, quantize: Quantize | None
) -> None:
    base = parts if kind == "parts" else str(llava_dir)
    model, processor = adapted(base, quantize)
    save(tmp_path / "a", model, processor, parts=base)
    again, with_it = load(tmp_path / "a", dtype=torch.float32)
    assert again.lora == model.lora and again.quantize == quantize
    assert_same(model, again)
    assert with_it.fingerprint == processor.fingerprint == load_processor(tmp_path / "a").fingerprint
    batch = batch_of(*examples(model))
    assert torch.equal(logits_of(model, batch), logits_of(again.eval(), batch))
    assert reply(model, processor, world) == reply(again, with_it, world)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {"config.json", "adapter_config.json", "adapter_model.safetensors", "projector.safetensors"}


def test_an_adapter_remembers_the_mode_and_the_template_it_was_trained_with(llava_dir: Path, tmp_path: Path) -> None:
    from llava_lite.checkpoint.parts import choose_template, fit_newline

    model, processor = adapted(str(llava_dir))
    processor = processor.with_image_mode("anyres").with_template(choose_template("llava_v1", processor.tokenizer))
    fit_newline(model, processor)
    save(tmp_path / "a", model, processor, parts=str(llava_dir))
    again, with_it = load(tmp_path / "a", dtype=torch.float32)
    assert with_it.fingerprint == processor.fingerprint
    assert torch.equal(again.projector.image_newline, model.projector.image_newline)


def test_a_text_only_language_model_takes_an_adapter(lm_dir: Path, tmp_path: Path) -> None:
    parts = Parts(None, str(lm_dir))
    save(tmp_path / "a", *adapted(parts), parts=parts)
    again, _ = load(tmp_path / "a", dtype=torch.float32)
    assert again.projector is None and again.lora == replace(LORA, targets=again.lora.targets)
    merge_checkpoint(tmp_path / "a", tmp_path / "whole")
    assert load(tmp_path / "whole", dtype=torch.float32)[0].vision_tower is None


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma2"])
def test_plain_peft_opens_the_adapter_beside_the_plain_language_model(
    clip_dir: Path, lm_dir: Path, tmp_path: Path, family: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = write_language(tmp_path / "lm", LANGUAGES[family], lm_dir)
    parts = Parts(str(clip_dir), str(folder), template="vicuna_v1")
    model, processor = adapted(parts)
    save(tmp_path / "a", model, processor, parts=parts)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "a").eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        logits, ours = theirs(input_ids=ids).logits, model.language_model(input_ids=ids).logits
        without = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
    torch.testing.assert_close(ours[..., : logits.shape[-1]], logits, atol=1e-5, rtol=1e-5)
    assert (logits - without).abs().max() > 1e-2
    assert not [name for name in load_file(tmp_path / "a" / "adapter_model.safetensors") if "embed" in name]


def test_the_same_adapter_is_the_same_files(parts: Parts, tmp_path: Path) -> None:
    model, processor = adapted(parts)
    for name in ("a", "b"):
        save(tmp_path / name, model, processor, parts=parts)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"]) and config["inference_mode"] is True


@pytest.mark.parametrize("what", ["missing", "unexpected", "size", "damaged", "no config"])
def test_an_adapter_that_is_not_whole_is_named(adapter_dir: Path, what: str) -> None:
    path = adapter_dir / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    if what == "missing":
        save_file({n: w for n, w in weights.items() if n != name}, path)
    elif what == "unexpected":
        save_file({**weights, "base_model.model.lm_head.lora_A.weight": weights[name].clone()}, path)
    elif what == "size":
        save_file({**weights, name: weights[name][:1].contiguous()}, path)
    elif what == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        (adapter_dir / "adapter_config.json").unlink()
    pattern = {"missing": "1 missing weights: base_model", "unexpected": "1 unexpected weights: .*lm_head"}
    with pytest.raises(
        (AdapterError, PartError), match=pattern.get(what, r"do not belong to one adapter|is missing or")
    ):
        load(adapter_dir, dtype=torch.float32)


def test_another_base_is_refused_and_a_lost_one_named(llava_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(llava_dir, tmp_path / "base")
    save(tmp_path / "a", *adapted(str(tmp_path / "base")), parts=str(tmp_path / "base"))
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"its language_model is not at .*base any more; say where it is: language_model="
    ):
        load(tmp_path / "a", dtype=torch.float32)
    load(tmp_path / "a", dtype=torch.float32, language_model=str(tmp_path / "elsewhere"))
    weights = load_file(tmp_path / "elsewhere" / "model.safetensors")
    weights["language_model.lm_head.weight"] += 1
    save_file(weights, tmp_path / "elsewhere" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="the weights differ"):
        load(tmp_path / "a", dtype=torch.float32, language_model=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("kind", ["parts", "whole"])
def test_an_adapter_that_goes_on_stands_beside_the_same_base(
    parts: Parts, llava_dir: Path, tmp_path: Path, kind: str
) -> None:
    base = parts if kind == "parts" else str(llava_dir)
    model, processor = adapted(base)
    save(tmp_path / "run" / "step-1", model, processor, parts=base)
    save(tmp_path / "run", model, processor, parts=base_of(tmp_path / "run" / "step-1"))
    assert_same(model, load(tmp_path / "run", dtype=torch.float32)[0])


def test_a_whole_model_saved_over_an_adapter_leaves_nothing_of_it(adapter_dir: Path, llava_dir: Path) -> None:
    save(adapter_dir, *load(llava_dir, dtype=torch.float32))
    assert not list(adapter_dir.glob("adapter*"))
    assert load(adapter_dir, dtype=torch.float32)[0].lora is None


def whole_of(folder: Path, out: Path, **options: str) -> tuple[Llava, str]:
    told = merge_checkpoint(folder, out, **options)
    return load(out, dtype=torch.float32)[0].eval(), told


@pytest.mark.parametrize("quantize", [None, "4bit"])
@pytest.mark.parametrize("kind", ["parts", "whole"])
def test_a_merged_checkpoint_is_whole_native_and_computes_the_same(
    parts: Parts, llava_dir: Path, tmp_path: Path, kind: str, quantize: Quantize | None
) -> None:
    from transformers import LlavaForConditionalGeneration

    base = parts if kind == "parts" else str(llava_dir)
    model, processor = adapted(base, quantize)
    save(tmp_path / "a", model, processor, parts=base)
    merged, told = whole_of(tmp_path / "a", tmp_path / "out" / "whole")
    batch = batch_of(*examples(model))
    torch.testing.assert_close(logits_of(merged, batch), logits_of(model, batch), atol=1e-5, rtol=1e-5)
    assert "merged; logits differ from the adapter's by at most" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]
    _, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out" / "whole", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert "quantization_config" not in (tmp_path / "out" / "whole" / "config.json").read_text()


def test_merged_into_the_original_base_the_difference_is_told(parts: Parts, tmp_path: Path) -> None:
    model, processor = adapted(parts, "4bit")
    save(tmp_path / "a", model, processor, parts=parts)
    merged, told = whole_of(tmp_path / "a", tmp_path / "o", into="original")
    assert "beside the 4bit base, as it was trained, by 0." in told
    batch = batch_of(*examples(model))
    assert (logits_of(merged, batch) - logits_of(model, batch)).abs().max() > 1e-3
    beside, _ = load(tmp_path / "a", dtype=torch.float32, quantize=None)
    torch.testing.assert_close(logits_of(merged, batch), logits_of(beside.eval(), batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_merged_weights_have_the_dtype_that_is_asked_for(adapter_dir: Path, tmp_path: Path, dtype: str) -> None:
    merge_checkpoint(adapter_dir, tmp_path / "o", dtype=dtype)
    weights = load_file(tmp_path / "o" / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {f"torch.{dtype}"}


def test_an_int8_base_is_merged_within_what_int8_rounds(parts: Parts, tmp_path: Path) -> None:
    save(tmp_path / "a", *adapted(parts, "8bit"), parts=parts)
    assert "merged" in merge_checkpoint(tmp_path / "a", tmp_path / "o")


def test_a_merge_that_computes_something_else_is_refused_and_leaves_nothing(
    adapter_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: Llava) -> None:
        merge_lora(model)
        model.language_model.model.layers[0].mlp.up_proj.weight.data.mul_(1.1)

    merge_lora = Llava.merge_lora
    monkeypatch.setattr(Llava, "merge_lora", wrong)
    with pytest.raises(CheckpointError, match=r"merged, its logits differ by .*; nothing was written"):
        merge_checkpoint(adapter_dir, tmp_path / "new" / "o")
    monkeypatch.setattr(merge, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge_checkpoint(adapter_dir, tmp_path / "new" / "o")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_what_cannot_be_merged_is_refused(adapter_dir: Path, llava_dir: Path, tmp_path: Path) -> None:
    for folder, out, options, told in (
        (llava_dir, tmp_path / "o", {}, "holds no adapter"),
        (adapter_dir, adapter_dir, {}, "is there already"),
        (adapter_dir, tmp_path / "o", {"dtype": "int8"}, "no dtype 'int8'"),
        (adapter_dir, tmp_path / "o", {"into": "base"}, "neither dequantized nor original"),
    ):
        with pytest.raises(CheckpointError, match=told):
            merge_checkpoint(folder, out, **options)
