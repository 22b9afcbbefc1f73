"""A tower's features are the selected layer's hidden states: no final norm, no class tokens, nothing above it kept."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts
from llava_lite.conversation.message import Conversation
from llava_lite.example import Example
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import PartError
from llava_lite.models.vision_tower import TOWERS, count_patches, load_vision_tower
from llava_lite.processor import Processor
from llava_lite.training.memory import transformer_layers
from tests.conftest import assemble_lively
from tests.families import TOWER_CONFIGS, write_tower

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_every_tower_is_tested() -> None:
    assert {*TOWER_CONFIGS, "clip", "clip_vision_model"} == set(TOWERS)  # CLIP's in test_llava.py


@pytest.mark.parametrize("layer", [-1, -2, 1])
@pytest.mark.parametrize("model_type", TOWER_CONFIGS)
def test_features_are_the_selected_hidden_state(tmp_path: Path, model_type: str, layer: int) -> None:
    original = write_tower(tmp_path, model_type)
    vision = original.vision_model if model_type == "siglip" else original
    tower = load_vision_tower(str(tmp_path), feature_layer=layer, dtype=torch.float32)
    with torch.no_grad():
        hidden = vision(PIXELS, output_hidden_states=True).hidden_states[layer]
        features = tower(PIXELS)
    assert features.shape == (2, count_patches(tower.model.config, 32), tower.hidden_size) == (2, 16, 32)
    assert torch.equal(features, hidden[:, -16:])
    assert tower.model.config.num_hidden_layers == {-1: 3, -2: 2, 1: 1}[layer]
    assert not any("head." in name for name in tower.state_dict())


@pytest.mark.parametrize("model_type", TOWER_CONFIGS)
def test_no_layers_hidden_states_are_kept(tmp_path: Path, model_type: str) -> None:
    write_tower(tmp_path, model_type)
    tower = load_vision_tower(str(tmp_path), feature_layer=-1, dtype=torch.float32)
    ran: list[str] = []
    for name, module in tower.model.named_modules():
        module.register_forward_hook(lambda m, args, out, name=name: ran.append(name))
    tower(PIXELS)
    assert not {"post_layernorm", "layernorm", "head"} & set(ran)


@pytest.mark.parametrize("model_type", TOWER_CONFIGS)
def test_a_learning_tower_learns_what_its_features_come_from_and_nothing_else(tmp_path: Path, model_type: str) -> None:
    write_tower(tmp_path, model_type)
    tower = load_vision_tower(str(tmp_path), feature_layer=-1, dtype=torch.float32)
    tower.train_layers(None)
    tower(PIXELS).sum().backward()
    named = dict(tower.named_parameters())
    assert {name for name, p in named.items() if p.requires_grad} == {n for n, p in named.items() if p.grad is not None}
    tower.train_layers(1)
    assert sum(p.requires_grad for p in named.values()) == len(list(transformer_layers(tower)[-1].parameters()))
    with pytest.raises(PartError, match=r"vision_layers=4: the tower runs 3 layers; choose"):
        tower.train_layers(4)


def test_dinov2_takes_tiles_of_whole_patches_and_the_others_of_their_size(tmp_path: Path) -> None:
    write_tower(tmp_path / "dinov2", "dinov2")
    write_tower(tmp_path / "siglip", "siglip")
    dinov2, siglip = (
        load_vision_tower(str(tmp_path / name), feature_layer=-2, dtype=torch.float32) for name in ("dinov2", "siglip")
    )
    assert [count_patches(dinov2.model.config, size) for size in (16, 32, 48, 64)] == [4, 16, 36, 64]
    with pytest.raises(PartError, match="tiles of a multiple of 8 pixels, not of 36"):
        count_patches(dinov2.model.config, 36)
    with pytest.raises(PartError, match="tiles of 32 pixels, not of 48"):
        count_patches(siglip.model.config, 48)


def test_a_tower_leaves_the_other_half_and_its_head_but_nothing_else(tmp_path: Path) -> None:
    write_tower(tmp_path, "siglip")
    load_vision_tower(str(tmp_path), feature_layer=-2, dtype=torch.float32)
    weights = load_file(tmp_path / "model.safetensors")
    assert any("text_model." in name for name in weights) and any("vision_model.head." in name for name in weights)
    weights["vision_model.encoder.layers.1.extra.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PartError, match=r"1 unexpected weights: .*extra.weight"):
        load_vision_tower(str(tmp_path), feature_layer=-2, dtype=torch.float32)


@pytest.mark.parametrize("model_type", ["siglip2", "siglip2_vision_model"])
def test_a_flexible_siglip_2_is_refused_with_the_one_to_take(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(PartError, match=r"NaFlex.*use the SigLIP 2 of fixed size"):
        load_vision_tower(str(tmp_path), feature_layer=-2, dtype=torch.float32)


def encode(processor: Processor, world: Path) -> Example:
    return processor.encode(Conversation().ask("What is it?", [sorted((world / "images").glob("*.png"))[0]]))


@torch.no_grad()
def logits_of(model: Llava, one: Example) -> torch.Tensor:
    return model.logits(
        input_ids=one.input_ids[None],
        position_ids=torch.arange(len(one.input_ids))[None],
        pixel_values=one.pixel_values,
        patch_index=one.patch_index,
    )


@pytest.fixture(params=[(name, layer) for name in TOWER_CONFIGS for layer in (-1, -2)], ids=str)
def assembled(request, lm_dir: Path, tmp_path: Path) -> tuple[Llava, Processor]:
    model_type, layer = request.param
    write_tower(tmp_path / "tower", model_type)
    return assemble_lively(Parts(str(tmp_path / "tower"), str(lm_dir), vision_feature_layer=layer))


def test_a_folder_with_this_tower_opens_in_transformers(
    assembled: tuple[Llava, Processor], tmp_path: Path, world: Path
) -> None:
    model, processor = assembled
    save(tmp_path / "llava", model, processor)
    assert json.loads((tmp_path / "llava" / "config.json").read_text())["model_type"] == "llava"
    theirs, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    picture = str(sorted((world / "images").glob("*.png"))[0])
    content = [{"type": "image", "path": picture}, {"type": "text", "text": "What is it?"}]
    inputs = AutoProcessor.from_pretrained(tmp_path / "llava").apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    one = encode(processor, world)
    assert inputs["input_ids"][0].tolist() == one.input_ids.tolist()
    with torch.no_grad():
        logits = theirs(**inputs).logits
    torch.testing.assert_close(logits, logits_of(model, one), atol=1e-5, rtol=1e-5)


def test_a_folder_with_this_tower_loads_bit_equal(
    assembled: tuple[Llava, Processor], tmp_path: Path, world: Path
) -> None:
    model, processor = assembled
    save(tmp_path / "llava", model, processor)
    again, _ = load(tmp_path / "llava", dtype=torch.float32)
    assert again.state_dict().keys() == model.state_dict().keys()
    one = encode(processor, world)
    assert torch.equal(logits_of(model, one), logits_of(again.eval(), one))


def test_a_dinov2_with_gates_is_ours_alone(lm_dir: Path, tmp_path: Path, world: Path) -> None:
    """The giant's published folder joins gate and values in one matrix, so that names alone do not translate it."""
    write_tower(tmp_path / "tower", "dinov2", use_swiglu_ffn=True)
    model, processor = assemble_lively(Parts(str(tmp_path / "tower"), str(lm_dir)))
    save(tmp_path / "llava", model, processor)
    assert json.loads((tmp_path / "llava" / "config.json").read_text())["model_type"] == "llava_lite"
    again, _ = load(tmp_path / "llava", dtype=torch.float32)
    one = encode(processor, world)
    assert torch.equal(logits_of(model, one), logits_of(again.eval(), one))
