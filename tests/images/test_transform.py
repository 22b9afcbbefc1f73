"""The pixels a tower sees are LLaVA's own, bit for bit: padded on the mean colour, or cut to the centre."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava_lite.images.loading import ImageError
from llava_lite.images.transform import ImageTransform

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


def write_tower(folder: Path, **settings: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps({**CLIP_FILE, **settings}))
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


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (3, 50), (40, 3), (31, 32), (33, 47), (200, 31)])
@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_pixels_are_bit_equal_to_the_originals(clip_dir: Path, mode: str, size: tuple[int, int]) -> None:
    image = noise(*size)
    square = expand2square(image, (122, 116, 104)) if mode == "pad" else image
    original = CLIPImageProcessorPil.from_pretrained(clip_dir)
    tiles = ImageTransform.from_tower(clip_dir, mode)(image)
    assert tiles.shape == (1, 3, 32, 32) and tiles.dtype == torch.float32
    assert torch.equal(tiles, original(square, return_tensors="pt")["pixel_values"])


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
