"""From a picture to the pixels the vision tower sees, bit-equal to LLaVA's own preprocessing.

The arithmetic is transformers' PIL image processor: its torchvision twin differs by up to 2/255.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from PIL import Image as PilImage
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava_lite.images.loading import ImageError

ImageMode = Literal["pad", "crop"]


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
            raise ImageError(f"{name_or_dir}: no preprocessor_config.json ({str(error).splitlines()[0]})") from None
        names = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
        settings = {name: value for name, value in tower.to_dict().items() if name in names}
        return cls(LlavaImageProcessorPil(**settings, do_pad=mode == "pad"))

    @property
    def mode(self) -> ImageMode:
        return "pad" if self.image_processor.do_pad else "crop"

    @property
    def size(self) -> int:
        """Side of a tile in pixels."""
        return int(self.image_processor.crop_size["height"])

    def with_mode(self, mode: ImageMode) -> ImageTransform:
        """Return the same transform in another mode."""
        settings = self.image_processor.to_dict()
        return ImageTransform(LlavaImageProcessorPil(**{**settings, "do_pad": mode == "pad"}))

    def save_tower(self, folder: Path) -> None:
        """Write the preprocessor_config.json of a vision tower; the mode is not the tower's."""
        names = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
        settings = {name: value for name, value in self.image_processor.to_dict().items() if name in names}
        CLIPImageProcessorPil(**settings).save_pretrained(folder)

    def __call__(self, image: PilImage.Image) -> torch.Tensor:
        """Return the tiles of an RGB picture: float32 [N, 3, H, W]; N is 1 for both modes."""
        return self.image_processor(image, return_tensors="pt")["pixel_values"]
