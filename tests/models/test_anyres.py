"""Anyres through the whole chain: a picture's rows and newlines reach the language model as LLaVA merges them."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts, assemble, fit_newline
from llava_lite.checkpoint.transformers_format import why_not_native
from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.data.collate import Batch, collate
from llava_lite.example import Example
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from tests.conftest import assemble_lively
from tests.images import plain_llava
from tests.test_house import ROOT, config_of

TILE = 32
SIZES = [(33, 32), (64, 48), (150, 70), (100, 2000), (3000, 1000)]
SHORT = Sampling(max_new_tokens=6)


def read_recipe(name: str) -> ModuleType:
    return sys.modules[config_of(ROOT / "train" / f"{name}.py").__module__]


def picture(size: tuple[int, int], seed: int = 0) -> PilImage.Image:
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PilImage.fromarray(colors).resize(size, PilImage.Resampling.BILINEAR)


def talk(size: tuple[int, int], seed: int = 0) -> Conversation:
    return Conversation().ask("What is it?", [picture(size, seed)]).answer("A red circle.")


@pytest.fixture(params=["anyres", "anyres_max_1"])
def lively(parts: Parts, request: pytest.FixtureRequest) -> tuple[Llava, Processor]:
    """A model of a mode that ends rows with a newline; the second thins nearly every grid."""
    return assemble_lively(replace(parts, image_mode=request.param))


def batch_of(examples: list[Example], processor: Processor, *, packed: bool = True) -> Batch:
    return collate(examples, num_patches=processor.num_patches, packed=packed, tile_size=TILE)


def visual_embeds(model: Llava, batch: Batch) -> torch.Tensor:
    """What stands in the places of visual tokens, in order: [K, D]."""
    inputs = {name: batch[name] for name in batch if name not in ("labels", "position_ids")}
    return model.embed(**inputs)[batch["input_ids"] == model.image_token_id]


def projected(model: Llava, tiles: torch.Tensor) -> torch.Tensor:
    """The projected patches of tiles [N, 3, H, W], without the newline below them: [N, P', D]."""
    return model.projector(model.vision_tower(tiles))[:-1].unflatten(0, (len(tiles), -1))


@torch.no_grad()
def test_the_language_model_sees_what_the_original_merges(lively: tuple[Llava, Processor]) -> None:
    model, processor = lively
    mode = processor.transform.mode
    examples = [processor.encode(talk(size, seed)) for seed, size in enumerate(SIZES)]
    expected = [
        plain_llava.merged(projected(model, example.pixel_values), size, mode, TILE, model.projector.image_newline)
        for size, example in zip(SIZES, examples, strict=True)
    ]
    for example, merged in zip(examples, expected, strict=True):
        torch.testing.assert_close(visual_embeds(model, batch_of([example], processor)), merged, atol=1e-6, rtol=0)
    together = visual_embeds(model, batch_of(examples, processor))
    torch.testing.assert_close(together, torch.cat(expected), atol=1e-6, rtol=0)


@torch.no_grad()
def test_each_of_two_images_in_a_turn_is_its_padded_tile_and_a_newline(lively: tuple[Llava, Processor]) -> None:
    model, processor = lively
    one, two = picture((64, 48)), picture((30, 90), seed=1)
    turn = Message("user", ("Is ", Image(one), " like ", Image(two), "?"))
    example = processor.encode(Conversation((turn,)))
    pad = processor.transform.with_mode("pad")
    newline = model.projector.image_newline[None]
    expected = [torch.cat([projected(model, pad(image))[0], newline]) for image in (one, two)]
    found = visual_embeds(model, batch_of([example], processor))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-6, rtol=0)


def gradients(model: Llava, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    model.train_only(["projector", "language_model"])
    model.zero_grad()
    loss = sum(model(**batch).sum for batch in batches)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packed", [True, False])
def test_together_equals_separate(lively: tuple[Llava, Processor], packed: bool) -> None:
    model, processor = lively
    conversations = [
        talk((64, 48)),
        Conversation().ask("Hello.").answer("Hello."),
        talk((150, 70), seed=1),
        Conversation().ask("Compare.", [picture((40, 40)), picture((90, 30), seed=2)]).answer("A cat."),
    ]
    examples = [processor.encode(conversation) for conversation in conversations]
    loss, together = gradients(model, [batch_of(examples, processor, packed=packed)])
    alone_loss, alone = gradients(model, [batch_of([example], processor) for example in examples])
    assert abs(loss - alone_loss) < 1e-4 and together.keys() == alone.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], atol=2e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_the_newline_and_the_projector_learn(lively: tuple[Llava, Processor]) -> None:
    model, processor = lively
    _, grads = gradients(model, [batch_of([processor.encode(talk((64, 48)))], processor)])
    learnt = {name for name, gradient in grads.items() if gradient.any()}
    assert {f"projector.{name}" for name, _ in model.projector.named_parameters()} <= learnt
    assert "projector.image_newline" in learnt


