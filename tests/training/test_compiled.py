"""Compiled layers compute what they did, and are not compiled again for every row."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from llava_lite.conversation.message import Conversation
from llava_lite.data.collate import collate
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from llava_lite.stage import StageConfig
from llava_lite.training.compiled import compile_layers
from llava_lite.training.memory import checkpoint_layers

BACKEND = "aot_eager"  # all of torch.compile but the last step, which writes C++
PACKS = ([0, 1, 2], [3, 4], [5, 6, 7, 0, 2], [1], [2, 3, 4], [6, 7])
"""Which of eight samples stand in each row."""
WARM_UP = 4


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def rows_of(processor: Processor, world: Path) -> list[dict]:
    """Packed rows of other lengths, numbers of documents and of images."""
    images = sorted((world / "images").glob("*.png"))
    examples = [
        processor.encode(
            Conversation()
            .ask("What is it?", [images[i]] if i % 3 else [])
            .answer("A" + " red" * (i * i % 7) + " circle.")
        )
        for i in range(8)
    ]
    packs = [[examples[i] for i in pack] for pack in PACKS]
    return [collate(pack, num_patches=processor.num_patches, packed=True, tile_size=32) for pack in packs]


def learn(model: Llava, row: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**row).sum
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_loss_and_gradients_are_the_same_and_later_rows_compile_nothing(
    llava: tuple[Llava, Processor], world: Path
) -> None:
    model, processor = llava
    model.train_only(["projector", "language_model"])
    checkpoint_layers(model, 2)  # some layers are, some are not
    rows = rows_of(processor, world)
    expected = [learn(model, row) for row in rows]
    names = list(model.state_dict())
    compile_layers(model, BACKEND)
    assert list(model.state_dict()) == names
    for number, (row, (loss, grads)) in enumerate(zip(rows, expected, strict=True)):
        if number == WARM_UP:
            num_graphs = counters["stats"]["unique_graphs"]
        own_loss, own_grads = learn(model, row)
        torch.testing.assert_close(own_loss, loss, rtol=1e-5, atol=0)
        assert own_grads.keys() == grads.keys()
        for name, grad in own_grads.items():
            torch.testing.assert_close(grad, grads[name], rtol=1e-5, atol=1e-5)
    assert 0 < num_graphs == counters["stats"]["unique_graphs"] < 12


def test_answering_compiles_nothing(llava: tuple[Llava, Processor]) -> None:
    assistant = Assistant(*llava)
    expected = assistant.ask("What is it?", sampling=Sampling(max_new_tokens=3))
    compile_layers(assistant.model, BACKEND)
    assert assistant.ask("What is it?", sampling=Sampling(max_new_tokens=3)) == expected
    assert counters["stats"]["unique_graphs"] == 0


def test_layers_whose_weights_are_gathered_inside_them_are_not_compiled() -> None:
    with pytest.raises(ValueError, match=r"fuse=compile: zero3 .* set parallel\.strategy=fsdp2, or leave fuse out"):
        StageConfig(output_dir="run", data={}, fuse="compile", parallel={"strategy": "zero3"})
