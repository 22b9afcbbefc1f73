"""Parts are loaded whole or not at all, and named when they are not known."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_lite.models.language_model import fit_embeddings, load_language_model
from llava_lite.models.loss import contrastive_loss
from llava_lite.models.pretrained import PartError
from llava_lite.models.projector import ProjectorError, make_projector
from llava_lite.models.vision_tower import load_vision_tower


def damaged(source: Path, target: Path, *, drop: str = "", add: str = "") -> Path:
    """Copy a model folder with one weight less or one more."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights = {name: w for name, w in weights.items() if not drop or drop not in name}
    if add:
        weights[add] = torch.zeros(1)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_missing_weight_is_named(lm_dir: Path, tmp_path: Path) -> None:
    folder = damaged(lm_dir, tmp_path / "lm", drop="layers.1.mlp.up_proj")
    with pytest.raises(PartError, match=r"1 missing weights: model.layers.1.mlp.up_proj.weight"):
        load_language_model(str(folder), dtype=torch.float32)


def test_an_unexpected_weight_is_named(lm_dir: Path, tmp_path: Path) -> None:
    folder = damaged(lm_dir, tmp_path / "lm", add="model.extra.weight")
    with pytest.raises(PartError, match=r"1 unexpected weights: model.extra.weight"):
        load_language_model(str(folder), dtype=torch.float32)


def test_a_tower_may_leave_the_text_half_but_nothing_else(clip_dir: Path, tmp_path: Path) -> None:
    load_vision_tower(str(clip_dir), feature_layer=-2, dtype=torch.float32)
    folder = damaged(clip_dir, tmp_path / "clip", add="vision_model.encoder.layers.1.extra.weight")
    with pytest.raises(PartError, match="unexpected weights"):
        load_vision_tower(str(folder), feature_layer=-2, dtype=torch.float32)


def test_a_layer_that_is_not_there_is_an_error(clip_dir: Path) -> None:
    with pytest.raises(PartError, match="has no layer -9; it has 3 blocks"):
        load_vision_tower(str(clip_dir), feature_layer=-9, dtype=torch.float32)


def test_an_unknown_model_type_lists_the_known_ones(lm_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(PartError, match="unknown language model 'gpt2'; known: llama"):
        load_language_model(str(tmp_path), dtype=torch.float32)
    with pytest.raises(PartError, match="unknown vision tower 'llama'; known: clip, clip_vision_model"):
        load_vision_tower(str(lm_dir), feature_layer=-2, dtype=torch.float32)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(PartError, match="no model here"):
        load_language_model(str(tmp_path), dtype=torch.float32)


def test_new_rows_are_the_mean_of_the_old_ones(lm_dir: Path) -> None:
    model = load_language_model(str(lm_dir), dtype=torch.float32)
    old = model.get_input_embeddings().weight.detach().clone()
    fit_embeddings(model, len(old) + 2)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert len(layer.weight) == len(old) + 2
        torch.testing.assert_close(layer.weight[-1], layer.weight[: len(old)].mean(0))
    assert torch.equal(model.get_input_embeddings().weight[: len(old)], old)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("linear", {"0.weight", "0.bias"}),
        ("mlp2x_gelu", {"0.weight", "0.bias", "2.weight", "2.bias"}),
        ("mlp3x_gelu", {f"{i}.{n}" for i in (0, 2, 4) for n in ("weight", "bias")}),
    ],
)
def test_projectors_have_the_originals_names(kind: str, names: set[str]) -> None:
    projector = make_projector(kind, 8, 12)
    assert set(projector.state_dict()) == names
    assert projector(torch.zeros(2, 5, 8)).shape == (10, 12)


@pytest.mark.parametrize("kind", ["mlp0x_gelu", "mlp2x_relu", "MLP2x_gelu", ""])
def test_an_unknown_projector_is_an_error(kind: str) -> None:
    with pytest.raises(ProjectorError, match="known: linear, mlp<N>x_gelu"):
        make_projector(kind, 8, 12)


def test_contrastive_loss_with_one_positive_each_is_clips() -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(5)
    clip = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
    loss = contrastive_loss(logits, torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(loss.sum / loss.count, clip)


def test_contrastive_loss_does_not_push_apart_what_is_the_same() -> None:
    positives = torch.ones(2, 2, dtype=torch.bool)
    even = torch.zeros(2, 2, requires_grad=True)
    contrastive_loss(even, positives).sum.backward()
    assert even.grad.abs().max() < 1e-7