def test_a_batch_without_images_gives_the_newline_a_gradient_too(lively: tuple[Llava, Processor]) -> None:
    model, processor = lively
    text = processor.encode(Conversation().ask("Hello.").answer("Hello."))
    _, grads = gradients(model, [batch_of([text], processor)])
    assert all(not grads[f"projector.{name}"].any() for name, _ in model.projector.named_parameters())
    assert "projector.image_newline" in grads


def test_a_projector_without_a_newline_is_not_asked_for_one(llava: tuple[Llava, Processor]) -> None:
    model, processor = llava
    example = processor.with_image_mode("anyres").encode(talk((64, 48)))
    with pytest.raises(RuntimeError, match="rows of patches end with a newline, but this projector has no image_newl"):
        model(**batch_of([example], processor))


@pytest.mark.parametrize("size", [(64, 48), (100, 2000)])
def test_a_batch_of_anyres_questions_is_answered_as_one_at_a_time(
    lively: tuple[Llava, Processor], size: tuple[int, int]
) -> None:
    assistant = Assistant(*lively)
    asked = [Conversation().ask("What is it?", [picture(size)]), Conversation().ask("Hello.")]
    asked.append(Conversation().ask("And these?", [picture((40, 40)), picture((50, 20))]))
    replies = assistant.reply(asked, SHORT)
    assert replies == [assistant.reply([conversation], SHORT)[0] for conversation in asked]
    assert "".join(assistant.stream(asked[0], SHORT)) == replies[0] != ""


@pytest.mark.parametrize("whole", [True, False])
def test_saved_and_loaded_gives_the_same_reply(
    lively: tuple[Llava, Processor], parts: Parts, tmp_path: Path, whole: bool
) -> None:
    model, processor = lively
    parts = replace(parts, image_mode=processor.transform.mode)
    if not whole:
        torch.manual_seed(1)
        fresh, _ = assemble(parts, dtype=torch.float32)
        fresh.projector.load_state_dict(model.projector.state_dict())
        model = fresh.eval()
    save(tmp_path, model, processor, parts=None if whole else parts)
    again, its_processor = load(tmp_path, dtype=torch.float32)
    assert its_processor.transform == processor.transform
    assert bool(why_not_native(again, its_processor)) == (parts.image_mode == "anyres_max_1")
    assert torch.equal(again.projector.image_newline, model.projector.image_newline)
    for size in ((64, 48), (3000, 1000)):
        question = [Conversation().ask("What is it?", [picture(size)])]
        assert Assistant(again, its_processor).reply(question, SHORT) == Assistant(model, processor).reply(
            question, SHORT
        )


def test_finetune_gives_a_padded_align_checkpoint_the_newline_of_its_own_mode(
    llava: tuple[Llava, Processor], parts: Parts, tmp_path: Path
) -> None:
    save(tmp_path, *llava, parts=parts)
    finetune = read_recipe("finetune")
    model, processor = finetune.start_model(finetune.ModelConfig(checkpoint=str(tmp_path), image_mode="anyres"))
    assert processor.transform.mode == "anyres"
    assert Assistant(model.eval(), processor).ask("What is it?", [picture((64, 48))], sampling=SHORT)
    model, processor = finetune.start_model(finetune.ModelConfig(checkpoint=str(tmp_path)))
    assert processor.transform.mode == "pad"


def test_the_newline_comes_and_goes_with_the_mode(llava: tuple[Llava, Processor]) -> None:
    model, processor = llava
    assert model.projector.image_newline is None
    fit_newline(model, processor.with_image_mode("anyres"))
    newline = model.projector.image_newline
    assert newline.shape == (32,) and newline.dtype == torch.float32
    fit_newline(model, processor.with_image_mode("anyres_max_9"))
    assert model.projector.image_newline is newline
    fit_newline(model, processor)
    assert model.projector.image_newline is None
