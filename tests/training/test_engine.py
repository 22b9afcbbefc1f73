"""One optimiser step is one exact mean, however it is cut up; rates and groups are what was asked for."""

import math
from pathlib import Path

import pytest
import torch

from llava_lite.conversation.message import Conversation
from llava_lite.data.collate import collate
from llava_lite.example import IGNORE
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from llava_lite.training.config import OptimConfig, RunConfig
from llava_lite.training.engine import PlainEngine
from llava_lite.training.optimizer import make_optimizer, schedule


def batches_of(processor: Processor, world: Path, rows: int) -> list[dict]:
    """Eight conversations with answers of ragged lengths, in batches of `rows`."""
    images = sorted((world / "images").glob("*.png"))
    examples = [
        processor.encode(Conversation().ask("What is it?", [images[i]]).answer("A" + " red" * (i * i % 7) + " circle."))
        for i in range(8)
    ]
    groups = [examples[i : i + rows] for i in range(0, 8, rows)]
    return [collate(g, num_patches=processor.num_patches, packed=False, tile_size=32) for g in groups]


def learn(llava: tuple[Llava, Processor], world: Path, rows: int, **optim: object) -> tuple[float, dict]:
    """One step from the same start; returns its loss and the gradients it was made of."""
    model, processor = llava
    model.train_only(["projector", "language_model"])
    batches = batches_of(processor, world, rows)
    engine = PlainEngine(model, OptimConfig(lr=1e-9, **optim), num_steps=4)
    grads: dict[str, torch.Tensor] = {}
    step = engine.optimizer.step
    engine.optimizer.step = lambda: grads.update({n: p.grad.clone() for n, p in engine.parameters.items()}) or step()
    result = engine.train_step(0, batches, sum(int((b["labels"] != IGNORE).sum()) for b in batches))
    return result.loss, grads


def test_1x8_2x4_and_4x2_give_equal_gradients(parts, world: Path) -> None:
    from tests.conftest import assemble_lively

    results = [learn(assemble_lively(parts), world, rows) for rows in (8, 1, 2, 4)]
    for loss, grads in results[1:]:
        assert abs(loss - results[0][0]) < 1e-6
        for name, grad in grads.items():
            torch.testing.assert_close(grad, results[0][1][name], atol=1e-6, rtol=0)


def test_a_step_can_be_the_mean_of_its_batches_means(llava: tuple[Llava, Processor], world: Path) -> None:
    model, processor = llava
    batches = batches_of(processor, world, 2)
    means = []
    with torch.no_grad():
        for batch in batches:
            loss = model(**batch)
            means.append((loss.sum / loss.count).item())
    loss, _ = learn(llava, world, 2, loss_average="microbatch")
    assert loss == pytest.approx(sum(means) / len(means), rel=1e-6)
    assert loss != pytest.approx(learn(llava, world, 2)[0], rel=1e-4)


