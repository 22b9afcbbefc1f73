"""LLaVA's own rules for anyres pictures, written plainly and slowly from their description, to test ours against."""

import math
from collections.abc import Callable

import torch
from PIL import Image as PilImage

Size = tuple[int, int]

PINPOINTS = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
"""LLaVA-1.6's canvases for tiles of 336 pixels: (width, height), in the order that decides ties."""


def canvases(mode: str, tile: int) -> list[Size]:
    if mode == "anyres":
        return [(width // 336 * tile, height // 336 * tile) for width, height in PINPOINTS]
    return [(i * tile, j * tile) for i in range(1, 7) for j in range(1, 7)]


def best_canvas(size: Size, choices: list[Size]) -> Size:
    """The first canvas that no other beats: more of the picture kept, or as much with less canvas wasted."""
    best, best_kept, best_wasted = choices[0], -1, 0
    for width, height in choices:
        scale = min(width / size[0], height / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        wasted = width * height - kept
        if kept > best_kept or (kept == best_kept and wasted < best_wasted):
            best, best_kept, best_wasted = (width, height), kept, wasted
    return best


def on_canvas(image: PilImage.Image, canvas: Size) -> PilImage.Image:
    """The picture as large as it fits, in the middle of black."""
    by_width, by_height = canvas[0] / image.width, canvas[1] / image.height
    if by_width < by_height:
        size = (canvas[0], min(math.ceil(image.height * by_width), canvas[1]))
    else:
        size = (min(math.ceil(image.width * by_height), canvas[0]), canvas[1])
    result = PilImage.new("RGB", canvas, (0, 0, 0))
    result.paste(image.resize(size), ((canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2))
    return result


def views(image: PilImage.Image, mode: str, tile: int) -> list[PilImage.Image]:
    """The base view and the tiles, before the tower's own processor."""
    canvas = on_canvas(image, best_canvas(image.size, canvases(mode, tile)))
    tiles = [
        canvas.crop((x, y, x + tile, y + tile))
        for y in range(0, canvas.height, tile)
        for x in range(0, canvas.width, tile)
    ]
    return [image.resize((tile, tile)), *tiles]


def kept_of(cells: int, across_cells: int, across: int, along: int) -> slice:
    """Which of `cells` rows show the picture, `along` pixels high and `across` wide, on `across_cells` columns."""
    padding = (cells - int(along * (across_cells / across))) // 2
    return slice(padding, cells - padding)


def unpadded(mosaic: torch.Tensor, size: Size) -> torch.Tensor:
    """mosaic: [rows, columns, D]."""
    rows, columns = mosaic.shape[:2]
    if size[0] / size[1] > columns / rows:
        return mosaic[kept_of(rows, columns, size[0], size[1])]
    return mosaic[:, kept_of(columns, rows, size[1], size[0])]


def num_tokens(size: Size, mode: str, tile: int, side: int) -> int:
    """How many visual tokens a picture takes, counted without any feature."""
    canvas = best_canvas(size, canvases(mode, tile))
    columns, rows = (length // tile * side for length in canvas)
    if size[0] / size[1] > columns / rows:
        rows = len(range(rows)[kept_of(rows, columns, size[0], size[1])])
    else:
        columns = len(range(columns)[kept_of(columns, rows, size[1], size[0])])
    rows, columns = thinned(rows, columns, mode, side)
    return side * side + rows * (columns + 1)


def thinned(rows: int, columns: int, mode: str, side: int) -> Size:
    most = mode.removeprefix("anyres").removeprefix("_max_")
    times = math.sqrt(rows * columns / (int(most) * side**2)) if most else 0
    return (int(rows // times), int(columns // times)) if times > 1.1 else (rows, columns)


def merged(features: torch.Tensor, size: Size, mode: str, tile: int, newline: torch.Tensor) -> torch.Tensor:
    """What the language model sees of a picture's projected tiles, the base view first: [N, P, D] -> [K, D]."""
    side = math.isqrt(features.shape[1])
    canvas = best_canvas(size, canvases(mode, tile))
    across, down = canvas[0] // tile, canvas[1] // tile
    base, tiles = features[0], features[1:].reshape(down, across, side, side, -1)
    lines = [torch.cat(list(row), dim=1) for row in tiles]  # tiles side by side: [side, across * side, D]
    mosaic = unpadded(torch.cat(lines), size)
    target = thinned(mosaic.shape[0], mosaic.shape[1], mode, side)
    if target != mosaic.shape[:2]:
        resize: Callable = torch.nn.functional.interpolate
        mosaic = resize(mosaic.permute(2, 0, 1)[None], target, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    rows = [torch.cat([row, newline[None]]) for row in mosaic]
    return torch.cat([base, *rows])
