"""The pixels a tower sees are LLaVA's own, bit for bit: padded on the mean colour, or cut to the centre."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from llava_lite.images.layout import lay_out
from llava_lite.images.loading import ImageError
from llava_lite.images.transform import ImageTransform
from tests.images import plain_llava

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CLIP_FILE = {
    "crop_size": 336,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "resample": 3,
    "size": 336,
}
"""preprocessor_config.json as openai/clip-vit-large-patch14-336 publishes it, sizes as plain numbers."""


HALF = [0.5, 0.5, 0.5]
SIGLIP_FILE = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": HALF,
    "image_processor_type": "SiglipImageProcessor",
    "image_std": HALF,
    "processor_class": "SiglipProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 384, "width": 384},
}
"""As google/siglip-so400m-patch14-384 publishes it."""
DINO_FILE = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
"""As facebook/dinov2-large publishes it."""
SIZES = [(1, 1), (3, 1), (1, 3), (3, 50), (40, 3), (31, 32), (33, 47), (200, 31), (640, 480), (100, 2000), (3000, 1000)]


def write_tower(folder: Path, file: dict = CLIP_FILE, **settings: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps({**file, **settings}))
    return folder


def noise(width: int, height: int) -> PilImage.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PilImage.fromarray(pixels)


def normalised(image: PilImage.Image) -> torch.Tensor:
    """CLIP's arithmetic in numpy."""
    values = np.asarray(image, dtype=np.float64) / 255
    return torch.tensor(((values - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)[None], dtype=torch.float32)


def expand2square(image: PilImage.Image, color: tuple[int, int, int]) -> PilImage.Image:
    """LLaVA's own (llava/mm_utils.py at c121f043)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    result = PilImage.new(image.mode, (side, side), color)
    result.paste(image, (0, (width - height) // 2) if width > height else ((height - width) // 2, 0))
    return result


@pytest.mark.parametrize(
    ("size", "side", "place"), [((640, 480), 640, (0, 80)), ((333, 500), 500, (83, 0)), ((64, 64), 64, (0, 0))]
)
def test_pad_pastes_at_the_golden_place_on_the_mean_color(
    tmp_path: Path, size: tuple[int, int], side: int, place: tuple[int, int]
) -> None:
    image = noise(*size)
    canvas = PilImage.new("RGB", (side, side), (122, 116, 104))
    canvas.paste(image, place)
    tiles = ImageTransform.from_tower(write_tower(tmp_path), "pad")(image)
    expected = normalised(canvas.resize((336, 336), PilImage.Resampling.BICUBIC))
    torch.testing.assert_close(tiles, expected, atol=1e-6, rtol=0)


def test_crop_cuts_at_the_golden_place(tmp_path: Path) -> None:
    image = noise(640, 480)
    resized = image.resize((448, 336), PilImage.Resampling.BICUBIC)
    tiles = ImageTransform.from_tower(write_tower(tmp_path), "crop")(image)
    torch.testing.assert_close(tiles, normalised(resized.crop((56, 0, 392, 336))), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_pixels_are_bit_equal_to_the_originals(clip_dir: Path, mode: str, size: tuple[int, int]) -> None:
    image = noise(*size)
    square = expand2square(image, (122, 116, 104)) if mode == "pad" else image
    original = CLIPImageProcessorPil.from_pretrained(clip_dir)
    tiles = ImageTransform.from_tower(clip_dir, mode)(image)
    assert tiles.shape == (1, 3, 32, 32) and tiles.dtype == torch.float32
    assert torch.equal(tiles, original(square, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("file", [CLIP_FILE, SIGLIP_FILE, DINO_FILE])
def test_tiles_are_restored_bit_by_bit(tmp_path: Path, file: dict) -> None:
    transform = ImageTransform.from_tower(write_tower(tmp_path, file), "resize")
    image = noise(transform.size, transform.size)
    assert len(np.unique(image)) == 256
    assert np.array_equal(transform.restore(transform(image)), np.asarray(image)[None])


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_siglips_own_processor(tmp_path: Path, size: tuple[int, int]) -> None:
    image = noise(*size)
    original = SiglipImageProcessorPil.from_pretrained(write_tower(tmp_path, SIGLIP_FILE))
    tiles = ImageTransform.from_tower(tmp_path, "resize")(image)
    assert tiles.shape == (1, 3, 384, 384)
    assert torch.equal(tiles, original(image, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["anyres", "anyres_max_9"])
@pytest.mark.parametrize("tile", [32, 56])
def test_anyres_tiles_are_bit_equal_to_the_originals(
    tmp_path: Path, tile: int, mode: str, size: tuple[int, int]
) -> None:
    image = noise(*size)
    original = CLIPImageProcessorPil.from_pretrained(write_tower(tmp_path, size=tile, crop_size=tile))
    expected = [original(view, return_tensors="pt")["pixel_values"] for view in plain_llava.views(image, mode, tile)]
    tiles = ImageTransform.from_tower(tmp_path, mode)(image)
    assert torch.equal(tiles, torch.cat(expected)) and tiles.is_contiguous()
    assert len(tiles) == lay_out(size, mode, tile_size=tile, num_patches=16).num_tiles


def test_one_of_several_anyres_pictures_is_padded(clip_dir: Path) -> None:
    image = noise(50, 30)
    padded = ImageTransform.from_tower(clip_dir, "pad")(image)
    assert torch.equal(ImageTransform.from_tower(clip_dir, "anyres")(image, alone=False), padded)


@pytest.mark.parametrize("size", [(300, 200), (31, 32), (40, 3)])
def test_crop_is_dinos_own_processor_and_nothing_else_cuts_off_its_border(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    image = noise(*size)
    original = BitImageProcessorPil.from_pretrained(write_tower(tmp_path, DINO_FILE))
    transform = ImageTransform.from_tower(tmp_path, "crop")
    assert torch.equal(transform(image), original(image, return_tensors="pt")["pixel_values"])
    whole = BitImageProcessorPil.from_pretrained(tmp_path, size={"height": 224, "width": 224}, do_center_crop=False)
    for mode, picture in (("resize", image), ("pad", expand2square(image, (123, 116, 103)))):
        assert torch.equal(transform.with_mode(mode)(image), whole(picture, return_tensors="pt")["pixel_values"])
    assert torch.equal(transform.with_mode("pad").with_mode("crop")(image), transform(image))


@pytest.mark.parametrize("mode", ["pad", "crop", "resize"])
@pytest.mark.parametrize("file", [CLIP_FILE, SIGLIP_FILE, DINO_FILE])
def test_transformers_processor_of_a_checkpoint_gives_the_same_pixels(tmp_path: Path, file: dict, mode: str) -> None:
    transform = ImageTransform.from_tower(write_tower(tmp_path, file), mode)
    image = noise(300, 200)
    theirs = transform.image_processor
    assert torch.equal(theirs(image, return_tensors="pt")["pixel_values"], transform(image))
    theirs.save_pretrained(tmp_path)
    again = ImageTransform.from_tower(tmp_path, mode).with_short_side(transform.tower.short_side)
    assert again == transform
    if mode != "resize":
        assert ImageTransform.from_tower(tmp_path, None).mode == mode  # folders that do not name their mode


SPELLINGS = [
    {"size": 40, "crop_size": 32},
    {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    {"size": {"shortest_edge": 40}, "crop_size": 32, "image_processor_type": "CLIPImageProcessorFast"},
    {"size": {"shortest_edge": 40}, "crop_size": 32, "image_processor_type": "BitImageProcessor"},
]


@pytest.mark.parametrize("settings", SPELLINGS)
def test_a_short_side_and_a_crop_are_read_in_every_spelling(tmp_path: Path, settings: dict) -> None:
    tower = ImageTransform.from_tower(write_tower(tmp_path, **settings), "crop").tower
    assert (tower.size, tower.short_side) == (32, 40)


@pytest.mark.parametrize("size", [40, {"height": 40, "width": 40}])
@pytest.mark.parametrize("name", ["SiglipImageProcessor", "SiglipImageProcessorFast", "ViTImageProcessor"])
def test_a_square_is_read_in_every_spelling(tmp_path: Path, name: str, size: object) -> None:
    folder = write_tower(tmp_path, SIGLIP_FILE, image_processor_type=name, size=size)
    tower = ImageTransform.from_tower(folder, "resize").tower
    assert (tower.size, tower.short_side) == (40, 40)


@pytest.mark.parametrize("key", ["size", "crop_size", "image_mean", "image_std", "resample"])
def test_what_a_towers_file_leaves_out_is_not_guessed(tmp_path: Path, key: str) -> None:
    folder = write_tower(tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    del settings[key]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ImageError, match=rf"preprocessor_config.json: .*{key}"):
        ImageTransform.from_tower(folder, "pad")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_processor_type": "ConvNextImageProcessor"}, "unknown image processor 'ConvNext.*known: CLIPImage"),
        ({"feature_extractor_type": None}, "unknown image processor 'None'"),
        ({"do_normalize": False}, "switches off do_normalize"),
        ({"size": {"height": 336, "width": 224}}, "give no square tile"),
        ({"size": 224}, "give no square tile"),  # smaller than its crop
        ({"do_center_crop": False}, "give no square tile"),
    ],
)
def test_a_towers_file_of_another_kind_is_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        ImageTransform.from_tower(write_tower(tmp_path, **settings), "pad")


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="unknown image mode 'square'; known: pad"):
        ImageTransform.from_tower(write_tower(tmp_path), "square")


def test_another_towers_mean_is_the_color_it_pads_with(tmp_path: Path) -> None:
    folder = write_tower(tmp_path, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5], size=8, crop_size=8)
    tiles = ImageTransform.from_tower(folder, "pad")(PilImage.new("RGB", (8, 2), "white"))
    torch.testing.assert_close(tiles[0, :, 0, 0], torch.full((3,), (127 / 255 - 0.5) / 0.5), atol=1e-6, rtol=0)


def test_another_towers_resampling_is_kept(tmp_path: Path) -> None:
    image = noise(30, 20)
    tiles = ImageTransform.from_tower(write_tower(tmp_path, resample=2, size=10, crop_size=10), "crop")(image)
    resized = image.resize((15, 10), PilImage.Resampling.BILINEAR)
    torch.testing.assert_close(tiles, normalised(resized.crop((2, 0, 12, 10))), atol=1e-6, rtol=0)


def test_a_transform_in_another_mode_is_the_one_made_in_that_mode(tmp_path: Path) -> None:
    folder = write_tower(tmp_path, size=16, crop_size=16, image_mean=[0.1, 0.2, 0.3])
    pad, crop = (ImageTransform.from_tower(folder, mode) for mode in ("pad", "crop"))
    image = noise(30, 20)
    assert (pad.mode, crop.mode) == ("pad", "crop") and pad.size == 16
    assert torch.equal(pad.with_mode("crop")(image), crop(image))
    assert torch.equal(crop.with_mode("pad")(image), pad(image))
    assert not torch.equal(pad(image), crop(image))


def test_a_saved_tower_gives_the_same_pixels(tmp_path: Path) -> None:
    transform = ImageTransform.from_tower(
        write_tower(tmp_path, size=16, crop_size=16, image_std=[0.1, 0.2, 0.3]), "pad"
    )
    (tmp_path / "saved").mkdir()
    transform.save_tower(tmp_path / "saved")
    image = noise(30, 20)
    assert torch.equal(ImageTransform.from_tower(tmp_path / "saved", "pad")(image), transform(image))
    assert "do_pad" not in json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())


def test_a_tower_without_its_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=rf"{tmp_path}: cannot read its preprocessor_config.json"):
        ImageTransform.from_tower(tmp_path, "pad")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ImageError, match=rf"{tmp_path}: cannot read its preprocessor_config.json"):
        ImageTransform.from_tower(tmp_path, "pad")
