"""Where each visual token comes from: image size -> index of projected patches. Its length IS the token count.

Pure: no picture is opened. An anyres picture is seen twice: squashed into one tile, the base view, and whole on a grid
of tiles (LLaVA-1.6; llava/mm_utils.py and llava_arch.py of LLaVA-NeXT are the authority for every rounding here).

    640 x 480 on 2 x 2 tiles       visual tokens, in this order
      . . . . | . . . .            base view: its patches
      a a a a | b b b b            grid: the rows of the whole mosaic, padding (.) left out,
      --------+--------            each row across the tiles and ended by the newline:
      c c c c | d d d d              a a a a b b b b \\n
      . . . . | . . . .              c c c c d d d d \\n
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np

from llava_lite.images.loading import ImageError

Size = tuple[int, int]
"""(width, height): of a picture or canvas in pixels, of a grid in tiles."""
OneTileMode = Literal["pad", "crop", "resize"]

NEWLINE = -1
"""The index of the projector's `image_newline`: the last row of the table."""
_KNOWN = f"{', '.join(get_args(OneTileMode))}, anyres, anyres_max_<N>"
_ANYRES = re.compile(r"anyres(?:_max_([1-9]\d*))?")
# Tiles across and down. LLaVA-1.6's, in its own order, which decides ties; and "(1x1),...,(6x6)" of LLaVA-OneVision.
_GRIDS: Sequence[Size] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
_THIN_FROM = 1.1  # how many times too long a mosaic's sides are, on average, before it is thinned
_GRIDS_MAX: Sequence[Size] = tuple((across, down) for across in range(1, 7) for down in range(1, 7))


class _KnownMode:
    """Makes pydantic check the field of a recipe as `check_mode` does; pydantic itself is not needed here."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        def check(mode: str) -> str:
            if not _is_known(mode):
                raise ValueError(f"should be one of {_KNOWN}")
            return mode

        return {
            "type": "function-after",
            "function": {"type": "no-info", "function": check},
            "schema": handler(source),
        }


ImageMode = Annotated[str, _KnownMode()]
"""How a picture becomes tiles.

