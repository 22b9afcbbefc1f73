"""An adapter learns beside the blocks of the language model and nowhere else, whatever these are held in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.data.collate import Batch
from llava_lite.models.adapter import AdapterError, Lora
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from tests.conftest import assemble_lively
from tests.families import LANGUAGES, Language, write_language
from tests.models.test_families import batch_of, example, examples, generate, logits_of

LORA = Lora(rank=4, alpha=8, dropout=0.0)


def with_adapter(parts: Parts, *, quantize: str | None = None, lora: Lora = LORA, says: bool = True) -> Llava:
    """A model whose adapter adds something (unless it shall not), ready to train it and the projector."""
    torch.manual_seed(0)
    model, _ = assemble(parts, dtype=torch.float32, quantize=quantize)
    model.add_lora(lora)
    model.train_only(["projector", "language_model"])
    if says:
        speak(model)
    return model


@torch.no_grad()
def speak(model: Llava) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


def gradients(model: Llava, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = model(**batch)
    (loss.sum / loss.count).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES[request.param]


@pytest.fixture
def family_parts(language: Language, clip_dir: Path, lm_dir: Path, tmp_path: Path) -> Parts:
    return Parts(str(clip_dir), str(write_language(tmp_path, language, lm_dir)), template="vicuna_v1")


def test_every_linear_layer_of_the_blocks_learns_and_nothing_else_of_the_language_model(
    family_parts: Parts, language: Language
) -> None:
    model = with_adapter(family_parts, says=False)
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    projector = {f"projector.{name}" for name, _ in model.projector.named_parameters()}
    inner = learns - projector
    assert projector < learns and all(".layers." in name and ".lora_" in name for name in inner)
    fused = language.model_type == "phi3"
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in inner} == (
        {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
        if fused
        else {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    )
    assert len(inner) == 2 * 2 * (4 if fused else 7)  # A and B of two blocks
    assert not [name for name, _ in model.vision_tower.named_parameters() if "lora" in name]
    assert type(model.language_model.get_output_embeddings()) is nn.Linear


def test_an_adapter_adds_nothing_before_it_has_learnt(family_parts: Parts) -> None:
    torch.manual_seed(0)
    plain, _ = assemble(family_parts, dtype=torch.float32)
    batch = batch_of(*examples(plain))
    assert torch.equal(logits_of(plain, batch), logits_of(with_adapter(family_parts, says=False), batch))


def test_packed_padded_and_continued_with_an_adapter_equal_each_alone(family_parts: Parts) -> None:
    model = with_adapter(family_parts).eval()
    documents = examples(model)
    lengths = [len(one.input_ids) for one in documents]
    packed = logits_of(model, batch_of(*documents))[0].split(lengths)
    padded = logits_of(model, batch_of(*documents, packed=False))
    for one, a, b in zip(documents, packed, padded, strict=True):
        alone = logits_of(model, batch_of(one))[0]
        torch.testing.assert_close(a, alone, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(b[: len(alone)], alone, atol=2e-5, rtol=2e-5)
    asked = [example(model, 5, 9), example(model, 3)]
    assert generate(model, asked) == [generate(model, [one])[0] for one in asked]


@pytest.mark.parametrize("quantize", [None, "4bit", "8bit"])
def test_gradients_reach_all_of_the_adapter_and_the_projector_alone(parts: Parts, quantize: str | None) -> None:
    model = with_adapter(parts, quantize=quantize)
    grads = gradients(model, batch_of(*examples(model)))
    assert grads.keys() == {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(grad.isfinite().all() and grad.abs().max() > 0 for grad in grads.values())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("learning", [["projector", "language_model"], ["language_model"]])
def test_gradient_checkpointing_changes_no_gradient(parts: Parts, learning: list, reentrant: bool) -> None:
    model = with_adapter(parts)
    model.train_only(learning)
    batch = batch_of(*examples(model))
    before = gradients(model, batch)
    model.language_model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert model.language_model.is_activation_checkpointing
    times: list[int] = []
    block = model.language_model.model.layers[0].mlp
    block.register_forward_pre_hook(lambda *_: times.append(1))
    after = gradients(model, batch)
    assert len(times) == 2  # once more, on the way back
    assert before.keys() == after.keys()
    for name, grad in before.items():
        torch.testing.assert_close(after[name], grad, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_blocks_are_quantised_and_nothing_is_cast_but_the_adapter(
    parts: Parts, quantize: str, dtype: torch.dtype
) -> None:
    plain, _ = assemble(parts, dtype=dtype)
    model, _ = assemble(parts, dtype=dtype, quantize=quantize)
    model.add_lora(LORA)
    held = {"4bit": torch.uint8, "8bit": torch.int8}[quantize]
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    for name, kind in kinds.items():
        if ".base_layer." in name:
            assert kind == held, name
        else:
            assert kind == (torch.float32 if ".lora_" in name else dtype), name
    assert sum(".base_layer." in name for name in kinds) == 14
    assert type(model.language_model.lm_head) is nn.Linear
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(model.language_model.get_parameter(name), plain.language_model.get_parameter(name))
    tower = plain.vision_tower.state_dict()
    assert all(torch.equal(weight, tower[name]) for name, weight in model.vision_tower.state_dict().items())


def test_quantised_weights_are_those_of_the_files_whatever_the_rest_is_computed_in(parts: Parts) -> None:
    one, two = (
        assemble(parts, dtype=dtype, quantize="4bit")[0].language_model.get_submodule("model.layers.1.mlp.up_proj")
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(one.weight.data, two.weight.data)


@pytest.mark.parametrize("quantize", [None, "4bit"])
def test_merged_equals_unmerged(parts: Parts, quantize: str | None) -> None:
    model = with_adapter(parts, quantize=quantize).eval()
    batch = batch_of(*examples(model))
    silent = logits_of(with_adapter(parts, quantize=quantize, says=False).eval(), batch)
    before = logits_of(model, batch)
    assert (before - silent).abs().max() > 0.01
    model.merge_lora()
    torch.testing.assert_close(logits_of(model, batch), before, atol=1e-5, rtol=1e-5)
    assert model.lora is None and model.quantize is None
    assert {type(m) for m in model.language_model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert "quantization_config" not in model.language_model.config.to_dict()


def test_every_family_is_merged(family_parts: Parts) -> None:
    model = with_adapter(family_parts).eval()
    batch = batch_of(*examples(model))
    before = logits_of(model, batch)
    model.merge_lora()
    torch.testing.assert_close(logits_of(model, batch), before, atol=2e-5, rtol=2e-5)


def test_chosen_targets_alone_get_an_adapter(parts: Parts) -> None:
    model = with_adapter(parts, quantize="4bit", lora=replace(LORA, targets=("v_proj", "q_proj")))
    assert model.lora.targets == ("q_proj", "v_proj")
    assert sum(".lora_A." in name for name, _ in model.named_parameters()) == 4
    model.merge_lora()
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


@pytest.mark.parametrize("target", ["lm_head", "fc1", "0"])
def test_a_target_outside_of_the_blocks_is_refused(llava: tuple[Llava, Processor], target: str) -> None:
    with pytest.raises(AdapterError, match=rf"no linear layer {target}; there are: down_proj, .*v_proj"):
        llava[0].add_lora(replace(LORA, targets=(target,)))
    assert llava[0].lora is None


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_a_senseless_adapter_is_refused(wrong: dict) -> None:
    with pytest.raises(AdapterError, match="rank and alpha are 1 or more"):
        Lora(**wrong)


def test_freezing_the_language_model_freezes_its_adapter(parts: Parts) -> None:
    model = with_adapter(parts)
    model.train_only(["projector"])
    assert not [name for name, weight in model.language_model.named_parameters() if weight.requires_grad]


def test_a_lively_model_takes_an_adapter_in_eval_as_it_is(parts: Parts) -> None:
    model, _ = assemble_lively(parts)
    model.add_lora(replace(LORA, dropout=0.5))
    speak(model)
    batch = batch_of(*examples(model))
    assert torch.equal(logits_of(model, batch), logits_of(model, batch))  # nothing is dropped
