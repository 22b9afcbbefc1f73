"""From a picture to the pixels the vision tower sees, bit-equal to LLaVA's own preprocessing.

The arithmetic is transformers' PIL image processor: its torchvision twin differs by up to 2/255.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as PilImage
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava_lite.images.loading import ImageError

ImageMode = Literal["pad", "crop"]

_TOWER_SETTINGS = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")


class ImageTransform:
    """One picture -> tiles. Resize the short side, cut the centre, rescale, normalise; `pad` first makes it square.

    pad:  on a square of the tower's mean colour, nothing is cut off (LLaVA-1.5's second stage and inference)
    crop: the centre square, the rest is lost (LLaVA's first stage)
    """

    def __init__(self, image_processor: LlavaImageProcessorPil) -> None:
        self.image_processor = image_processor

    @classmethod
    def from_tower(cls, name_or_dir: str | Path, mode: ImageMode) -> ImageTransform:
        """Read the size, mean and deviation a vision tower was trained with (its preprocessor_config.json)."""
        try:
            tower = CLIPImageProcessorPil.from_pretrained(str(name_or_dir))
        except OSError as error:
            message = f"cannot read its preprocessor_config.json ({str(error).splitlines()[0]})"
            raise ImageError(f"{name_or_dir}: {message}") from None
        return cls(LlavaImageProcessorPil(**_tower_settings(tower), do_pad=mode == "pad"))

    @property
    def mode(self) -> ImageMode:
        return "pad" if self.image_processor.do_pad else "crop"

    @property
    def size(self) -> int:
        """Side of a tile in pixels."""
        return int(self.image_processor.crop_size["height"])

    def with_mode(self, mode: ImageMode) -> ImageTransform:
        """Return the same transform in another mode."""
        settings = _tower_settings(self.image_processor)
        return ImageTransform(LlavaImageProcessorPil(**settings, do_pad=mode == "pad"))

    def save_tower(self, folder: Path) -> None:
        """Write the preprocessor_config.json of a vision tower; the mode is not the tower's."""
        CLIPImageProcessorPil(**_tower_settings(self.image_processor)).save_pretrained(folder)

    def __call__(self, image: PilImage.Image) -> torch.Tensor:
        """Return the tiles of an RGB picture: float32 [N, 3, H, W]; N is 1 for both modes."""
        tiles: torch.Tensor = self.image_processor(image, return_tensors="pt")["pixel_values"]
        return tiles


def _tower_settings(image_processor: CLIPImageProcessorPil | LlavaImageProcessorPil) -> dict[str, Any]:
    settings = image_processor.to_dict()
    return {name: settings[name] for name in _TOWER_SETTINGS}
