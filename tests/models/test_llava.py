"""The model obeys the data side exactly: packing does not leak, nothing but supervised rows reaches the head."""

import pytest
import torch

from llava_lite.conversation.message import Conversation
from llava_lite.data.collate import Batch, collate
from llava_lite.example import IGNORE, Example
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

TILE = 32


@pytest.fixture
def examples(llava: tuple[Llava, Processor], world) -> list[Example]:
    """Three conversations of different lengths: an image and two rounds, an image and one round, text alone."""
    _, processor = llava
    images = sorted((world / "images").glob("*.png"))
    conversations = [
        Conversation().ask("What color is it?", [images[0]]).answer("It is red.").ask("Why?").answer("Because."),
        Conversation().ask("Describe the image.", [images[1]]).answer("A blue circle at the top left."),
        Conversation().ask("Hello there.").answer("Hello."),
    ]
    return [processor.encode(conversation) for conversation in conversations]


def batch_of(examples: list[Example], processor: Processor, *, packed: bool = True) -> Batch:
    return collate(examples, num_patches=processor.num_patches, packed=packed, tile_size=TILE)


def gradients(model: Llava, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """The summed loss over its targets, and what it would change."""
    model.train_only(["projector", "language_model"])
    model.zero_grad()
    losses = [model(**batch) for batch in batches]
    count = sum(int(loss.count) for loss in losses)
    total = sum(loss.sum for loss in losses) / count
    total.backward()
    return total.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_packed_equals_separate(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    packed_loss, packed = gradients(model, [batch_of(examples, processor)])
    separate_loss, separate = gradients(model, [batch_of([e], processor) for e in examples])
    assert abs(packed_loss - separate_loss) < 1e-5
    assert_equal_gradients(packed, separate, 1e-5)


def test_padded_equals_packed(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    packed_loss, packed = gradients(model, [batch_of(examples, processor)])
    padded_loss, padded = gradients(model, [batch_of(examples, processor, packed=False)])
    assert abs(packed_loss - padded_loss) < 1e-5
    assert_equal_gradients(packed, padded, 1e-5)


def all_logits(model: Llava, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(**{name: value for name, value in batch.items() if name != "labels"})


def test_packing_does_not_leak(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    before = batch_of(examples, processor)
    first, middle, last = examples
    other = Example(
        input_ids=torch.where(
            middle.input_ids == model.image_token_id, middle.input_ids, middle.input_ids.flip(0) % 200
        ),
        labels=middle.labels,
        pixel_values=middle.pixel_values + 1,
        patch_index=middle.patch_index,
    )
    other.input_ids[middle.input_ids != model.image_token_id] %= model.image_token_id
    after = batch_of([first, other, last], processor)
    start, end = len(first.input_ids), len(first.input_ids) + len(middle.input_ids)
    x, y = all_logits(model, before), all_logits(model, after)
    assert torch.equal(x[:, :start], y[:, :start])
    assert torch.equal(x[:, end:], y[:, end:])
    assert not torch.equal(x[:, start:end], y[:, start:end])


def test_only_supervised_rows_reach_the_head(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    batch = batch_of(examples, processor)
    rows: list[int] = []
    model.language_model.get_output_embeddings().register_forward_hook(lambda m, args, out: rows.append(out.shape[1]))
    loss = model(**batch)
    assert rows == [int((batch["labels"] != IGNORE).sum())]
    whole = torch.nn.functional.cross_entropy(
        all_logits(model, batch).flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE, reduction="sum"
    )
    torch.testing.assert_close(loss.sum, whole, atol=0, rtol=1e-6)


def test_a_sparse_head_changes_no_gradient(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    batch = batch_of(examples, processor)
    _, sparse = gradients(model, [batch])
    model.zero_grad()
    logits = model.logits(**{name: value for name, value in batch.items() if name != "labels"})
    labels = batch["labels"].flatten()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORE).backward()
    whole = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert_equal_gradients(sparse, whole, 1e-6)


def test_rows_and_accumulation_give_equal_gradients(llava: tuple[Llava, Processor], world) -> None:
    model, processor = llava
    images = sorted((world / "images").glob("*.png"))
    examples = [
        processor.encode(
            Conversation().ask("Describe it.", [images[i]]).answer("A " + "red " * (1 + i * i % 7) + "circle.")
        )
        for i in range(8)
    ]
    results = []
    for rows in (8, 4, 2, 1):
        groups = [examples[i : i + rows] for i in range(0, 8, rows)]
        results.append(gradients(model, [batch_of(group, processor, packed=False) for group in groups]))
    for loss, grads in results[1:]:
        assert abs(loss - results[0][0]) < 1e-6
        assert_equal_gradients(grads, results[0][1], 1e-6)


def test_the_picture_matters(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    batch = batch_of(examples[:1], processor)
    seen = all_logits(model, batch)
    batch["pixel_values"] = batch["pixel_values"].flip(-1) * 0.5
    assert (seen - all_logits(model, batch)).abs().max() > 1e-3


def test_each_patch_stands_in_its_place(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    batch = batch_of(examples, processor)
    embeds = model.embed(batch["input_ids"], batch["pixel_values"], batch["patch_index"])
    patches = model.projector(model.vision_tower(batch["pixel_values"]))
    places = batch["input_ids"][0] == model.image_token_id
    assert torch.equal(embeds[0, places], patches[batch["patch_index"]])
    words = model.language_model.get_input_embeddings()(batch["input_ids"])
    assert torch.equal(embeds[0, ~places], words[0, ~places])


def test_a_wrong_number_of_patches_is_named(llava: tuple[Llava, Processor], examples: list[Example]) -> None:
    model, processor = llava
    batch = batch_of(examples[:1], processor)
    batch["patch_index"] = batch["patch_index"][:-1]
    with pytest.raises(RuntimeError, match="16 places for visual tokens, but 15 patches"):
        model(**batch)


def test_a_batch_without_images_still_runs_tower_and_projector(
    llava: tuple[Llava, Processor], examples: list[Example]
) -> None:
    model, processor = llava
    loss, with_blank = gradients(model, [batch_of(examples[2:], processor)])
    assert all(not with_blank[f"projector.{name}"].any() for name, _ in model.projector.named_parameters())
    batch = batch_of(examples[2:], processor)
    batch["pixel_values"] = batch["pixel_values"][:0]
    assert loss == gradients(model, [batch])[0]


def test_layers_above_the_selected_one_are_not_kept_and_do_not_matter(clip_dir, llava: tuple[Llava, Processor]) -> None:
    from transformers import CLIPVisionModel

    model, _ = llava
    whole = CLIPVisionModel.from_pretrained(clip_dir)
    pixels = torch.randn(2, 3, TILE, TILE, generator=torch.Generator().manual_seed(0))
    expected = whole(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.equal(model.vision_tower(pixels), expected)
    assert len(model.vision_tower.model.encoder.layers) == 2
