"""A finetuned folder opens in transformers as it is: same weights, same ids, same logits, same answer."""

from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage
from transformers import AutoProcessor, LlavaForConditionalGeneration

from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts
from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from tests.conftest import assemble_lively, write_vicuna


@pytest.fixture(params=["demo", "vicuna", "vicuna legacy"], scope="module")
def native_dir(request, clip_dir, lm_dir, vicuna_dir, tmp_path_factory) -> Path:
    """Native folders of the demo's language model and of Vicuna-shaped ones."""
    language_model = {
        "demo": lambda: lm_dir,
        "vicuna": lambda: vicuna_dir,
        "vicuna legacy": lambda: write_vicuna(tmp_path_factory.mktemp("legacy"), lm_dir, legacy=True),
    }[request.param]()
    folder = tmp_path_factory.mktemp("native")
    save(folder, *assemble_lively(Parts(str(clip_dir), str(language_model))))
    return folder


@pytest.fixture
def images(world: Path) -> list[Path]:
    return sorted((world / "images").glob("*.png"))[:2]


def conversations(images: list[Path]) -> dict[str, Conversation]:
    one, two = (Image(path) for path in images)
    turn = Message("user", ("Is this ", one, " like this ", two, "?"))
    return {
        "one turn": Conversation().ask("What color is it?", [one]),
        "two rounds": Conversation().ask("What is left of it?", [one]).answer("A red cat.").ask("And right?"),
        "two images": Conversation().ask("Compare them.", [one, two]),
        "images between words": Conversation((turn,)),
        "an image alone": Conversation().ask("", [one]),
        "text alone": Conversation().ask("What is a circle?"),
        "image in a later turn": Conversation().ask("Hello.").answer("Hello.").ask("What is it?", [two]),
        "own system text": Conversation(system="Be brief.").ask("What color is it?", [one]),
        "leading space": Conversation().ask(" what ?"),
    }


NAMES = list(conversations([Path("a"), Path("b")]))


def messages_of(conversation: Conversation) -> list[dict]:
    """The same conversation as transformers' chat messages."""
    system = [{"role": "system", "content": conversation.system}] if conversation.system else []
    return system + [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "path": str(part.source)}
                for part in message.content
            ],
        }
        for message in conversation.messages
    ]


@pytest.mark.parametrize("name", NAMES)
def test_transformers_processor_gives_our_ids_and_pixels(native_dir: Path, images: list[Path], name: str) -> None:
    conversation = conversations(images)[name]
    _, ours = load(native_dir, dtype=torch.float32)
    theirs = AutoProcessor.from_pretrained(native_dir)
    messages = messages_of(conversation)
    example = ours.encode(conversation)
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [PilImage.open(str(image.source)) for image in conversation.images] or None
    one_step = theirs.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    two_steps = theirs(text=text, images=pictures, return_tensors="pt")
    no_special = theirs(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)
    for inputs in (one_step, two_steps, no_special):
        assert inputs["input_ids"][0].tolist() == example.input_ids.tolist()
        if pictures:
            assert torch.equal(inputs["pixel_values"], example.pixel_values)


def test_plain_text_content_gives_our_ids(native_dir: Path) -> None:
    _, ours = load(native_dir, dtype=torch.float32)
    theirs = AutoProcessor.from_pretrained(native_dir)
    messages = [{"role": "user", "content": "What is a circle?"}]
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    expected = ours.encode(Conversation().ask("What is a circle?")).input_ids.tolist()
    assert theirs(text=text)["input_ids"][0] == expected


@pytest.mark.parametrize("name", NAMES)
def test_transformers_gives_our_logits_and_greedy_answer(native_dir: Path, images: list[Path], name: str) -> None:
    conversation = conversations(images)[name]
    model, processor = load(native_dir, dtype=torch.float32)
    theirs, report = LlavaForConditionalGeneration.from_pretrained(native_dir, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    example = processor.encode(conversation)
    inputs = {"input_ids": example.input_ids[None], "attention_mask": torch.ones_like(example.input_ids)[None]}
    if len(example.pixel_values):
        inputs["pixel_values"] = example.pixel_values
    with torch.no_grad():
        logits = model.logits(
            input_ids=example.input_ids[None],
            position_ids=torch.arange(len(example.input_ids))[None],
            pixel_values=example.pixel_values,
            patch_index=example.patch_index,
        )
        torch.testing.assert_close(theirs(**inputs).logits, logits, atol=1e-5, rtol=0)
    new = theirs.generate(**inputs, max_new_tokens=8)[0, len(example.input_ids) :]
    ours = Assistant(model, processor).reply([conversation], Sampling(max_new_tokens=8))[0]
    assert processor.decode(new) == ours


def test_the_image_token_is_never_generated(native_dir: Path, images: list[Path]) -> None:
    model, processor = load(native_dir, dtype=torch.float32)
    image_id = processor.image_token_id
    with torch.no_grad():
        head = model.language_model.get_output_embeddings().weight
        head[image_id] = head.mean(0) + 100 * torch.sign(head.sum(0))
    conversation = Conversation().ask("What is it?", [images[0]])
    assistant = Assistant(model, processor)
    decoder, row = assistant.decoder(keep=False), assistant.prepare(conversation, Sampling(max_new_tokens=4))
    decoder.join([row])
    while decoder.release():
        decoder.step()
    assert len(row.ids) == 4 and image_id not in row.ids
    theirs = LlavaForConditionalGeneration.from_pretrained(native_dir)
    assert theirs.generation_config.suppress_tokens == [image_id]
