"""The verb: what it reads, what it assumes and says so, and that its advice is one that the run would take."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from llava_lite.budget.activations import Activations, Row
from llava_lite.budget.estimate import Hardware, budget_stage
from llava_lite.budget.hardware import GPUS, BudgetError, find_gpu, usable
from llava_lite.budget.report import overrides
from llava_lite.budget.shapes import Shape
from llava_lite.budget.stages import read_stages
from llava_lite.budget.states import Sizes, Strategy, find_states
from llava_lite.budget.workload import find_workload
from llava_lite.flops import DEVICES, Device
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.pretrained import PartError
from tests.checkpoint.original_llava import Plain
from tests.foreign import ROLES, write_foreign
from tests.test_cli import llava

CONFIGS = Path(__file__).parents[2] / "configs"
GIB = 2**30


@pytest.fixture
def align(clip_dir: Path, lm_dir: Path, world: Path, tmp_path: Path) -> Path:
    """A configuration of stage one on the demo world."""
    return write(tmp_path / "tiny" / "align.yaml", clip_dir, lm_dir, data=world / "captions.json")


def write(path: Path, clip_dir: Path, lm_dir: Path, *, data: Path, **more: Any) -> Path:
    settings = {
        "output_dir": str(path.parent / "out"),
        "model": {"vision_tower": str(clip_dir), "language_model": str(lm_dir)},
        "data": {"path": str(data)},
        "batch": {"samples": 8, "tokens": 256},
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about activations: so many bytes a token, without a pass."""

    def line(shape: Shape, row: Row, **_: Any) -> Activations:
        return Activations(0, 1000 * row.num_tokens)

    monkeypatch.setattr("llava_lite.budget.estimate.measure_activations", line)


def hardware(memory_gib: float = 100.0, count: int = 1) -> Hardware:
    return Hardware("a GPU", Device(1e-3, memory_gib, 500), count, 0.5, 2.0)


@pytest.mark.parametrize("layout", ["whole", "projector", "adapter"])
def test_a_stage_may_start_from_the_originals_checkpoint(
    clip_dir: Path, vicuna_dir: Path, world: Path, tmp_path: Path, layout: str
) -> None:
    original = Plain(vicuna_dir, clip_dir, kind="linear", fields={})
    if layout == "adapter":
        original.write_lora(tmp_path / "m", base=str(vicuna_dir))
    else:
        (original.write_whole if layout == "whole" else original.write_projector)(tmp_path / "m")
    path = write(tmp_path / "finetune.yaml", clip_dir, vicuna_dir, data=world / "captions.json")
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "model": {"checkpoint": str(tmp_path / "m")}}))
    if layout == "adapter":
        with pytest.raises(BudgetError, match="an adapter; make it whole first"):
            read_stages(path, ())
        return
    (stage,) = read_stages(path, ())
    assert (stage.shape.projector, stage.shape.image_mode) == ("linear", "crop" if layout == "whole" else "pad")
    assert (stage.shape.vision.num_hidden_layers, stage.shape.text.vocab_size) == (2, 340)


def test_every_short_name_is_a_device() -> None:
    assert set(GPUS.values()) <= DEVICES.keys()
    assert find_gpu("H200") == find_gpu("NVIDIA H200") == ("NVIDIA H200", DEVICES["NVIDIA H200"])


@pytest.mark.parametrize(("name", "told"), [("h20", "did you mean h200"), ("tpu-v9", "known: "), ("t4", "no bf16")])
def test_an_unknown_gpu_is_named_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(BudgetError, match=told):
        find_gpu(name)


def test_data_that_is_there_is_measured(align: Path) -> None:
    [stage] = read_stages(align, [])
    load = find_workload(stage)
    assert load.told.startswith(f"measured on {load.num_samples} of {load.num_samples} records")
    processor = stage.module.open_processor(stage.config)
    records = json.loads(Path(stage.settings["data"]["path"]).read_text())
    assert load.num_samples == len(records)
    assert load.visual == processor.num_patches and load.tiles == 1
    assert load.visual + 1 < load.tokens < load.visual + 50


def test_known_data_that_is_not_there_is_assumed_and_that_is_said() -> None:
    [stage] = read_stages(CONFIGS / "llava-1.5-7b" / "finetune.yaml", [])
    load = find_workload(stage)
    assert load.told.startswith("assumed of llava_v1_5_mix665k.json, which is not here: 665,298 samples")
    assert load.tokens == pytest.approx(848, abs=2)


