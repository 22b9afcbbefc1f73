"""Pictures come from strangers: every broken, missing or enormous one is an ImageError that names it."""

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from llava_lite.images import loading
from llava_lite.images.loading import ImageError, load_image

PICTURE = PilImage.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def encoded(image: PilImage.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
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


@pytest.mark.parametrize("form", ["path", "string", "bytes", "data URI", "PIL"])
def test_every_form_of_a_picture_opens_as_the_same_pixels(tmp_path: Path, form: str) -> None:
    data = encoded(PICTURE)
    path = write(tmp_path, data)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    sources = {"path": path, "string": str(path), "bytes": data, "data URI": uri, "PIL": PICTURE}
    image = load_image(sources[form])
    assert image.mode == "RGB" and image.size == (20, 12) and image.tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "L", "1", "I;16", "CMYK"])
def test_every_mode_opens_as_pil_converts_it(tmp_path: Path, mode: str) -> None:
    image = PilImage.linear_gradient("L").resize((20, 12))
    image = image.convert("I;16").point(lambda value: value * 257) if mode == "I;16" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(7)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert load_image(data).tobytes() == PilImage.open(io.BytesIO(data)).convert("RGB").tobytes()


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
def test_an_image_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write(tmp_path, png_header(*size))
    with pytest.raises(ImageError, match=r"picture\.png: more than 10000 pixels on a side; save it smaller"):
        load_image(path)


def test_the_header_alone_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"picture\.png: broken image"):
        load_image(write(tmp_path, png_header(20, 12)))


@pytest.mark.parametrize("size", [(201, 1), (2, 401), (0, 5), (0, 0)])
def test_a_picture_that_would_become_enormous_when_resized_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"{size[0]} x {size[1]} pixels is too narrow"):
        load_image(PilImage.new("RGB", size))


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
    with pytest.raises(ImageError, match=f"{address}: addresses are not fetched; download the image"):
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
