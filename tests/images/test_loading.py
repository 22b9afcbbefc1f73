"""Pictures come from strangers: every broken, missing or enormous one is an ImageError that names it."""

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from llava_lite.images import loading
from llava_lite.images.loading import FileSlice, ImageError, image_size, load_image

PICTURE = PilImage.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def encoded(image: PilImage.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has no pixels."""
    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", fields), (b"IDAT", b""), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write(tmp_path: Path, data: bytes, name: str = "picture.png") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["path", "string", "bytes", "data URI", "PIL", "slice"])
def test_every_form_of_a_picture_opens_as_the_same_pixels(tmp_path: Path, form: str) -> None:
    data = encoded(PICTURE)
    path = write(tmp_path, data)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    member = FileSlice(write(tmp_path, b"before" + data + b"behind", "all.tar"), 6, len(data))
    sources = {"path": path, "string": str(path), "bytes": data, "data URI": uri, "PIL": PICTURE, "slice": member}
    image = load_image(sources[form])
    assert image.mode == "RGB" and image.size == (20, 12) and image.tobytes() == PICTURE.tobytes()
    assert image_size(sources[form]) == (20, 12)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "L", "1", "CMYK"])
def test_every_mode_opens_as_pil_converts_it(mode: str) -> None:
    image = PilImage.linear_gradient("L").resize((20, 12)).convert(mode)
    if mode == "RGBA":
        image.putalpha(7)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert load_image(data).tobytes() == PilImage.open(io.BytesIO(data)).convert("RGB").tobytes()
    assert image_size(data) == (20, 12)


def test_what_lies_under_a_transparent_place_shows() -> None:
    image = PICTURE.copy()
    image.putalpha(0)
    assert load_image(encoded(image)).tobytes() == PICTURE.tobytes()


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_a_palette_with_transparency_shows_its_colors() -> None:
    image = PICTURE.quantize(8)
    data = encoded(image, "PNG", transparency=bytes(range(0, 256, 32)))
    assert PilImage.open(io.BytesIO(data)).info["transparency"]
    assert load_image(data).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_is_seen(kind: str) -> None:
    frames = [PilImage.new("RGB", (20, 12), color) for color in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    assert PilImage.open(io.BytesIO(data)).n_frames == 3
    assert load_image(data).getpixel((5, 5)) == (255, 0, 0) and image_size(data) == (20, 12)


def test_the_exif_orientation_is_not_applied() -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = encoded(PICTURE, "PNG", exif=exif)
    assert PilImage.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert load_image(data).tobytes() == PICTURE.tobytes() and image_size(data) == (20, 12)


def test_a_tiff_has_the_size_that_its_pixels_have() -> None:
    data = encoded(PICTURE, "TIFF", tiffinfo={274: 6})  # PIL itself turns a TIFF
    assert load_image(data).size == image_size(data) == (12, 20)


GREYS = np.arange(20 * 12, dtype=np.uint16).reshape(12, 20) * 273
"""From black to nearly white."""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF, high byte first", "PGM", "32-bit PIL"])
def test_greys_of_sixteen_bits_keep_their_shades(kind: str) -> None:
    source = {
        "PNG": lambda: encoded(PilImage.fromarray(GREYS), "PNG"),
        "TIFF": lambda: encoded(PilImage.fromarray(GREYS), "TIFF"),
        "TIFF, high byte first": lambda: encoded(PilImage.fromarray(GREYS.astype(">u2")), "TIFF"),
        "PGM": lambda: b"P5 20 12 65535\n" + GREYS.astype(">u2").tobytes(),
        "32-bit PIL": lambda: PilImage.fromarray(GREYS.astype(np.int32)),
    }[kind]()
    image = load_image(source)
    assert image.mode == "RGB"
    assert (np.asarray(image) == (GREYS >> 8)[..., None]).all()


@pytest.mark.parametrize("values", [GREYS.astype(np.int32) - 1, GREYS.astype(np.int32) * 2])
def test_greys_of_more_than_sixteen_bits_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ImageError, match="more than 16 bits, without an agreed white; save it as 8-bit PNG"):
        load_image(encoded(PilImage.fromarray(values), "TIFF"))


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(PilImage.fromarray(GREYS.astype(np.float32) / 65535), "TIFF"), "depth.tiff")
    with pytest.raises(ImageError, match=r"depth\.tiff: pixels are floating-point numbers.*; save it as 8-bit PNG"):
        load_image(path)


def test_a_size_is_read_without_a_pixel(tmp_path: Path) -> None:
    assert image_size(write(tmp_path, png_header(4000, 3000))) == (4000, 3000)
    jpeg = encoded(PilImage.new("RGB", (640, 480)), "JPEG")
    assert image_size(jpeg[:700]) == (640, 480)
    with pytest.raises(ImageError, match="broken image"):
        load_image(jpeg[:700])


@pytest.mark.parametrize("open_it", [load_image, image_size])
def test_a_slice_of_a_file_names_its_place_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_it: Callable
) -> None:
    path = write(tmp_path, encoded(PICTURE), "all.tar")
    size = path.stat().st_size
    with pytest.raises(ImageError, match=rf"all\.tar \(bytes 1 to {size + 1}\): the file ends before"):
        open_it(FileSlice(path, 1, size))
    with pytest.raises(ImageError, match=r"all\.tar \(bytes 9 to 40\): not an image"):
        open_it(FileSlice(path, 9, 31))
    with pytest.raises(ImageError, match=r"gone\.tar.*: cannot be read \(No such file"):
        open_it(FileSlice(tmp_path / "gone.tar", 0, 1))
    monkeypatch.setattr(loading, "MAX_BYTES", size - 1)
    with pytest.raises(ImageError, match=r"all\.tar.*: larger than"):
        open_it(FileSlice(path, 0, size))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read \(No such file or directory\); check the path"):
        load_image(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.01, 0.03, 0.1, 0.3, 0.6])
def test_a_file_truncated_anywhere_is_named(tmp_path: Path, kind: str, part: float) -> None:
    data = encoded(PICTURE, kind)
    path = write(tmp_path, data[: max(12, int(len(data) * part))], f"half.{kind.lower()}")
    with pytest.raises(ImageError, match=rf"half\.{kind.lower()}: (broken image|not an image)"):
        load_image(path)


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ImageError, match=r"picture\.png: not an image of a kind this reads; convert it"):
        load_image(write(tmp_path, data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_001, 10), (10, 10_001), (12_000, 12_000), (60_000, 60_000)])
@pytest.mark.parametrize("open_it", [load_image, image_size])
def test_an_image_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int], open_it: Callable) -> None:
    path = write(tmp_path, png_header(*size))
    with pytest.raises(ImageError, match=r"picture\.png: more than 10000 pixels on a side; save it smaller"):
        open_it(path)


def test_the_header_alone_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"picture\.png: broken image"):
        load_image(write(tmp_path, png_header(20, 12)))


@pytest.mark.parametrize("size", [(201, 1), (2, 401), (0, 5), (0, 0)])
def test_a_picture_that_would_become_enormous_when_resized_is_refused(size: tuple[int, int]) -> None:
    for open_it in (load_image, image_size):
        with pytest.raises(ImageError, match=rf"{size[0]} x {size[1]} pixels is too narrow"):
            open_it(PilImage.new("RGB", size))


def test_a_strip_of_two_hundred_to_one_still_opens() -> None:
    assert load_image(PilImage.new("RGB", (2, 400))).size == (2, 400)


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(PICTURE)
    monkeypatch.setattr(loading, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ImageError, match=r"picture\.png: larger than"):
        load_image(write(tmp_path, data))
    with pytest.raises(ImageError, match=r"data: URI\): larger than"):
        load_image(f"data:image/png;base64,{base64.b64encode(data).decode()}")
    with pytest.raises(ImageError, match=r"^data: URI larger than"):  # seen before it is decoded
        load_image(f"data:image/png;base64,{'A' * 2 * len(data)}")
    monkeypatch.setattr(loading, "MAX_BYTES", len(data))
    assert load_image(data).size == (20, 12)


@pytest.mark.parametrize("address", ["http://example.com/a.png", "HTTPS://example.com/a.png", "file:///etc/passwd"])
def test_an_address_is_not_fetched(address: str) -> None:
    with pytest.raises(ImageError, match=f"{address}: addresses are not fetched here; give what llava_lite"):
        load_image(address)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("data:image/png,abc", "without base64"),
        ("data:image/png;base64,abc", "broken base64"),
        ("data:image/png;base64,äöü", "broken base64"),
        ("data:image/png;base64,", r"image \(data: URI\): not an image"),
    ],
)
def test_a_broken_data_uri_says_what_is_wrong(uri: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(uri)


def test_what_cannot_be_a_path_is_refused_in_few_words() -> None:
    with pytest.raises(ImageError, match="not a path"):
        load_image("a\0.png")
    with pytest.raises(ImageError, match="cannot be read") as caught:
        load_image(base64.b64encode(bytes(9000)).decode())
    assert len(str(caught.value)) < 300
    with pytest.raises(ImageError, match="cannot open an image from int"):
        load_image(3)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)
