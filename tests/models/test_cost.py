"""What a model says a step costs is what torch's own counter counts of a real one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface

from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.data.collate import collate
from llava_lite.example import IGNORE, Example
from llava_lite.flops import num_pairs
from llava_lite.models import attention
from llava_lite.models.clip import load_clip
from llava_lite.models.llava import Llava
from tests.families import LANGUAGES, TOWER_CONFIGS, write_language, write_tower

TILE = 32
TRAINED = {"align": ["projector"], "finetune": ["projector", "language_model"], "tower": ["vision_tower", "projector"]}


def example(model: Llava, length: int, num_tiles: int) -> Example:
    """A document that begins with images and learns half of its words."""
    ids = torch.cat([torch.full((16 * num_tiles,), model.image_token_id), torch.arange(3, 3 + length)])
    labels = torch.where(torch.arange(len(ids)) < len(ids) - length // 2, IGNORE, ids)
    return Example(ids, labels, torch.randn(num_tiles, 3, TILE, TILE), torch.arange(16 * num_tiles))


def counted(model: torch.nn.Module, batch: Mapping[str, Any]) -> int:
    """FLOPs of a forward and a backward pass by torch; the fused attention of CPUs is none that it counts."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(**batch).sum.backward()
    return counter.get_total_flops()


def whole_squares(model: Llava, documents: list[int]) -> int:
    """What attention without a causal kernel computes beyond the pairs that are seen."""
    pairs = model.cost(TILE).per_pair
    return sum(per_pair * (n * n - num_pairs(n, window)) for window, per_pair in pairs.items() for n in documents)


def check(model: Llava) -> None:
    """Two packed documents, of two pictures and of none."""
    examples = [example(model, 9, 2), example(model, 6, 0)]
    documents = [len(one.input_ids) for one in examples]
    learnt = sum(int((one.labels[1:] != IGNORE).sum()) for one in examples)
    ours = model.cost(TILE).flops(documents, num_targets=learnt, num_tiles=2)
    batch = collate(examples, num_patches=16, packed=True, tile_size=TILE)
    assert ours + whole_squares(model, documents) == pytest.approx(counted(model, batch), rel=0.01)


@pytest.mark.parametrize("trained", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("name", LANGUAGES)
def test_every_family_costs_what_torch_counts(
    name: str, trained: list, clip_dir: Path, lm_dir: Path, tmp_path: Path
) -> None:
    folder = write_language(tmp_path, LANGUAGES[name], lm_dir)
    model, _ = assemble(Parts(str(clip_dir), str(folder), template="vicuna_v1"), dtype=torch.float32)
    model.train_only(trained)
    check(model)


@pytest.mark.parametrize("model_type", TOWER_CONFIGS)
@pytest.mark.parametrize("projector", ["linear", "shuffle2_mlp2x_gelu"])
def test_every_tower_costs_what_torch_counts(model_type: str, projector: str, lm_dir: Path, tmp_path: Path) -> None:
    write_tower(tmp_path, model_type)
    model, processor = assemble(Parts(str(tmp_path), str(lm_dir), projector=projector), dtype=torch.float32)
    model.train_only(["vision_tower", "projector"])
    batch = collate([Example(*tiles(model, processor.num_patches))], num_patches=16, packed=True, tile_size=TILE)
    documents = [batch["input_ids"].shape[1]]
    ours = model.cost(TILE).flops(documents, num_targets=documents[0] - 1, num_tiles=2)
    assert ours + whole_squares(model, documents) == pytest.approx(counted(model, batch), rel=0.01)


def tiles(model: Llava, num_patches: int) -> tuple[torch.Tensor, ...]:
    """A document of two tiles and four words."""
    places = torch.full((2 * num_patches,), model.image_token_id)
    ids = torch.cat([places, torch.arange(3, 7)])
    return ids, ids, torch.randn(2, 3, TILE, TILE), torch.arange(2 * num_patches)


def test_adapters_learn_and_what_they_adapt_does_not(parts: Parts) -> None:
    model, _ = assemble(parts, dtype=torch.float32)
    model.train_only(["projector"])
    before = model.cost(TILE).per_token
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj", "down_proj"]), model.language_model)
    check(model)
    assert before < model.cost(TILE).per_token < 1.5 * before


def test_windows_are_those_that_attention_is_asked_for(lm_dir: Path, tmp_path: Path) -> None:
    for number, language in enumerate(LANGUAGES.values()):
        folder = write_language(tmp_path / str(number), language, lm_dir)
        model, _ = assemble(Parts(None, str(folder), template="vicuna_v1"), dtype=torch.float32)
        asked: dict[int | None, int] = {}

        def spy(*args: Any, asked: dict = asked, **kwargs: Any) -> Any:
            window = kwargs.get("sliding_window")
            asked[window] = asked.get(window, 0) + 1
            return attention.attend_per_document(*args, **kwargs)

        AttentionInterface.register(attention.PER_DOCUMENT, spy)
        try:
            model(**collate([example(model, 9, 0)], num_patches=16, packed=True, tile_size=0))
        finally:
            AttentionInterface.register(attention.PER_DOCUMENT, attention.attend_per_document)
        pairs = model.cost(0).per_pair
        per_layer = sum(pairs.values()) // 2
        assert pairs == {window: count * per_layer for window, count in asked.items()}, language


def test_clip_costs_what_torch_counts(clip_dir: Path) -> None:
    clip = load_clip(str(clip_dir), dtype=torch.float32)
    batch = {
        "pixel_values": torch.randn(3, 3, TILE, TILE),
        "input_ids": torch.tensor([[0, 4, 5, 6, 2]] * 3),
        "attention_mask": torch.ones(3, 5, dtype=torch.long),
        "positives": torch.eye(3, dtype=torch.bool),
    }
    cost = clip.cost(TILE)
    ours = cost.flops([5] * 3, num_targets=3, num_tiles=3) + 3 * cost.per_pair[None] * (25 - num_pairs(5))
    assert ours == pytest.approx(counted(clip, batch), rel=0.01)
