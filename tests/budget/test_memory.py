"""What the budget says of memory is what the allocator gave out, in a real step of a real model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPVisionConfig, LlamaConfig, PretrainedConfig, Qwen3Config

from llava_lite.budget.activations import Row, make_batch, make_hollow, measure_activations, run_pass
from llava_lite.budget.shapes import Shape
from llava_lite.budget.states import Strategy, count_sizes, find_states
from llava_lite.models.adapter import Lora
from llava_lite.models.llava import Llava
from llava_lite.training.config import OptimConfig, ParallelConfig
from llava_lite.training.engine import make_engine
from llava_lite.training.memory import Checkpointing, checkpoint_layers

SIZES: dict[str, Any] = {
    "vocab_size": 2000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}
VISION = CLIPVisionConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
)
LLAMA = LlamaConfig(**SIZES)
QWEN3 = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True)
ROW = Row(num_tokens=512, num_targets=200, num_tiles=4, num_visual=64)
WHOLE = ("projector", "language_model")


def shape(train: tuple, *, lora: Lora | None = None, text: PretrainedConfig = LLAMA) -> Shape:
    return Shape(vision=VISION, text=text, projector="mlp2x_gelu", image_mode="pad", train=train, lora=lora)


def real(shape: Shape) -> Llava:
    """The same modules, with contents."""
    model = shape.make(torch.float32).to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=0.02)
            else:
                tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))  # positions
    model.language_model.tie_weights()
    return model


def measured(shape: Shape, row: Row, checkpointing: Checkpointing, parallel: ParallelConfig) -> int:
    """Bytes at the fullest moment of the second step, of two batches: what there was, and what came and went since."""
    model = real(shape)
    checkpoint_layers(model, checkpointing)
    engine = make_engine(model, OptimConfig(), parallel, num_steps=2)
    batches = [make_batch(model, row)] * 2
    engine.train_step(0, batches, 2 * row.num_targets)
    kept = [*model.parameters(), *(v for state in engine.optimizer.state.values() for v in state.values())]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        engine.train_step(1, batches, 2 * row.num_targets)
    live = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return sum(storages.values()) + peak


def estimated(shape: Shape, row: Row, checkpointing: Checkpointing) -> float:
    sizes = count_sizes(shape.make(torch.float32), shape, kind="adamw")
    activations = measure_activations(shape, row, checkpointing=checkpointing, dtype=torch.float32)
    return find_states(sizes, Strategy("ddp"), kind="adamw", count=1).peak(activations.total)


@pytest.mark.parametrize(
    ("shape", "checkpointing"),
    [
        pytest.param(shape(("projector",)), "none", id="align"),
        pytest.param(shape(("projector",)), "full", id="align, checkpointing"),
        pytest.param(shape(WHOLE), "none", id="finetune"),
        pytest.param(shape(WHOLE), "full", id="finetune, checkpointing"),
        pytest.param(shape(WHOLE), 2, id="finetune, checkpointing every second layer"),
        pytest.param(shape(WHOLE, lora=Lora(rank=16)), "none", id="lora"),
        pytest.param(shape(WHOLE, lora=Lora(rank=16)), "full", id="lora, checkpointing"),
        pytest.param(shape(("vision_tower", *WHOLE)), "none", id="tower"),
        pytest.param(shape(WHOLE, text=QWEN3), "none", id="grouped heads, tied head"),
    ],
)
def test_a_step_holds_what_the_budget_says(shape: Shape, checkpointing: Checkpointing) -> None:
    found = measured(shape, ROW, checkpointing, ParallelConfig())
    assert estimated(shape, ROW, checkpointing) == pytest.approx(found, rel=0.02)


def test_a_row_of_targets_is_reckoned_with() -> None:
    row = replace(ROW, num_targets=ROW.num_tokens)
    assert estimated(shape(WHOLE), row, "full") == pytest.approx(
        measured(shape(WHOLE), row, "full", ParallelConfig()), rel=0.02
    )


@pytest.mark.parametrize("checkpointing", ["none", "full", 2, 3])
def test_layers_that_are_not_run_are_added_as_if_they_were(checkpointing: Checkpointing) -> None:
    deep = shape(WHOLE, text=LlamaConfig(**{**SIZES, "num_hidden_layers": 11}))
    all_run, _ = run_pass(make_hollow(deep, torch.bfloat16, checkpointing), ROW)
    few_run = measure_activations(deep, ROW, checkpointing=checkpointing, dtype=torch.bfloat16)
    assert few_run == all_run


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_few_bits_are_counted_as_bitsandbytes_stores_them(quantize: Any, lm_dir: Path) -> None:
    from llava_lite.models.language_model import load_language_model

    loaded = load_language_model(str(lm_dir), dtype=torch.float32, quantize=quantize)
    kept = sum(parameter.numel() * parameter.element_size() for parameter in loaded.parameters())
    for module in loaded.modules():
        for parameter in module.parameters(recurse=False):
            state = vars(parameter).get("quant_state")
            if state is not None:
                kept += state.absmax.nbytes + state.state2.absmax.nbytes
            elif quantize == "8bit" and parameter.dtype == torch.int8:
                kept += 4 * parameter.shape[0]
    about = Shape(
        None, loaded.config.__class__.from_pretrained(lm_dir), "linear", "pad", ("language_model",), quantize=quantize
    )
    sizes = count_sizes(about.make(torch.float32), about, kind="adamw")
    assert sizes.weights == kept
