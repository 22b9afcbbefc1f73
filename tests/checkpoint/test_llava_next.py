"""An anyres model is a native llava_next folder: transformers lays out the same grid of the same pixels; and back."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.image_processing_utils import select_best_resolution

from llava_lite.checkpoint.folder import load, load_processor, save
from llava_lite.checkpoint.parts import CheckpointError, Parts
from llava_lite.conversation.message import Conversation
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.images.layout import Size, choose_grid, grids, lay_out
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor
from tests.checkpoint.test_transformers_import import messages_of
from tests.conftest import assemble_lively
from tests.families import write_tower
from tests.foreign import ROLES, write_foreign

TILE = 32
# Both sides within a tile, where grids tie; wide, tall, and so narrow that no row is left.
SIZES = [(10, 7), (7, 10), (32, 32), (20, 20), (33, 32), (64, 48), (150, 70), (70, 150), (3, 200), (200, 3), (97, 31)]


def picture(size: Size) -> PilImage.Image:
    colors = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PilImage.fromarray(colors).resize(size, PilImage.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def anyres_dir(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anyres")
    save(folder, *assemble_lively(replace(parts, image_mode="anyres")))
    return folder


@torch.no_grad()
def assert_computes_the_same(folder: Path, model: Llava, processor: Processor, sizes: list[Size]) -> None:
    theirs, report = LlavaNextForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    its_processor = AutoProcessor.from_pretrained(folder)
    for size in sizes:
        conversation = Conversation().ask("What is it?", [picture(size)])
        inputs = its_processor.apply_chat_template(
            messages_of(conversation), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        example = processor.encode(conversation)
        assert inputs["input_ids"][0].tolist() == example.input_ids.tolist(), size
        assert torch.equal(inputs["pixel_values"][0], example.pixel_values), size
        logits = model.logits(
            input_ids=example.input_ids[None],
            position_ids=torch.arange(len(example.input_ids))[None],
            pixel_values=example.pixel_values,
            patch_index=example.patch_index,
        )
        torch.testing.assert_close(theirs(**inputs).logits, logits, atol=1e-5, rtol=0)
    new = theirs.generate(**inputs, max_new_tokens=8)[0, len(example.input_ids) :]
    assert processor.decode(new) == Assistant(model, processor).reply([conversation], Sampling(max_new_tokens=8))[0]


def test_transformers_gives_our_ids_pixels_logits_and_answer(anyres_dir: Path) -> None:
    assert json.loads((anyres_dir / "config.json").read_text())["model_type"] == "llava_next"
    model, processor = load(anyres_dir, dtype=torch.float32)
    assert processor.transform.mode == "anyres"
    assert_computes_the_same(anyres_dir, model, processor, SIZES)


def test_of_a_siglip_tower_too(lm_dir: Path, tmp_path: Path) -> None:
    write_tower(tmp_path / "tower", "siglip_vision_model")
    model, processor = assemble_lively(Parts(str(tmp_path / "tower"), str(lm_dir), image_mode="anyres"))
    save(tmp_path / "m", model, processor)
    assert_computes_the_same(tmp_path / "m", model, processor, SIZES[:6])


@pytest.mark.parametrize(
    ("model_type", "what"), [("dinov2", "positions are made for 48"), ("clip", "not resized bicubically")]
)
def test_what_llava_next_computes_otherwise_is_saved_as_ours(
    clip_dir: Path, lm_dir: Path, tmp_path: Path, model_type: str, what: str
) -> None:
    from llava_lite.checkpoint.transformers_format import why_not_native

    if model_type == "dinov2":
        write_tower(tmp_path / "tower", "dinov2")
    else:
        shutil.copytree(clip_dir, tmp_path / "tower")
        settings = json.loads((clip_dir / "preprocessor_config.json").read_text())
        (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(settings | {"resample": 2}))
    model, processor = assemble_lively(Parts(str(tmp_path / "tower"), str(lm_dir), image_mode="anyres"))
    assert what in why_not_native(model, processor)
    save(tmp_path / "m", model, processor)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "llava_lite"
    assert torch.equal(
        load(tmp_path / "m", dtype=torch.float32)[0].projector.image_newline, model.projector.image_newline
    )


def tokens_of_transformers(size: Size, tile_size: int, side: int) -> int:
    width, height = size
    pinpoints = [[down * tile_size, across * tile_size] for across, down in grids("anyres")]
    fake = SimpleNamespace(image_processor=SimpleNamespace(image_grid_pinpoints=pinpoints), patch_size=tile_size / side)
    fake.num_additional_image_tokens = 0
    fake._get_unpadded_features = LlavaNextProcessor._get_unpadded_features.__get__(fake)
    return int(LlavaNextProcessor._get_number_of_features(fake, height, width, tile_size, tile_size))


def test_in_our_order_of_pinpoints_no_grid_differs() -> None:
    drawn = random.Random(0)
    sizes = [(drawn.randint(1, 400), drawn.randint(1, 400)) for _ in range(3000)]
    sizes += [(drawn.randint(1, 3000), drawn.randint(1, 3000)) for _ in range(3000)]
    pinpoints = [[down * 336, across * 336] for across, down in grids("anyres")]
    for width, height in sizes:
        canvas = select_best_resolution((height, width), pinpoints)
        across, down = choose_grid((width, height), "anyres", 336)
        assert canvas == (down * 336, across * 336), (width, height)


def test_the_sizes_that_transformers_rounds_otherwise_are_few_and_known() -> None:
    """docs/interchange.md names them: a side that is a whole number of patches but for floating point."""
    differ = {
        (width, height)
        for width in range(1, 331)
        for height in range(1, 331)
        if tokens_of_transformers((width, height), 336, 24)
        != len(lay_out((width, height), "anyres", tile_size=336, num_patches=576).index)
    }
    assert differ == {(88, 55), (88, 99), (176, 110), (55, 176), (176, 198), (328, 205)}


@pytest.mark.parametrize("original_format", [True, False])
def test_a_llava_next_of_other_making_computes_the_same_here(
    vicuna_dir: Path, tmp_path: Path, original_format: bool
) -> None:
    write_foreign(tmp_path / "a", load_tokenizer(str(vicuna_dir)), ROLES, anyres=True, original_format=original_format)
    model, processor = load(tmp_path / "a", dtype=torch.float32)
    assert processor.transform.mode == "anyres"
    larger = [size for size in SIZES if max(size) > TILE]  # it has the pinpoints in the published order
    assert_computes_the_same(tmp_path / "a", model, processor, larger)
    save(tmp_path / "b", model, processor)
    assert_computes_the_same(tmp_path / "b", *load(tmp_path / "b", dtype=torch.float32), SIZES)


def test_other_pinpoints_are_refused(vicuna_dir: Path, tmp_path: Path) -> None:
    write_foreign(tmp_path, load_tokenizer(str(vicuna_dir)), ROLES, anyres=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["image_grid_pinpoints"].append([128, 32])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"image_grid_pinpoints .*\[128, 32\]\]; anyres has"):
        load_processor(tmp_path)


def test_another_filter_is_refused(vicuna_dir: Path, tmp_path: Path) -> None:
    write_foreign(tmp_path, load_tokenizer(str(vicuna_dir)), ROLES, anyres=True)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["image_processor"]["resample"] = 2
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="resizes pictures with filter 2; anyres with 3"):
        load_processor(tmp_path)
