"""Visual tokens are LLaVA's own: golden sizes, a sweep against its rule written plainly, and every token's patch."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from llava_lite.config import Strict
from llava_lite.images.layout import NEWLINE, ImageMode, check_mode, choose_grid, is_anyres, lay_out, most_tokens, place
from llava_lite.images.loading import ImageError
from tests.images import plain_llava

# width, height, grid, resized to, pasted at, rows and columns left, tokens; 336 pixels and 24 x 24 patches a tile
ANYRES = [
    ((336, 336), (1, 2), (336, 336), (0, 168), (24, 24), 1176),
    ((300, 300), (1, 2), (336, 337), (0, 167), (24, 24), 1176),
    ((200, 300), (1, 2), (336, 504), (0, 84), (36, 24), 1476),
    ((43, 32), (1, 2), (336, 251), (0, 210), (18, 24), 1026),
    ((32, 43), (1, 2), (336, 452), (0, 110), (32, 24), 1376),
    ((500, 334), (2, 1), (503, 336), (84, 0), (24, 36), 1464),
    ((640, 480), (2, 2), (672, 504), (0, 84), (36, 48), 2340),
    ((480, 640), (2, 2), (504, 672), (84, 0), (48, 36), 2352),
    ((672, 672), (2, 2), (672, 672), (0, 0), (48, 48), 2928),
    ((1000, 300), (3, 1), (1008, 303), (0, 16), (22, 72), 2182),
    ((300, 1000), (1, 3), (303, 1008), (16, 0), (72, 22), 2232),
    ((899, 1024), (2, 2), (590, 672), (41, 0), (48, 42), 2640),
    ((1920, 1080), (2, 2), (672, 378), (0, 147), (28, 48), 1948),
    ((1080, 1920), (2, 2), (378, 672), (147, 0), (48, 28), 1968),
    ((100, 2000), (1, 3), (51, 1008), (142, 0), (72, 4), 936),
    ((4000, 3000), (2, 2), (672, 505), (0, 83), (36, 48), 2340),
]
# width, height, grid, rows and columns at last, tokens; anyres_max_9, 384 pixels and 27 x 27 patches a tile
ANYRES_MAX_9 = [
    ((384, 384), (1, 1), (27, 27), 1485),
    ((500, 334), (2, 1), (27, 40), 1836),
    ((640, 480), (2, 2), (40, 54), 2929),
    ((1024, 768), (3, 2), (54, 73), 4725),
    ((1920, 1080), (5, 3), (60, 108), 7269),
    ((3000, 1000), (6, 2), (46, 140), 7215),
    ((2304, 2304), (6, 6), (81, 81), 7371),
    ((100, 2000), (1, 6), (162, 9), 2349),
]
Size = tuple[int, int]


def sizes(count: int, longest: int = 3000) -> list[Size]:
    """Sizes of all shapes within the limits of pictures, small ones as often as large ones."""
    drawn = np.exp(np.random.default_rng(0).uniform(0, np.log(longest), (2 * count, 2))).astype(int)
    kept = [(int(w), int(h)) for w, h in drawn if max(w, h) <= 200 * min(w, h)]
    return kept[:count]


@pytest.mark.parametrize(("size", "grid", "resized", "paste", "left", "tokens"), ANYRES)
def test_anyres_is_golden(size: Size, grid: Size, resized: Size, paste: Size, left: Size, tokens: int) -> None:
    assert choose_grid(size, "anyres", 336) == grid
    assert place(size, (grid[0] * 336, grid[1] * 336)) == (resized, paste)
    layout = lay_out(size, "anyres", tile_size=336, num_patches=576)
    assert (layout.num_tiles, len(layout.index), layout.weight) == (1 + grid[0] * grid[1], tokens, None)
    assert layout.index[576:].reshape(left[0], left[1] + 1)[:, -1].tolist() == [NEWLINE] * left[0]


@pytest.mark.parametrize(("size", "grid", "left", "tokens"), ANYRES_MAX_9)
def test_anyres_max_is_golden(size: Size, grid: Size, left: Size, tokens: int) -> None:
    assert choose_grid(size, "anyres_max_9", 384) == grid
    layout = lay_out(size, "anyres_max_9", tile_size=384, num_patches=729)
    assert (layout.num_tiles, len(layout.index)) == (1 + grid[0] * grid[1], tokens)
    ends = layout.index[729:].reshape(left[0], left[1] + 1, -1)[:, -1]
    assert (ends == NEWLINE).all()


@pytest.mark.parametrize(
    ("mode", "tile", "side"), [("anyres", 336, 24), ("anyres", 224, 16), ("anyres_max_9", 384, 27)]
)
def test_token_counts_are_the_original_rules_over_a_sweep(mode: str, tile: int, side: int) -> None:
    sweep = [*sizes(2200), (3000, 1000), (100, 2000), (2000, 10), (10, 2000), (1, 1), (200, 1), (1, 200)]
    for size in sweep:
        layout = lay_out(size, mode, tile_size=tile, num_patches=side * side)
        assert len(layout.index) == plain_llava.num_tokens(size, mode, tile, side), size
        assert len(layout.index) <= most_tokens(mode, side * side), size
        canvas = plain_llava.best_canvas(size, plain_llava.canvases(mode, tile))
        assert layout.num_tiles == 1 + canvas[0] * canvas[1] // tile**2, size


def test_transformers_agrees_where_it_does_not_turn_ties_round() -> None:
    for width, height in sizes(1500):
        if max(width, height) <= 336:
            continue  # transformers reads LLaVA's canvases as (height, width), which turns ties round
        canvas = select_best_resolution((height, width), plain_llava.PINPOINTS)
        grid = choose_grid((width, height), "anyres", 336)
        assert (canvas[1] // 336, canvas[0] // 336) == grid, (width, height)
        left = unpad_image(torch.zeros(1, grid[1] * 24, grid[0] * 24), (height, width))[0]
        count = len(lay_out((width, height), "anyres", tile_size=336, num_patches=576).index)
        assert count == 576 + left.shape[0] * (left.shape[1] + 1), (width, height)


@pytest.mark.parametrize("mode", ["anyres", "anyres_max_1", "anyres_max_4", "anyres_max_9"])
def test_every_token_is_the_patch_the_original_puts_there(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in [*sizes(60), (100, 2000), (3000, 1000), (640, 480)]:
        layout = lay_out(size, mode, tile_size=48, num_patches=64)
        features = torch.randn(layout.num_tiles, 64, 5, generator=generator)
        newline = torch.randn(5, generator=generator)
        table = torch.cat([features.flatten(0, 1), newline[None]])
        found = table[torch.from_numpy(layout.index)]
        if layout.weight is not None:
            found = (found * torch.from_numpy(layout.weight)[..., None]).sum(1)
        expected = plain_llava.merged(features, size, mode, 48, newline)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_four_taps_have_the_weights_of_torchs_bilinear_resize() -> None:
    layout = lay_out((1920, 1080), "anyres_max_9", tile_size=384, num_patches=729)
    assert layout.weight is not None and layout.weight.dtype == np.float32 and layout.index.shape[1] == 4
    np.testing.assert_allclose(layout.weight.sum(1), 1, atol=1e-6)
    newline = layout.index[:, 0] == NEWLINE
    assert newline.sum() == 60 and (layout.weight[newline] == [1, 0, 0, 0]).all()
    assert (layout.index[:729] == np.arange(729)[:, None]).all() and (layout.weight[:729] == [1, 0, 0, 0]).all()


def test_a_picture_too_narrow_for_a_row_of_patches_is_its_base_view() -> None:
    assert lay_out((2000, 20), "anyres", tile_size=336, num_patches=576).index.tolist() == list(range(576))


@pytest.mark.parametrize("mode", ["pad", "crop", "resize"])
def test_one_tile_modes_take_a_tile_whatever_the_size(mode: str) -> None:
    for size in (None, (1, 1), (3000, 1000)):
        layout = lay_out(size, mode, tile_size=32, num_patches=15)
        assert (layout.num_tiles, layout.index.tolist(), layout.weight) == (1, list(range(15)), None)


def test_one_of_several_anyres_pictures_is_a_tile_and_a_newline() -> None:
    for mode in ("anyres", "anyres_max_9"):
        layout = lay_out(None, mode, tile_size=32, num_patches=4)
        assert (layout.num_tiles, layout.index.tolist()) == (1, [0, 1, 2, 3, NEWLINE])


class Model(Strict):
    image_mode: ImageMode = "pad"


@pytest.mark.parametrize("mode", ["pad", "crop", "resize", "anyres", "anyres_max_9", "anyres_max_12"])
def test_known_modes_are_accepted(mode: str) -> None:
    assert Model(image_mode=mode).model_dump() == {"image_mode": mode}
    assert check_mode(mode) == mode and is_anyres(mode) == mode.startswith("anyres")


@pytest.mark.parametrize("mode", ["square", "anyres_max_", "anyres_max_0", "anyres_max_-1", "xanyres", "anyres_max_9x"])
def test_an_unknown_mode_is_an_error_that_lists_the_known(mode: str) -> None:
    with pytest.raises(ValidationError, match="should be one of pad, crop, resize, anyres, anyres_max_<N>"):
        Model(image_mode=mode)
    with pytest.raises(ImageError, match=rf"unknown image mode '{mode}'; known: pad, crop, resize, anyres, anyres_max"):
        check_mode(mode)