@pytest.mark.parametrize("kind", ["adamw_8bit", "paged_adamw", "sgd"])
def test_every_optimiser_learns_and_goes_on_from_its_state(parts, world: Path, kind: str) -> None:
    from tests.conftest import assemble_lively

    config = OptimConfig(lr=1e-2, kind=kind, warmup_ratio=0)
    losses: list[list[float]] = []
    weights: dict[str, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for _ in range(2):
        model, processor = assemble_lively(parts)
        model.train_only(["projector", "language_model"])
        engine = PlainEngine(model, config, num_steps=4)
        batches = batches_of(processor, world, 4)
        if losses:
            model.load_state_dict(weights)
            engine.load_state(state)
        else:
            engine.train_step(0, batches, 40)
            state = {name: value.clone() for name, value in engine.state().items()}
            weights = {name: value.clone() for name, value in engine.weights().items()}
        losses.append([engine.train_step(step, batches, 40).loss for step in (1, 2)])
    assert losses[0] == losses[1] and losses[0][1] < losses[0][0]


def test_weights_of_bf16_learn_through_fp32_masters_and_go_on_from_them(parts, world: Path) -> None:
    from tests.conftest import assemble_lively

    model, processor = assemble_lively(parts)
    model.to(torch.bfloat16).train_only(["projector"])
    batches = batches_of(processor, world, 4)
    engine = PlainEngine(model, OptimConfig(lr=1e-6, warmup_ratio=0), num_steps=9)
    before = {name: master.clone() for name, master in engine.masters.items()}
    for step in range(2):
        engine.train_step(step, batches, 40)
    for name, master in engine.masters.items():
        assert master.dtype == torch.float32 and not torch.equal(master, before[name])  # too small a step for bf16
        assert torch.equal(engine.parameters[name], master.to(torch.bfloat16))
    state = {name: value.clone() for name, value in engine.state().items()}
    other_model, _ = assemble_lively(parts)
    other_model.to(torch.bfloat16).train_only(["projector"])
    other = PlainEngine(other_model, OptimConfig(lr=1e-6, warmup_ratio=0), num_steps=9)
    other.load_state(state)
    assert all(torch.equal(master, other.masters[name]) for name, master in engine.masters.items())
    assert engine.train_step(2, batches, 40) == other.train_step(2, batches, 40)


def test_an_optimiser_whose_state_cannot_be_shared_out_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"optim\.kind=adamw_8bit cannot be shared out; set parallel\.strategy=ddp"):
        RunConfig(output_dir="run", optim={"kind": "adamw_8bit"}, parallel={"strategy": "zero2"})


def test_clipping_bounds_the_norm_of_the_whole_step(llava: tuple[Llava, Processor], world: Path) -> None:
    _, grads = learn(llava, world, 2, clip=0.01)
    assert math.isclose(torch.stack([g.norm() for g in grads.values()]).norm().item(), 0.01, rel_tol=1e-3)


def test_frozen_parts_have_no_group_and_the_projector_its_own_rate(llava: tuple[Llava, Processor]) -> None:
    model, _ = llava
    model.train_only(["projector", "language_model"])
    optimizer = make_optimizer(model.parts(), OptimConfig(lr=1e-4, projector_lr=1e-3))
    assert {g["part"]: g["lr"] for g in optimizer.param_groups} == {"projector": 1e-3, "language_model": 1e-4}
    rows = {row["part"]: row for row in PlainEngine(model, OptimConfig(lr=1e-4), num_steps=1).describe()}
    assert rows["vision_tower"]["trains"] == 0 and rows["vision_tower"]["lr"] is None
    assert rows["projector"]["trains"] == rows["projector"]["parameters"] > 0


def test_weight_decay_spares_biases_and_norms(llava: tuple[Llava, Processor]) -> None:
    model, _ = llava
    model.train_only(["projector", "language_model"])
    for group in make_optimizer(model.parts(), OptimConfig(weight_decay=0.1)).param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.85355, 0.5, 0.14645]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules_warm_up_over_whole_steps_and_fall(kind: str, factors: list[float]) -> None:
    config = OptimConfig(schedule=kind, warmup_ratio=0.3)  # ceil(0.3 * 6) = 2 steps
    assert [schedule(config, step, 6) for step in range(6)] == pytest.approx(factors, abs=1e-4)


def test_the_optimisers_state_comes_back_whole(parts, world: Path) -> None:
    from tests.conftest import assemble_lively

    model, processor = assemble_lively(parts)
    model.train_only(["projector"])
    batches = batches_of(processor, world, 4)
    engine = PlainEngine(model, OptimConfig(lr=1e-2), num_steps=4)
    engine.train_step(0, batches, 40)
    other_model, _ = assemble_lively(parts)
    other_model.load_state_dict(model.state_dict())
    other_model.train_only(["projector"])
    other = PlainEngine(other_model, OptimConfig(lr=1e-2), num_steps=4)
    other.load_state({name: value.clone() for name, value in engine.state().items()})
    for step in (1, 2):
        assert engine.train_step(step, batches, 40) == other.train_step(step, batches, 40)
    assert all(torch.equal(p, other.parameters[n]) for n, p in engine.parameters.items())
