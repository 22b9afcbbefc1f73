"""Caption pairs: one true caption drawn for each image, and every image it is true of counted as its own."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage
from transformers import PreTrainedTokenizerBase

from llava_lite.data.captions import CaptionDataset, CaptionSteps
from llava_lite.data.loader import LoaderConfig, Step, read_steps
from llava_lite.data.mixture import SourceConfig
from llava_lite.data.records import SampleError
from llava_lite.data.sampler import Order
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import load_tokenizer

COLORS = ("red", "blue", "green", "red")


@pytest.fixture(scope="module")
def tokenizer(clip_dir: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(clip_dir))


@pytest.fixture
def records(tmp_path: Path) -> list[dict]:
    """Four pictures, the first and the last of the same color."""
    for number, color in enumerate(COLORS):
        PilImage.new("RGB", (8, 8), color).save(tmp_path / f"{number}.png")
    return [
        {"id": f"c{number}", "image": f"{number}.png", "captions": [f"a {color} circle", f"{color}"]}
        for number, color in enumerate(COLORS)
    ]


def open_captions(tmp_path: Path, records: list[dict]) -> CaptionDataset:
    (tmp_path / "captions.json").write_text(json.dumps(records))
    return CaptionDataset(SourceConfig(path=tmp_path / "captions.json"))


def make_steps(
    dataset: CaptionDataset, clip_dir: Path, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> CaptionSteps:
    order = Order(len(dataset), 4, seed, epochs=8)
    return CaptionSteps(dataset, order, ImageTransform.from_tower(clip_dir, "pad"), tokenizer)


def captions(step: Step, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    (batch,) = step.batches
    return [text.strip() for text in tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)]


def test_a_step_is_one_batch_of_images_beside_their_own_captions(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    steps = make_steps(open_captions(tmp_path, records), clip_dir, tokenizer)
    step = steps.make(0)
    (batch,) = step.batches
    numbers = steps.order.step(0)
    assert step.ids == [f"c{i}" for i in numbers] and step.num_samples == step.num_targets == 4
    assert sum(step.documents) == step.tokens["text"] and step.num_tiles == len(step.documents) == 4
    for i, tile, caption in zip(numbers, batch["pixel_values"], captions(step, tokenizer), strict=True):
        assert torch.equal(tile[None], steps.transform(PilImage.open(tmp_path / f"{i}.png")))
        assert caption in records[i]["captions"]
    assert step.tokens == {"text": int(batch["attention_mask"].sum()), "pairs": 4}


def test_an_image_counts_every_drawn_caption_that_is_true_of_it(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    steps = make_steps(open_captions(tmp_path, records), clip_dir, tokenizer)
    step = steps.make(0)
    colors = [COLORS[i] for i in steps.order.step(0)]
    (batch,) = step.batches
    assert batch["positives"].tolist() == [[a == b for b in colors] for a in colors]
    assert batch["positives"].sum() == 6


def test_the_drawing_depends_on_seed_and_step_alone(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    dataset = open_captions(tmp_path, records)
    steps = make_steps(dataset, clip_dir, tokenizer)
    forward = [captions(step, tokenizer) for step in read_steps(steps, 0, LoaderConfig(workers=2))]
    torch.manual_seed(1)
    again = make_steps(dataset, clip_dir, tokenizer)
    assert [captions(again.make(i), tokenizer) for i in reversed(range(8))] == forward[::-1]


def test_another_seed_draws_other_captions_of_the_same_image(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    dataset = open_captions(tmp_path, records[:1])
    some, others = (make_steps(dataset, clip_dir, tokenizer, seed=seed) for seed in (0, 1))
    assert [captions(some.make(i), tokenizer) for i in range(2)] != [
        captions(others.make(i), tokenizer) for i in range(2)
    ]


def test_every_caption_is_drawn_in_time(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    steps = make_steps(open_captions(tmp_path, records), clip_dir, tokenizer)
    drawn = {caption for i in range(8) for caption in captions(steps.make(i), tokenizer)}
    assert drawn == {caption for record in records for caption in record["captions"]}


BAD = {
    "no captions": ({"captions": []}, "no `captions`; give a list of texts"),
    "one caption": ({"captions": "red"}, "no `captions`; give a list of texts"),
    "empty caption": ({"captions": ["red", " "]}, "no `captions`; give a list of texts"),
    "no image": ({"image": None}, "no `image`; give one path below data.image_dir"),
    "two images": ({"image": ["a.png", "b.png"]}, "no `image`; give one path"),
    "absolute": ({"image": "/etc/a.png"}, "'/etc/a.png' leads out of the image folder; give a path below"),
    "upward": ({"image": "../a.png"}, "leads out of the image folder"),
    "missing": ({"image": "gone.png"}, r"no image file .*gone\.png; check data\.image_dir="),
}


@pytest.mark.parametrize(("change", "complaint"), BAD.values(), ids=BAD)
def test_a_bad_record_is_named_with_its_file_and_the_remedy(
    tmp_path: Path, records: list[dict], change: dict, complaint: str
) -> None:
    records[2] |= change
    with pytest.raises(SampleError, match=rf"^sample c2 \(captions\.json\): .*{complaint}"):
        open_captions(tmp_path, records)


def test_a_caption_longer_than_the_text_tower_reads_is_named_before_the_first_step(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    records[1]["captions"] = ["blue", "blue " * (tokenizer.model_max_length - 2)]
    make_steps(open_captions(tmp_path, records), clip_dir, tokenizer)
    records[1]["captions"] = ["blue", "blue " * (tokenizer.model_max_length - 1)]
    with pytest.raises(
        SampleError, match=r"^sample c1 \(captions\.json\): a caption of 17 tokens.* at most 16; shorten"
    ):
        make_steps(open_captions(tmp_path, records), clip_dir, tokenizer)


def test_a_truncated_image_names_record_and_path(
    tmp_path: Path, records: list[dict], clip_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    steps = make_steps(open_captions(tmp_path, records), clip_dir, tokenizer)
    path = tmp_path / "3.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SampleError, match=rf"^sample c3 \(captions\.json\): {path}: broken image"):
        list(read_steps(steps, 0, LoaderConfig(workers=2)))
