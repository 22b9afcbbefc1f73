"""Open a picture from wherever it comes, with limits: pictures come from strangers.

The size is read from the header before any pixel is decoded, so that a small file cannot ask for a large memory: not
when it is opened, not when it is padded to a square, not when its short side is resized to the tower's.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PilImage
from PIL import UnidentifiedImageError

MAX_BYTES = 64 * 2**20
MAX_SIDE = 10_000
MAX_RATIO = 200
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # PIL knows more, among them EPS, which runs Ghostscript


class ImageError(ValueError):
    """A picture that cannot be opened: missing, broken, too large, or from a place that is not read."""


@dataclass(frozen=True)
class FileSlice:
    """A picture inside a larger file, such as a member of a tar archive: where it starts and its size in bytes."""

    path: Path
    offset: int
    size: int


def load_image(source: object) -> PilImage.Image:
    """Open a path, a `data:` URI, bytes or a PIL image, and return it in RGB.

    Raises ImageError that names the source for a missing, truncated or unreadable file, for more than MAX_BYTES, for a
    side of more than MAX_SIDE pixels or MAX_RATIO times the other, and for http(s) addresses, which are not fetched.
    """
    name = _name(source)
    try:
        if isinstance(source, PilImage.Image):
            return _to_rgb(source, name)
        with PilImage.open(io.BytesIO(_read(source, name)), formats=FORMATS) as image:
            return _to_rgb(image, name)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image of a kind this reads; convert it to PNG or JPEG") from None
    except PilImage.DecompressionBombError:
        raise _too_large(name) from None
    except Exception as error:  # broken data makes PIL's decoders stumble in every way: OSError, SyntaxError, TypeError
        raise ImageError(f"{name}: broken image ({error}); replace the file or drop the record") from None


def _read(source: object, name: str) -> bytes:
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, FileSlice):
        with source.path.open("rb") as file:
            file.seek(source.offset)
            data = file.read(min(source.size, MAX_BYTES + 1))
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
        except ValueError as error:
            raise ImageError(f"{name!r}: not a path ({error})") from None
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
    except ValueError as error:  # binascii.Error, or a letter that is not ASCII
        raise ImageError(f"data: URI with broken base64 ({error})") from None


def _to_rgb(image: PilImage.Image, name: str) -> PilImage.Image:
    long, short = max(image.size), min(image.size)
    if long > MAX_SIDE:
        raise _too_large(name)
    if not 0 < long <= MAX_RATIO * short:
        width, height = image.size
        raise ImageError(f"{name}: {width} x {height} pixels is too narrow; cut it to at most {MAX_RATIO} to 1")
    return image.convert("RGB")


def _too_large(name: str) -> ImageError:
    return ImageError(f"{name}: more than {MAX_SIDE} pixels on a side; save it smaller")


def _name(source: object) -> str:
    if isinstance(source, str | Path) and not str(source).startswith("data:"):
        return str(source) if len(str(source)) < 1000 else f"{str(source)[:100]}..."
    return f"image ({'data: URI' if isinstance(source, str) else type(source).__name__})"
