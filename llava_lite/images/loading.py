"""Open a picture from wherever it comes, with limits: pictures come from strangers.

The size is read from the header before any pixel is decoded, so that a small file cannot ask for a large memory: not
when it is opened, not when it is padded to a square, not when its short side is resized to the tower's.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image as PilImage
from PIL import UnidentifiedImageError

MAX_BYTES = 64 * 2**20
MAX_SIDE = 10_000
MAX_RATIO = 200
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # PIL knows more, among them EPS, which runs Ghostscript

_EVERYWHERE = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how files begin that every program opens: PNG and JPEG


class ImageError(ValueError):
    """A picture that cannot be opened: missing, broken, too large, or from a place that is not read."""


@dataclass(frozen=True)
class FileSlice:
    """A stretch of a file that is a picture, such as a member of a tar: `size` bytes from `offset` on."""

    path: Path
    offset: int
    size: int


def load_image(source: object) -> PilImage.Image:
    """Open a path, a FileSlice, a `data:` URI, bytes or a PIL image, and return it in RGB.

    The pixels are those of PIL's `convert("RGB")`, as LLaVA was trained and scored: alpha is dropped (what lies under
    a transparent place shows), the EXIF orientation is not applied, and of an animation the first frame is seen. Only
    where PIL would clip to white is it done otherwise: greys of 16 bits are scaled to 8, and so are those that PIL
    holds in 32 bits, as which it opens 16-bit PGM.

    Raises ImageError that names the source for a missing, truncated or unreadable file, for more than MAX_BYTES, for a
    side of more than MAX_SIDE pixels or MAX_RATIO times the other, for addresses, which `fetch_image` fetches, and
    for greys that have no agreed white: floating-point numbers, and integers of more than 16 bits.
    """
    with _opened(source) as image:
        return _to_rgb(image, _name(source))


def image_size(source: object) -> tuple[int, int]:
    """Return (width, height) of what `load_image` would return, from the header alone; raises as it does."""
    with _opened(source) as image:
        return image.size


def image_file(source: object) -> bytes:
    """Return a picture as a file that any other program opens; raises as `load_image` does.

    What is a PNG or JPEG stays as it is, byte for byte; all else becomes a PNG of the pixels that `load_image` returns.
    """
    image = load_image(source)
    if not isinstance(source, PilImage.Image):
        with _open_file(source, _name(source)) as file:
            data = file.read()
        if data.startswith(_EVERYWHERE):
            return data
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


@contextmanager
def _opened(source: object) -> Iterator[PilImage.Image]:
    """Open a picture whose header keeps the limits; nothing is decoded yet."""
    name = _name(source)
    try:
        if isinstance(source, PilImage.Image):
            _check_size(source, name)
            yield source
        else:
            with _open_file(source, name) as file, PilImage.open(file, formats=FORMATS) as image:
                _check_size(image, name)
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image of a kind this reads; convert it to PNG or JPEG") from None
    except PilImage.DecompressionBombError:
        raise _too_large(name) from None
    except Exception as error:  # broken data makes PIL's decoders stumble in every way: OSError, SyntaxError, TypeError
        raise ImageError(f"{name}: broken image ({error}); replace the file or drop the record") from None


def _open_file(source: object, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, str) and source.startswith("data:"):
        file = io.BytesIO(_decode_data_uri(source))
    elif isinstance(source, str) and "://" in source:
        raise ImageError(f"{name}: addresses are not fetched here; give what llava_lite.fetch_image returns, or a file")
    elif isinstance(source, FileSlice):
        file = io.BytesIO(_read_slice(source, name))
    elif isinstance(source, str | Path):
        file = _open_path(Path(source), name)
    else:
        raise ImageError(f"cannot open an image from {type(source).__name__}; give a path, bytes or a PIL image")
    if file.seek(0, os.SEEK_END) > MAX_BYTES:
        file.close()
        raise _too_many_bytes(name)
    file.seek(0)
    return file


def _open_path(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise ImageError(f"{name!r}: not a path ({error})") from None


def _read_slice(source: FileSlice, name: str) -> bytes:
    if source.size > MAX_BYTES:
        raise _too_many_bytes(name)
    with _open_path(source.path, name) as file:
        file.seek(source.offset)
        data = file.read(source.size)
    if len(data) < source.size:
        raise ImageError(f"{name}: the file ends before; it is cut off, or its index belongs to another file")
    return data


def _decode_data_uri(source: str) -> bytes:
    header, _, body = source.partition(",")
    if not header.endswith(";base64"):
        raise ImageError("data: URI without base64; write data:image/png;base64,...")
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise ImageError(f"data: URI larger than {MAX_BYTES // 2**20} MiB; save the image smaller")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:  # binascii.Error, or a letter that is not ASCII
        raise ImageError(f"data: URI with broken base64 ({error})") from None


def _check_size(image: PilImage.Image, name: str) -> None:
    long, short = max(image.size), min(image.size)
    if long > MAX_SIDE:
        raise _too_large(name)
    if not 0 < long <= MAX_RATIO * short:
        width, height = image.size
        raise ImageError(f"{name}: {width} x {height} pixels is too narrow; cut it to at most {MAX_RATIO} to 1")


def _to_rgb(image: PilImage.Image, name: str) -> PilImage.Image:
    if image.mode == "F":
        raise ImageError(f"{name}: pixels are floating-point numbers without an agreed white; save it as 8-bit PNG")
    if image.mode == "I" or image.mode.startswith("I;16"):  # PIL clips these to 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError(f"{name}: pixels of more than 16 bits, without an agreed white; save it as 8-bit PNG")
        image = PilImage.fromarray((values >> 8).astype(np.uint8))  # the high byte, as PIL reads 16-bit colours
    return image.convert("RGB")


def _too_large(name: str) -> ImageError:
    return ImageError(f"{name}: more than {MAX_SIDE} pixels on a side; save it smaller")


def _too_many_bytes(name: str) -> ImageError:
    return ImageError(f"{name}: larger than {MAX_BYTES // 2**20} MiB; save it smaller")


def _name(source: object) -> str:
    if isinstance(source, FileSlice):
        return f"{source.path} (bytes {source.offset} to {source.offset + source.size})"
    if isinstance(source, str | Path) and not str(source).startswith("data:"):
        return str(source) if len(str(source)) < 1000 else f"{str(source)[:100]}..."
    return f"image ({'data: URI' if isinstance(source, str) else type(source).__name__})"
