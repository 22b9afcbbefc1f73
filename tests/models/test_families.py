"""Every family computes what its own class in transformers computes, packed, padded, cached, saved and loaded."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.conversation.message import Conversation
from llava_lite.data.collate import Batch, collate
from llava_lite.example import Example
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.decoding import Decoder, Row
from llava_lite.generation.streaming import Transcript
from llava_lite.models.language_model import LANGUAGE_MODELS
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from tests.families import LANGUAGES, WINDOW, Language, write_language

TILE = 32
PICTURE = PilImage.new("RGB", (40, 30), (200, 30, 30))


@dataclass(frozen=True)
class Family:
    """A model of a family, and its language model as transformers has it, untouched."""

    language: Language
    model: Llava
    processor: Processor
    original: PreTrainedModel


@pytest.fixture(params=LANGUAGES, scope="module")
def family(request, clip_dir: Path, lm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    language = LANGUAGES[request.param]
    folder = write_language(tmp_path_factory.mktemp("lm"), language, lm_dir)
    torch.manual_seed(0)
    parts = Parts(str(clip_dir), str(folder), template="vicuna_v1")
    model, processor = assemble(parts, dtype=torch.float32)
    original = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return Family(language, model.eval(), processor, original)


def example(model: Llava, *lengths: int) -> Example:
    """A document of random words with an image after each stretch of them but the last."""
    generator = torch.Generator().manual_seed(sum(lengths))
    image = torch.full((16,), model.image_token_id)
    stretches = [torch.randint(3, model.image_token_id, (length,), generator=generator) for length in lengths]
    ids = torch.cat([piece for stretch in stretches for piece in (image, stretch)][1:])
    pixels = torch.randn(len(lengths) - 1, 3, TILE, TILE, generator=generator)
    return Example(input_ids=ids, labels=ids, pixel_values=pixels, patch_index=torch.arange(16 * len(pixels)))


def examples(model: Llava) -> list[Example]:
    """Around an image; shorter than the window; longer than it; one token."""
    return [example(model, 5, 9), example(model, WINDOW - 2), example(model, 3 * WINDOW), example(model, 1)]


def batch_of(*examples: Example, packed: bool = True) -> Batch:
    return collate(examples, num_patches=16, packed=packed, tile_size=TILE)


@torch.no_grad()
def logits_of(model: Llava, batch: Batch) -> torch.Tensor:
    return model.logits(**{name: value for name, value in batch.items() if name != "labels"})


def embeds_of(model: Llava, one: Example) -> torch.Tensor:
    return model.embed(one.input_ids[None], one.pixel_values, one.patch_index)


def test_every_family_is_tested() -> None:
    assert {language.model_type for language in LANGUAGES.values()} == set(LANGUAGE_MODELS)


@torch.no_grad()
def test_packed_documents_equal_each_alone_in_transformers(family: Family) -> None:
    documents = examples(family.model)
    packed = logits_of(family.model, batch_of(*documents))[0].split([len(one.input_ids) for one in documents])
    for one, ours in zip(documents, packed, strict=True):
        theirs = family.original(inputs_embeds=embeds_of(family.model, one), use_cache=False).logits[0]
        torch.testing.assert_close(ours[:, : theirs.shape[-1]], theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padded_rows_equal_each_alone_in_transformers(family: Family) -> None:
    documents = examples(family.model)
    padded = logits_of(family.model, batch_of(*documents, packed=False))
    for one, row in zip(documents, padded, strict=True):
        theirs = family.original(inputs_embeds=embeds_of(family.model, one), use_cache=False).logits[0]
        torch.testing.assert_close(row[: len(theirs), : theirs.shape[-1]], theirs, atol=1e-5, rtol=1e-5)


def test_a_changed_document_leaves_its_neighbours_bit_identical(family: Family) -> None:
    first, short, long, one = examples(family.model)
    other = Example(short.input_ids.flip(0), short.labels, short.pixel_values, short.patch_index)
    start, end = len(first.input_ids), len(first.input_ids) + len(short.input_ids)
    x = logits_of(family.model, batch_of(first, short, long, one))[0]
    y = logits_of(family.model, batch_of(first, other, long, one))[0]
    assert torch.equal(x[:start], y[:start]) and torch.equal(x[end:], y[end:])
    assert not torch.equal(x[start:end], y[start:end])


def generate(model: Llava, documents: list[Example]) -> list[list[int]]:
    """Ten greedy tokens after each of a batch."""
    decoder = Decoder(model, ends=(), never=[model.image_token_id], num_patches=16)
    rows = [Row(one, one.input_ids.numpy(), Sampling(), Transcript(str), limit=10) for one in documents]
    decoder.join(rows)
    while decoder.release():
        decoder.step()
    return [row.ids for row in rows]


def _greedy() -> GenerationConfig:
    return GenerationConfig(max_new_tokens=10, do_sample=False, pad_token_id=0)


def test_a_padded_batch_is_continued_as_each_alone_and_as_in_transformers(family: Family) -> None:
    documents = [example(family.model, 5, 9), example(family.model, 3), example(family.model, 3 * WINDOW)]
    together = generate(family.model, documents)
    assert together == [generate(family.model, [one])[0] for one in documents]
    for one, ours in zip(documents, together, strict=True):
        embeds = embeds_of(family.model, one)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        family.original.generation_config.eos_token_id = None
        theirs = family.original.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=_greedy())
        assert ours == theirs[0].tolist()
    assert len({tuple(row) for row in together}) == len(together)


def test_gradients_are_finite_and_reach_projector_and_language_model(family: Family) -> None:
    model = family.model
    model.train_only(["projector", "language_model"])
    model.zero_grad()
    loss = model(**batch_of(*examples(model)))
    (loss.sum / loss.count).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(parameter.grad.abs().max() > 0 for parameter in model.projector.parameters())
    model.eval()


def test_saved_and_loaded_gives_the_same_logits(family: Family, tmp_path: Path) -> None:
    batch = batch_of(*examples(family.model))
    before = logits_of(family.model, batch)
    save(tmp_path, family.model, family.processor)
    model, processor = load(tmp_path, dtype=torch.float32)
    assert torch.equal(before, logits_of(model.eval(), batch))
    assert model.state_dict().keys() == family.model.state_dict().keys()
    asked = Conversation().ask("What is it?", [PICTURE])
    assert processor.encode(asked).input_ids.tolist() == family.processor.encode(asked).input_ids.tolist()


def test_the_folder_says_llava_exactly_where_transformers_computes_the_same(family: Family, tmp_path: Path) -> None:
    save(tmp_path, family.model, family.processor)
    says = json.loads((tmp_path / "config.json").read_text())["model_type"]
    assert says == ("llava" if family.language.native else "llava_lite")
    if not family.language.native:
        return
    theirs, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    one = example(family.model, 5, 9)
    with torch.no_grad():
        logits = theirs(input_ids=one.input_ids[None], pixel_values=one.pixel_values).logits
    torch.testing.assert_close(logits, logits_of(family.model, batch_of(one)), atol=1e-5, rtol=1e-5)
    processor = AutoProcessor.from_pretrained(tmp_path)
    content = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ours = family.processor.encode(Conversation().ask("What is it?", [PICTURE]))
    assert list(inputs["input_ids"][0]) == ours.input_ids.tolist()


def test_a_text_only_model_is_a_plain_folder_of_its_type(family: Family, tmp_path: Path) -> None:
    text_only = Llava(vision_tower=None, projector=None, language_model=family.model.language_model, image_token_id=-1)
    save(tmp_path, text_only, replace(family.processor, transform=None))
    theirs, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert theirs.config.model_type == family.language.model_type
    assert not report["missing_keys"] and not report["unexpected_keys"]
    one = example(family.model, 3 * WINDOW)
    with torch.no_grad():
        logits = theirs(input_ids=one.input_ids[None]).logits
    torch.testing.assert_close(logits, logits_of(load(tmp_path, dtype=torch.float32)[0], batch_of(one)))


def test_the_longest_document_is_what_the_config_says(family: Family) -> None:
    assert family.processor.max_positions == 2048


def test_positions_that_stretch_bound_a_document_by_where_they_begin_to(
    clip_dir: Path, lm_dir: Path, tmp_path: Path
) -> None:
    """Beyond it a long document would change its short neighbours, which is shown."""
    stretch = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10000.0}
    sizes = {"original_max_position_embeddings": 32, "max_position_embeddings": 256, "rope_parameters": stretch}
    phi3 = LANGUAGES["phi3"]
    write_language(tmp_path, replace(phi3, config={**phi3.config, **sizes}), lm_dir)
    model, processor = assemble(Parts(str(clip_dir), str(tmp_path), template="vicuna_v1"), dtype=torch.float32)
    assert processor.max_positions == 32
    short = example(model, 10)
    alone, beside_32, beside_33 = (
        logits_of(model, batch_of(short, *others))[0, :10]
        for others in ([], [example(model, 32)], [example(model, 33)])
    )
    torch.testing.assert_close(alone, beside_32, atol=1e-5, rtol=1e-5)
    assert (alone - beside_33).abs().max() > 1e-3
