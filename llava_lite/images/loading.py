"""Open a picture from wherever it comes, with limits: pictures come from strangers.

The size is read from the header before any pixel is decoded, so that a small file cannot ask for a large memory.
"""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path

from PIL import Image as PilImage
from PIL import UnidentifiedImageError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000


class ImageError(ValueError):
    """A picture that cannot be opened: missing, broken, too large, or from a place that is not read."""


def load_image(source: object) -> PilImage.Image:
    """Open a path, a `data:` URI, bytes or a PIL image, and return it in RGB.

    Raises ImageError that names the source for a missing, truncated or unreadable file, for more than MAX_BYTES of
    data or MAX_PIXELS of picture, and for http(s) addresses, which are not fetched.
    """
    name = _name(source)
    if isinstance(source, PilImage.Image):
        return _to_rgb(source, name)
    try:
        with PilImage.open(io.BytesIO(_read(source, name))) as image:
            return _to_rgb(image, name)
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image this reads; convert it to PNG or JPEG") from None
    except PilImage.DecompressionBombError:
        raise _too_many_pixels(name) from None


def _read(source: object, name: str) -> bytes:
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str) and source.startswith("data:"):
        data = _decode_data_uri(source)
    elif isinstance(source, str) and "://" in source:
        raise ImageError(f"{name}: addresses are not fetched; download the image and give its path")
    elif isinstance(source, str | Path):
        try:
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error.strerror}); check the path") from None
    else:
        raise ImageError(f"cannot open an image from {type(source).__name__}; give a path, bytes or a PIL image")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: larger than {MAX_BYTES // 2**20} MiB; save it smaller")
    return data


def _decode_data_uri(source: str) -> bytes:
    header, _, body = source.partition(",")
    if not header.endswith(";base64"):
        raise ImageError("data: URI without base64; write data:image/png;base64,...")
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise ImageError(f"data: URI larger than {MAX_BYTES // 2**20} MiB; save the image smaller")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ImageError(f"data: URI with broken base64 ({error})") from None


def _to_rgb(image: PilImage.Image, name: str) -> PilImage.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(name)
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises on truncated or broken pixels
        raise ImageError(f"{name}: broken image ({error}); replace the file or drop the record") from None


def _too_many_pixels(name: str) -> ImageError:
    return ImageError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; save it smaller")


def _name(source: object) -> str:
    if isinstance(source, str | Path) and not str(source).startswith("data:"):
        return str(source)
    return f"image ({'data: URI' if isinstance(source, str) else type(source).__name__})"
