"""Projectors that make fewer tokens: which patches become one, in which order, and what their folders say."""

import json
from pathlib import Path

import pytest
import torch

from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts
from llava_lite.conversation.message import Conversation
from llava_lite.data.collate import collate
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.models.projector import ProjectorError, make_projector
from tests.conftest import assemble_lively

FEATURES = torch.randn(2, 36, 5, generator=torch.Generator().manual_seed(0))  # a grid of 6 x 6


def squares(features: torch.Tensor, stride: int) -> list[list[torch.Tensor]]:
    """For each tile its squares, for each square its patches, one after another: the plain loop."""
    side = round(features.shape[1] ** 0.5)
    return [
        [
            torch.stack([tile[(row + i) * side + column + j] for i in range(stride) for j in range(stride)])
            for row in range(0, side, stride)
            for column in range(0, side, stride)
        ]
        for tile in features
    ]


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("reduce", ["shuffle", "pool"])
def test_squares_become_tokens_in_raster_order(reduce: str, stride: int) -> None:
    projector = make_projector(f"{reduce}{stride}_mlp2x_gelu", 5, 7)
    table = projector(FEATURES)
    patches = table.unflatten(0, (2, -1))
    assert patches.shape == (2, projector.num_patches(36), 7) == (2, 36 // stride**2, 7)
    mlp = make_projector("mlp2x_gelu", 5 * stride**2 if reduce == "shuffle" else 5, 7)
    mlp.load_state_dict(projector.state_dict())  # the same names
    for tile, expected in zip(patches, squares(FEATURES, stride), strict=True):
        merged = [square.flatten() if reduce == "shuffle" else square.mean(0) for square in expected]
        torch.testing.assert_close(tile, mlp(torch.stack(merged).unsqueeze(0)))


@pytest.mark.parametrize("kind", ["shuffle2_mlp1x_gelu", "pool2_mlp3x_gelu"])
def test_the_linear_layers_keep_their_names(kind: str) -> None:
    names = {name for name, _ in make_projector(kind, 5, 7).named_parameters()}
    depth = int(kind[-7])
    assert names == {f"{2 * i}.{name}" for i in range(depth) for name in ("weight", "bias")}


def test_a_grid_that_does_not_fall_into_squares_says_what_fits() -> None:
    projector = make_projector("shuffle2_mlp2x_gelu", 5, 7)
    assert projector.num_patches(576) == 144
    with pytest.raises(ProjectorError, match=r"grid of 729 patches, 27 a side, .* squares of 2; what fits: 3, 9, 27"):
        projector.num_patches(729)
    with pytest.raises(ProjectorError, match="grid of 32 patches"):
        projector.num_patches(32)


@pytest.mark.parametrize("kind", ["shuffle_mlp2x_gelu", "shuffle1_mlp2x_gelu", "pool2", "pool2_linear", "mlp2x_pool2"])
def test_an_unknown_kind_lists_the_known_ones(kind: str) -> None:
    with pytest.raises(ProjectorError, match=r"known: linear, mlp<N>x_gelu .* shuffle<S>_mlp<N>x_gelu and pool<S>"):
        make_projector(kind, 5, 7)


@pytest.mark.parametrize("kind", ["shuffle2_mlp2x_gelu", "pool4_mlp2x_gelu"])
def test_a_model_with_fewer_tokens_learns_saves_and_answers(
    clip_dir: Path, lm_dir: Path, world: Path, tmp_path: Path, kind: str
) -> None:
    images = sorted((world / "images").glob("*.png"))[:2]
    model, processor = assemble_lively(Parts(str(clip_dir), str(lm_dir), projector=kind))
    assert processor.num_patches == {"s": 4, "p": 1}[kind[0]]
    asked = Conversation().ask("What is it?", images)
    example = processor.encode(asked.answer("A red cat."))
    assert int((example.input_ids == model.image_token_id).sum()) == 2 * processor.num_patches
    batch = collate([example, example], num_patches=processor.num_patches, packed=True, tile_size=32)
    model.train_only(["projector"])
    loss = model(**batch)
    loss.sum.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.projector.parameters())

    save(tmp_path, model.eval(), processor)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llava_lite"
    again, their_processor = load(tmp_path, dtype=torch.float32)
    assert torch.equal(again.eval()(**batch).sum, loss.sum)
    sampling = Sampling(max_new_tokens=5)
    answers = [Assistant(m, p).reply([asked], sampling) for m, p in ((model, processor), (again, their_processor))]
    assert answers[0] == answers[1] != [""]
