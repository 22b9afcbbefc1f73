"""From a picture to the pixels the vision tower sees, bit-equal to LLaVA's own preprocessing.

The arithmetic is that of transformers' PIL image processors (their torchvision twins differ by up to 2/255), done here
with one resize and one table look-up a picture. What a tower was trained with, its preprocessor_config.json says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from llava_lite.images.layout import Size, check_mode, choose_grid, grids, is_anyres, place
from llava_lite.images.loading import ImageError


@dataclass(frozen=True)
class _Kind:
    """crops: whether it cuts out a centre square unless told otherwise; square: whether a plain number as `size` is the
    side of a square, not the short side; pads: whether do_pad makes a square first; tiles: whether it cuts a grid."""

    crops: bool
    square: bool
    pads: bool = False
    tiles: bool = False


_CLIP, _SQUARE = _Kind(crops=True, square=False), _Kind(crops=False, square=True)
_LLAVA, _LLAVA_NEXT = replace(_CLIP, pads=True), replace(_CLIP, tiles=True)
# By exact `image_processor_type`, or `feature_extractor_type` in older files.
_KINDS: dict[str, _Kind] = {
    "CLIPImageProcessor": _CLIP,
    "CLIPImageProcessorFast": _CLIP,
    "CLIPFeatureExtractor": _CLIP,
    "LlavaImageProcessor": _LLAVA,  # our own checkpoints
    "LlavaImageProcessorFast": _LLAVA,
    "LlavaNextImageProcessor": _LLAVA_NEXT,
    "LlavaNextImageProcessorFast": _LLAVA_NEXT,
    "BitImageProcessor": _CLIP,  # DINOv2
    "BitImageProcessorFast": _CLIP,
    "SiglipImageProcessor": _SQUARE,
    "SiglipImageProcessorFast": _SQUARE,
    "ViTImageProcessor": _SQUARE,
    "ViTImageProcessorFast": _SQUARE,
    "ViTFeatureExtractor": _SQUARE,
}


@dataclass(frozen=True)
class TowerPixels:
    """What a vision tower wants of its pixels.

    size: side of a tile; short_side: what its own processor resizes the short side to before it cuts out the tile
    """

    size: int
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int
    rescale_factor: float


@dataclass(frozen=True)
class ImageTransform:
    """One picture -> tiles, in one of the modes of `layout.ImageMode`."""

    tower: TowerPixels
    mode: str

    def __post_init__(self) -> None:
        check_mode(self.mode)

    @classmethod
    def from_tower(cls, name_or_dir: str | Path, mode: str | None) -> ImageTransform:
        """Read what a vision tower was trained with from its preprocessor_config.json.

        mode: None: what its image processor does with a picture, for checkpoints that do not name theirs.
        Raises ImageError for an unknown mode or kind of file, or one that leaves out what must not be guessed.
        """
        try:
            settings, _ = CLIPImageProcessorPil.get_image_processor_dict(str(name_or_dir))
        except OSError as error:
            message = f"cannot read its preprocessor_config.json ({str(error).splitlines()[0]})"
            raise ImageError(f"{name_or_dir}: {message}") from None
        where = f"{name_or_dir}, preprocessor_config.json"
        tower = _read_settings(settings, where)
        return cls(tower, mode or _read_mode(settings, tower, where))

    @property
    def size(self) -> int:
        """Side of a tile in pixels."""
        return self.tower.size

    def with_mode(self, mode: str) -> ImageTransform:
        """Return the same transform in another mode."""
        return replace(self, mode=mode)

    def with_short_side(self, short_side: int) -> ImageTransform:
        """Return the same transform of a tower whose own processor resizes to `short_side` before it crops."""
        return replace(self, tower=replace(self.tower, short_side=short_side))

    @property
    def image_processor(self) -> LlavaImageProcessorPil | LlavaNextImageProcessorPil:
        """transformers' image processor that gives the same tiles; under anyres_max, the tiles of several pictures."""
        if self.mode == "anyres":
            return LlavaNextImageProcessorPil(
                **self._settings, size={"shortest_edge": self.size}, image_grid_pinpoints=self.pinpoints
            )
        square = {"height": self.size, "width": self.size}
        short_side = self.tower.short_side if self.mode == "crop" else self.size
        return LlavaImageProcessorPil(
            **self._settings,
            size=square if self.mode == "resize" else {"shortest_edge": short_side},
            do_pad=self.mode == "pad" or is_anyres(self.mode),
        )

    @property
    def pinpoints(self) -> list[list[int]]:
        """The canvases of anyres as transformers has them, (height, width), in the order that decides ties."""
        return [[down * self.size, across * self.size] for across, down in grids("anyres")]

    def save_tower(self, folder: Path) -> None:
        """Write the preprocessor_config.json of a CLIP tower; the mode is not the tower's."""
        CLIPImageProcessorPil(**self._settings, size={"shortest_edge": self.tower.short_side}).save_pretrained(folder)

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "crop_size": {"height": self.size, "width": self.size},
            "image_mean": list(self.tower.mean),
            "image_std": list(self.tower.std),
            "resample": self.tower.resample,
            "rescale_factor": self.tower.rescale_factor,
        }

    def __call__(self, image: PilImage.Image, *, alone: bool = True) -> torch.Tensor:
        """Return the tiles of an RGB picture: float32 [N, 3, H, W].

        alone: False for one of several pictures in a conversation, which anyres gives one padded tile each.
        """
        if is_anyres(self.mode) and alone:
            tiles = self._cut(image)
        else:
            tiles = np.asarray(self._square(image))[None]  # [1, H, W, 3]
        pixels = np.empty((len(tiles), 3, self.size, self.size), dtype=np.float32)
        for channel, table in enumerate(self._normalised):
            np.take(table, tiles[..., channel], out=pixels[:, channel], mode="clip")
        return torch.from_numpy(pixels)

    def restore(self, pixel_values: torch.Tensor) -> np.ndarray:
        """Return tiles, float32 [N, 3, H, W], as the pictures that they were made of: uint8 [N, H, W, 3]."""
        mean, std = (np.array(x, dtype=np.float64) for x in (self.tower.mean, self.tower.std))
        values = (pixel_values.permute(0, 2, 3, 1).double().numpy() * std + mean) / self.tower.rescale_factor
        return values.round().clip(0, 255).astype(np.uint8)

    def _square(self, image: PilImage.Image) -> PilImage.Image:
        """Make one tile of a whole picture, or of its centre."""
        size = (self.size, self.size)
        if self.mode == "resize":
            return image.resize(size, self._resample)
        if self.mode == "crop":
            return _center(image.resize(_by_short_side(image.size, self.tower.short_side), self._resample), self.size)
        side = max(image.size)
        if image.size != (side, side):
            square = PilImage.new("RGB", (side, side), tuple(int(value * 255) for value in self.tower.mean))
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = square
        return image.resize(size, self._resample)

    def _cut(self, image: PilImage.Image) -> np.ndarray:
        """Squash a picture into its base view and cut it, on a black canvas, into tiles: uint8 [N, H, W, 3].

        LLaVA resizes here with PIL's own default, bicubic, whatever the tower's processor does.
        """
        across, down = choose_grid(image.size, self.mode, self.size)
        canvas = PilImage.new("RGB", (across * self.size, down * self.size))
        size, corner = place(image.size, canvas.size)
        canvas.paste(image.resize(size, PilImage.Resampling.BICUBIC), corner)
        tiles = np.asarray(canvas).reshape(down, self.size, across, self.size, 3).swapaxes(1, 2)
        base = np.asarray(image.resize((self.size, self.size), PilImage.Resampling.BICUBIC))
        return np.concatenate([base[None], tiles.reshape(-1, self.size, self.size, 3)])

    @property
    def _resample(self) -> PilImage.Resampling:
        return PilImage.Resampling(self.tower.resample)

    @cached_property
    def _normalised(self) -> np.ndarray:
        """What each of the 256 values becomes: float32 [3, 256]. A table of transformers' arithmetic, step by step."""
        values = (np.arange(256).astype(np.float64) * self.tower.rescale_factor).astype(np.float32)
        mean, std = (np.array(x, dtype=np.float32)[:, None] for x in (self.tower.mean, self.tower.std))
        return (values - mean) / std