pad:            on a square of the tower's mean colour, nothing is cut off (LLaVA-1.5's second stage and inference)
crop:           the centre square, the rest is lost (LLaVA's first stage)
resize:         the whole picture stretched to the square (what SigLIP's own processor does)
anyres:         the picture squashed, then whole on the best of five grids of tiles, rows ended by a newline (LLaVA-1.6)
anyres_max_<N>: the same on grids of up to 6 x 6 tiles, thinned to about the patches of N tiles (LLaVA-OneVision: 9)
"""


def check_mode(mode: str) -> str:
    """Return the mode; raise ImageError that lists the known ones for any other word."""
    if not _is_known(mode):
        raise ImageError(f"unknown image mode {mode!r}; known: {_KNOWN}")
    return mode


def is_anyres(mode: str) -> bool:
    """Whether a mode cuts a picture into a grid, and ends rows with the newline."""
    return _ANYRES.fullmatch(mode) is not None


def _is_known(mode: str) -> bool:
    return mode in get_args(OneTileMode) or is_anyres(mode)


@dataclass(frozen=True)
class Layout:
    """The visual tokens of one picture.

    num_tiles: N
    index:     int64 [K], rows of the N * P' projected patches, or NEWLINE; [K, 4] where tokens lie between patches
    weight:    float32 [K, 4], what each of the four counts; None with one row a token
    grid:      the tiles across and down that follow the base view; None where there is one tile alone
    """

    num_tiles: int
    index: np.ndarray
    weight: np.ndarray | None = None
    grid: Size | None = None


def lay_out(image_size: Size | None, mode: str, *, tile_size: int, num_patches: int) -> Layout:
    """Return the visual tokens of a picture; image_size None: of one that gets a single tile.

    num_patches: P', the projected patches of a tile, a square number if the mode is anyres. There a single tile, which
    each of several pictures gets, ends with one newline (LLaVA-NeXT).
    """
    base = np.arange(num_patches)
    if not is_anyres(mode):
        return Layout(1, base)
    if image_size is None:
        return Layout(1, np.append(base, NEWLINE))
    across, down = choose_grid(image_size, mode, tile_size)
    side = math.isqrt(num_patches)
    tiles = np.arange(num_patches, (1 + across * down) * num_patches).reshape(down, across, side, side)
    mosaic = _unpad(tiles.swapaxes(1, 2).reshape(down * side, across * side), image_size)
    size = _thin(mosaic.shape, mode, num_patches)
    if size == mosaic.shape:
        rows = np.pad(mosaic, ((0, 0), (0, 1)), constant_values=NEWLINE)
        return Layout(1 + across * down, np.concatenate([base, rows.ravel()]), grid=(across, down))
    taps, weight = _interpolate(mosaic, size)
    taps = np.pad(taps, ((0, 0), (0, 1), (0, 0)), constant_values=NEWLINE)
    weight = np.pad(weight, ((0, 0), (0, 1), (0, 0)))
    weight[:, -1, 0] = 1
    return Layout(
        1 + across * down,
        np.concatenate([np.repeat(base[:, None], 4, axis=1), taps.reshape(-1, 4)]),
        np.concatenate([np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (num_patches, 1)), weight.reshape(-1, 4)]),
        grid=(across, down),
    )


def most_tokens(mode: str, num_patches: int) -> int:
    """Return a number of visual tokens that no picture exceeds, whatever its size."""
    if not is_anyres(mode):
        return num_patches
    num_tiles: float = max(across * down for across, down in grids(mode))
    if (most := _max_tiles(mode)) is not None:
        num_tiles = min(num_tiles, _THIN_FROM**2 * most)
    num_rows = max(down for _, down in grids(mode)) * math.isqrt(num_patches)
    return num_patches + math.ceil(num_tiles * num_patches) + num_rows


def choose_grid(image_size: Size, mode: str, tile_size: int) -> Size:
    """Return the grid, tiles across and down, on which a picture keeps most of its pixels.

    Among equals the one that leaves the least canvas over, and among these the first.
    """
    width, height = image_size

    def merit(grid: Size) -> Size:
        canvas_width, canvas_height = grid[0] * tile_size, grid[1] * tile_size
        scale = min(canvas_width / width, canvas_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas_width * canvas_height

    return max(grids(mode), key=merit)


def grids(mode: str) -> Sequence[Size]:
    """Return the grids, tiles across and down, that an anyres mode chooses from; the first wins among equals."""
    return _GRIDS if mode == "anyres" else _GRIDS_MAX


def place(image_size: Size, canvas: Size) -> tuple[Size, Size]:
    """Return the size a picture is resized to on a canvas, and the corner (x, y) it is pasted at: centred, floored.

    The side that fills the canvas is exact; the other is rounded up, and floating point may add a pixel (300 x 300 on
    336 x 672 becomes 336 x 337).
    """
    (width, height), (canvas_width, canvas_height) = image_size, canvas
    scale_width, scale_height = canvas_width / width, canvas_height / height
    if scale_width < scale_height:
        size = canvas_width, min(math.ceil(height * scale_width), canvas_height)
    else:
        size = min(math.ceil(width * scale_height), canvas_width), canvas_height
    return size, ((canvas_width - size[0]) // 2, (canvas_height - size[1]) // 2)


def _unpad(mosaic: np.ndarray, image_size: Size) -> np.ndarray:
    """Cut from a mosaic [rows, columns] the patches that show nothing but padding; an odd one more stays.

    Of a picture so narrow that it fills no whole row, nothing stays: only its base view is seen.
    """
    (width, height), (rows, columns) = image_size, mosaic.shape
    if width / height > columns / rows:
        scale = columns / width
        padding = (rows - int(height * scale)) // 2
        return mosaic[padding : rows - padding]
    scale = rows / height
    padding = (columns - int(width * scale)) // 2
    return mosaic[:, padding : columns - padding]


def _thin(size: tuple[int, ...], mode: str, num_patches: int) -> tuple[int, ...]:
    """Return the rows and columns that anyres_max_<N> keeps of a mosaic: all, up to well over N tiles' worth."""
    most = _max_tiles(mode)
    if most is None:
        return size
    rows, columns = size
    factor = math.sqrt(rows * columns / (most * num_patches))
    return (max(1, int(rows // factor)), max(1, int(columns // factor))) if factor > _THIN_FROM else size


def _max_tiles(mode: str) -> int | None:
    match = _ANYRES.fullmatch(mode)
    return int(match[1]) if match and match[1] else None


def _interpolate(mosaic: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the four patches around each place of a coarser mosaic, and their weights: int64 and float32 [h, w, 4].

    Those of torch.nn.functional.interpolate(mode="bilinear", align_corners=False) in float32.
    """
    (top, bottom, down), (left, right, across) = (_taps(n, m) for n, m in zip(mosaic.shape, size, strict=True))
    taps = [mosaic[np.ix_(row, column)] for row in (top, bottom) for column in (left, right)]
    weights = [np.outer(row, column) for row in (1 - down, down) for column in (1 - across, across)]
    return np.stack(taps, axis=-1), np.stack(weights, axis=-1)


def _taps(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of `target` places along a side of `size` patches both neighbours and the second one's weight."""
    scale = float(np.float32(size) / np.float32(target))
    # torch multiplies and subtracts with one rounding at the end (fused, on CPU and GPU): so do these float64
    place = np.maximum((scale * (np.arange(target) + 0.5) - 0.5).astype(np.float32), 0)
    first = np.minimum(place.astype(np.int64), size - 1)
    return first, np.minimum(first + 1, size - 1), place - first.astype(np.float32)