def test_other_data_that_is_not_there_is_asked_for(clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    [stage] = read_stages(write(tmp_path / "a" / "align.yaml", clip_dir, lm_dir, data=tmp_path / "mine.json"), [])
    with pytest.raises(BudgetError, match="--samples N --tokens-per-sample N"):
        find_workload(stage)
    load = find_workload(stage, num_samples=1000, tokens_per_sample=30)
    assert (load.num_samples, load.tokens, load.learnt) == (1000, 30, 7)
    with pytest.raises(BudgetError, match="an image alone takes 16"):
        find_workload(stage, num_samples=1000, tokens_per_sample=12)


def test_a_folder_is_both_stages_and_an_adapters_begins_with_the_one_it_starts_from() -> None:
    names = {
        folder: [s.name for s in read_stages(CONFIGS / folder, [])]
        for folder in ("llava-lightning", "llava-1.5-13b-qlora")
    }
    assert names == {
        "llava-lightning": ["llava-lightning/align", "llava-lightning/finetune"],
        "llava-1.5-13b-qlora": ["llava-1.5-13b/align", "llava-1.5-13b-qlora/finetune"],
    }


def test_a_stage_starts_from_the_parts_of_the_stage_that_will_write_its_checkpoint() -> None:
    [small] = read_stages(CONFIGS / "siglip2-qwen3-0.6b" / "finetune.yaml", [])
    assert (small.shape.text.model_type, small.shape.projector) == ("qwen3", "shuffle2_mlp2x_gelu")
    [big] = read_stages(CONFIGS / "llava-1.5-13b-lora" / "finetune.yaml", [])
    assert big.shape.text.hidden_size == 5120 and big.shape.lora is not None
    with pytest.raises(BudgetError, match=r"model.checkpoint=runs/other is not there"):
        read_stages(CONFIGS / "llava-1.5-7b" / "finetune.yaml", ["model.checkpoint=runs/other"])


def test_a_checkpoint_that_is_there_says_what_it_is(llava_dir: Path, world: Path, tmp_path: Path) -> None:
    path = tmp_path / "b" / "finetune.yaml"
    path.parent.mkdir()
    model = {"checkpoint": str(llava_dir)}
    path.write_text(
        yaml.safe_dump({"output_dir": "x", "model": model, "data": {"path": str(world / "instructions.json")}})
    )
    [stage] = read_stages(path, [])
    assert stage.shape.vision is not None and stage.shape.vision.num_hidden_layers == 2  # of three, as it was cut
    assert stage.shape.picture().num_tiles == 1  # type: ignore[union-attr]


def test_a_llava_folder_of_other_making_is_a_start(vicuna_dir: Path, world: Path, tmp_path: Path) -> None:
    write_foreign(tmp_path / "m", load_tokenizer(str(vicuna_dir)), ROLES, anyres=True)
    path = tmp_path / "finetune.yaml"
    model = {"checkpoint": str(tmp_path / "m")}
    path.write_text(
        yaml.safe_dump({"output_dir": "x", "model": model, "data": {"path": str(world / "instructions.json")}})
    )
    [stage] = read_stages(path, [])
    assert stage.shape.vision is not None and stage.shape.vision.num_hidden_layers == 3  # of four, as it will be cut
    assert stage.shape.image_mode == "anyres" and stage.shape.projector == "mlp2x_gelu"


def test_a_hub_id_that_is_neither_known_nor_here_is_an_error_with_the_remedy(
    align: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str) -> None:
        raise PartError(f"{name}: no model here (offline); give a model folder or hub id")

    monkeypatch.setattr("llava_lite.budget.shapes.read_part_config", unreachable)
    with pytest.raises(BudgetError, match=r"some/model: no model here; give a folder .*Qwen/Qwen3-0.6B"):
        read_stages(align, ["model.language_model=some/model"])


def test_hours_are_flops_over_what_the_gpu_does(align: Path, quick: None) -> None:
    [stage] = read_stages(align, ["epochs=3"])
    load = find_workload(stage)
    budget = budget_stage(stage, load, hardware())
    cost = stage.shape.make(torch.bfloat16).cost(stage.shape.tile_size)
    flops = (
        load.tiles * cost.per_tile
        + load.learnt * cost.per_target
        + cost.flops([round(load.tokens)], num_targets=0, num_tiles=0)
    )
    steps = -(-3 * load.num_samples // 8)
    assert budget.own.num_steps == steps
    assert budget.own.hours == pytest.approx(steps * 8 * flops / (1e9 * 0.5) / 3600)
    assert budget.own.mfu == pytest.approx(0.5)
    full = next(way for way in budget.others if way.checkpointing == "full" and way.strategy.name == "ddp")
    blocks = cost.per_token / 2  # frozen they cost 4N, of which 2N are the forward pass that is run again
    again = blocks * round(load.tokens)
    assert full.hours / budget.own.hours == pytest.approx(1 + again / flops, rel=0.02)


def test_gpus_without_a_row_wait_and_shorter_rows_are_proposed(align: Path, quick: None) -> None:
    [stage] = read_stages(align, ["batch.tokens=2048", "batch.samples=64", "data.max_length=64"])
    budget = budget_stage(stage, find_workload(stage), hardware(count=8))
    assert budget.own.rows < 8 and budget.best is not None
    assert budget.best.row_tokens < 2048 and budget.best.rows > budget.own.rows
    assert budget.best.hours < budget.own.hours


def test_full_rows_that_become_shorter_become_more(align: Path, quick: None) -> None:
    [stage] = read_stages(align, ["batch.tokens=4096", "batch.rows=6", "data.max_length=256"])
    load = find_workload(stage)
    needed = budget_stage(stage, load, hardware()).own.states.peak(0) / GIB
    best = budget_stage(stage, load, hardware((needed + 2e6 / GIB + 1) / 0.96))
    assert best.best is not None and best.best.row_tokens < 4096
    assert best.best.rows == -(-6 * 4096 // best.best.row_tokens)
    assert overrides(best)[-2:] == [f"batch.tokens={best.best.row_tokens}", f"batch.rows={best.best.rows}"]


def test_the_advice_is_what_the_configuration_then_says(align: Path, quick: None) -> None:
    given = ["gradient_checkpointing=full"]
    [stage] = read_stages(align, given)
    load = find_workload(stage)
    advice = overrides(budget_stage(stage, load, hardware()))
    assert advice == ["gradient_checkpointing=none"]
    [again] = read_stages(align, [*given, *advice])
    budget = budget_stage(again, load, hardware())
    assert budget.best is budget.own and overrides(budget) == []


def test_where_rows_do_not_fit_the_longest_that_do_are_proposed_and_fit(align: Path, quick: None) -> None:
    [stage] = read_stages(align, ["batch.tokens=65536", "data.max_length=512", "batch.samples=2000"])
    load = find_workload(stage)
    needed = budget_stage(stage, load, hardware()).own.total / GIB
    small = hardware((needed * 0.9 + 1) / 0.96)
    way = budget_stage(stage, load, small).own
    assert not way.fits and 0 < way.largest_row < 65536
    [shorter] = read_stages(align, [f"batch.tokens={way.largest_row}", "data.max_length=512", "batch.samples=2000"])
    own = budget_stage(shorter, load, small).own
    assert own.fits and own.total > 0.97 * usable(small.device, 1)


def test_shares_shrink_with_processes_as_each_strategy_says() -> None:
    sizes = Sizes(2, 2e9, 10**9, 10**9, 0, 10**6, 8e9, 10**7, 10**7, 10**7, 10**7)
    told = {
        (name, offload): find_states(sizes, Strategy(name, offload), kind="adamw", count=4)
        for name, offload in [("ddp", None), ("zero2", None), ("zero3", None), ("fsdp2", None), ("zero3", "all")]
    }
    kept = {key: (s.weights / 1e9, s.gradients / 1e9, s.optimizer / 1e9) for key, s in told.items()}
    assert kept == {
        ("ddp", None): (2, 4, 12),
        ("zero2", None): (2, 0.5, 3),
        ("zero3", None): (0.5, 0.5, 3),
        ("fsdp2", None): (1, 1, 2),
        ("zero3", "all"): (0, 0, 0),
    }
    assert told["zero3", "all"].host == (4 + 4 + 2 + 8 + 2) * 1e9


def test_the_verb_prints_tables_json_and_an_exit_code(
    align: Path, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    command = ["budget", "--config", str(align), "--gpu", "h200", "--count", "8", "--price", "3.5"]
    assert llava(monkeypatch, *command) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("8 x NVIDIA H200", "zero3 offload all", "as configured", "measured on", "45%"))
    assert max(map(len, text.splitlines())) <= 100
    assert llava(monkeypatch, *command, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    own = told["stages"][0]["own"]
    parts = own["bytes"]
    assert own["fits"] and parts["total"] == pytest.approx(
        sum(parts[n] for n in ("weights", "gradients", "optimizer", "activations", "logits", "engine")), abs=8
    )
    assert own["cost"] == pytest.approx(own["hours"] * 8 * 3.5)
    monkeypatch.setattr("llava_lite.budget.hardware.CONTEXT_GIB", 139.0)
    assert llava(monkeypatch, *command) == 1
    assert "Nothing fits" in capsys.readouterr().out


def test_the_verb_refuses_what_it_cannot_reckon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llava(monkeypatch, "budget", "--config", str(CONFIGS / "demo" / "contrastive.yaml"), "--gpu", "h200") == 2
    assert "a budget is made of align and finetune" in capsys.readouterr().err
    assert (
        llava(monkeypatch, "budget", "--config", str(CONFIGS / "llava-lightning"), "--gpu", "h200", "--samples", "9")
        == 2
    )
    assert "name its file" in capsys.readouterr().err