def _by_short_side(image_size: Size, short_side: int) -> Size:
    width, height = image_size
    long_side = int(short_side * max(image_size) / min(image_size))
    return (short_side, long_side) if width <= height else (long_side, short_side)


def _center(image: PilImage.Image, size: int) -> PilImage.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _read_settings(settings: dict[str, Any], where: str) -> TowerPixels:
    """Check a preprocessor_config.json. Nothing falls back on another tower's defaults."""
    kind = _kind(settings, where)
    if missing := [key for key in ("size", "image_mean", "image_std", "resample") if settings.get(key) is None]:
        raise ImageError(f"{where}: does not say its {', '.join(missing)}; add what the tower was trained with")
    if off := [key for key in ("do_resize", "do_rescale", "do_normalize") if settings.get(key) is False]:
        raise ImageError(f"{where}: switches off {', '.join(off)}, which tiles of pictures need")
    crops = settings.get("do_center_crop")
    short_side, size = _read_size(settings["size"], kind.square)
    if kind.crops if crops is None else crops:
        _, size = _read_size(settings.get("crop_size"), True)
    if size is None or short_side < size:
        raise ImageError(
            f"{where}: size {settings['size']} and crop_size {settings.get('crop_size')} give no square tile"
        )
    return TowerPixels(
        size=size,
        short_side=short_side,
        mean=tuple(settings["image_mean"]),
        std=tuple(settings["image_std"]),
        resample=int(settings["resample"]),
        rescale_factor=float(settings.get("rescale_factor") or 1 / 255),
    )


def _read_mode(settings: dict[str, Any], tower: TowerPixels, where: str) -> str:
    """Return the image mode in which a picture's pixels are those of an image processor. Raises ImageError."""
    kind = _kind(settings, where)
    if kind.tiles:
        mode = "anyres"
    elif kind.pads and settings.get("do_pad"):
        mode = "pad"
    else:
        mode = "crop" if _read_size(settings["size"], kind.square)[1] is None else "resize"
    if mode != "crop" and tower.short_side != tower.size:
        raise ImageError(
            f"{where}: cuts tiles of {tower.size} pixels out of {tower.short_side}, which no image mode does but crop"
        )
    return mode


def _kind(settings: dict[str, Any], where: str) -> _Kind:
    name = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    if name not in _KINDS:
        raise ImageError(f"{where}: unknown image processor {name!r}; known: {', '.join(_KINDS)}")
    return _KINDS[name]


def _read_size(value: object, square: bool) -> tuple[int, int | None]:
    """Read a size in any spelling as (short side, side of the square it makes if it makes one)."""
    sizes = value if isinstance(value, dict) else {"side": value}
    numbers = {int(number) for number in sizes.values() if isinstance(number, int)}
    if len(numbers) != 1:
        return 0, None
    (side,) = numbers
    return side, side if square or "height" in sizes else None
