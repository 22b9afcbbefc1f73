"""Train and serve agree: one conversation about one picture, as training collates it, as the Python API, and our server
through our client, give it to the model, and as transformers' own processor makes it from the exported folder.

Equal are the ids and the pixels, for every chat template and three kinds of tokenizers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage
from transformers import AutoProcessor

from llava_lite.checkpoint.folder import save
from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.loader import LoaderConfig, read_steps
from llava_lite.data.mixture import DataConfig
from llava_lite.data.steps import plan_steps
from llava_lite.example import hash_tile
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.batching import Batcher
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.remote import RemoteChat
from llava_lite.models.language_model import fit_embeddings
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from llava_lite.serve.config import ServerConfig
from tests.checkpoint.test_chat_template import ROWS
from tests.serve.running import running

TURNS = ("What color is it ?", "A red circle.", "And what is left of it ?", "Nothing.")
SPELLED = "Is </s> or <image> or ### in it ?"
ONE = Sampling(max_new_tokens=1)


@dataclass(frozen=True)
class Given:
    """What a model is given: ids [T], and of each tile a hash of its pixels."""

    ids: list[int]
    tiles: list[bytes]


def given(input_ids: torch.Tensor, pixel_values: torch.Tensor) -> Given:
    return Given(input_ids.tolist(), [hash_tile(tile.contiguous()) for tile in pixel_values])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Wider than high, so that how it is made square shows."""
    path = tmp_path / "picture.png"
    noise = torch.randint(0, 256, (40, 61, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    PilImage.fromarray(noise.numpy()).save(path)
    return path


@pytest.fixture(scope="module")
def model(parts: Parts, row_processor: Processor) -> Llava:
    """A model that knows all tokens of the tokenizer."""
    model, _ = assemble(parts, dtype=torch.float32)
    fit_embeddings(model.language_model, len(row_processor.tokenizer))
    model.image_token_id = row_processor.image_token_id
    return model.eval()


@contextmanager
def listening(model: Llava) -> Iterator[list[Given]]:
    """Note all prompts that a model is given."""
    prompts: list[Given] = []
    extend = model.extend

    def note(**inputs: torch.Tensor) -> torch.Tensor:
        if inputs.get("pixel_values") is not None:
            prompts.append(given(inputs["input_ids"][0], inputs["pixel_values"]))
        return extend(**inputs)

    model.extend = note  # type: ignore[method-assign]
    try:
        yield prompts
    finally:
        model.extend = extend  # type: ignore[method-assign]


def ask(model: Llava, processor: Processor, conversation: Conversation) -> dict[str, Given]:
    """Ask through the Python API, and through our client of our server."""
    assistant = Assistant(model, processor, keep_tokens=0)
    with listening(model) as prompts:
        assistant.reply([conversation], ONE)
        batcher = Batcher(assistant)
        with running(batcher, ServerConfig(model_name="tiny")) as address:
            RemoteChat(address.url).reply([conversation], ONE)
        batcher.close()
    api, server = prompts
    return {"api": api, "server": server}


def train(processor: Processor, folder: Path, picture: Path, turns: tuple[str, ...]) -> Given:
    """Collate a record as the recipes do, and return its first row."""
    said = [f"<image>\n{turns[0]}", *turns[1:]]
    people = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]
    record = {"id": "1", "image": picture.name, "conversations": people}
    (folder / "data.json").write_text(json.dumps([record]))
    dataset = InstructionDataset(
        DataConfig(path=folder / "data.json", image_dir=picture.parent), processor, row_tokens=2048
    )
    steps = plan_steps(dataset, samples=1, rows=None, row_tokens=2048, packing=True, seed=0, epochs=1, max_steps=None)
    [step] = read_steps(steps, 0, LoaderConfig(workers=0))
    batch = step.batches[0]
    return given(batch["input_ids"][0], batch["pixel_values"])


def export(model: Llava, processor: Processor, folder: Path, conversation: Conversation) -> Given:
    """Let transformers' processor open the saved folder and write the same chat."""
    save(folder, model, processor)
    messages = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "path": str(part.source)}
                for part in message.content
            ],
        }
        for message in conversation.messages
    ]
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return given(inputs["input_ids"][0], inputs["pixel_values"])


@pytest.mark.parametrize("name", ROWS)
def test_training_api_server_and_transformers_see_the_same(
    model: Llava, row_processor: Processor, picture: Path, tmp_path: Path, name: str
) -> None:
    processor = row_processor.with_template(find_template(name))
    turns = TURNS if processor.template.user_text else TURNS[:2]
    conversation = Conversation().ask(turns[0], [picture])
    for answer, question in zip(turns[1:-1:2], turns[2::2], strict=True):
        conversation = conversation.answer(answer).ask(question)
    learnt = train(processor, tmp_path, picture, turns)
    seen = ask(model, processor, conversation)
    seen["transformers"] = export(model, processor, tmp_path / "exported", conversation)
    expected = Given(learnt.ids[: len(seen["api"].ids)], learnt.tiles)
    assert len(expected.tiles) == 1 and len(expected.ids) >= processor.num_patches
    assert seen == dict.fromkeys(seen, expected)


def test_words_that_spell_markup_are_words_to_all_but_transformers(
    model: Llava, row_processor: Processor, picture: Path, tmp_path: Path
) -> None:
    """transformers' processor reads the prompt as one text, in which what people typed and what the template wrote look
    the same: there `</s>` ends the turn, and a typed `<image>` stands for a picture that nobody gave.
    """
    processor = row_processor.with_template(find_template("vicuna_v1"))
    conversation = Conversation().ask(SPELLED.replace("<image>", ""), [picture])
    seen = ask(model, processor, Conversation().ask(SPELLED, [picture]))
    end, image = processor.end_token_id, processor.image_token_id
    learnt = train(processor, tmp_path, picture, (conversation.messages[0].text, "A."))
    assert seen["api"] == seen["server"]
    assert seen["api"].ids.count(end) == 0 and seen["api"].ids.count(image) == processor.num_patches
    plain = ask(model, processor, conversation)["server"]
    assert plain == Given(learnt.ids[: len(plain.ids)], learnt.tiles)
    assert export(model, processor, tmp_path / "exported", conversation).ids.count(end) == 1
