"""One image file: is it there, whole, of a kind that is read, and what training does to it that one would not expect.

Looked at by its header and its last bytes. The pixels are decoded where all shall be (`full`), where the end is not as
its format writes it, or where the header alone cannot tell.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image as PilImage
from PIL import UnidentifiedImageError

from llava_lite.data.doctor.faults import FAULTS, Note
from llava_lite.data.plan import near_file
from llava_lite.images.loading import (
    FORMATS,
    MAX_BYTES,
    MAX_RATIO,
    MAX_SIDE,
    FileSlice,
    ImageError,
    load_image,
)

_TINY = 8  # pixels of the shorter side
_ORIENTATION = 0x0112
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "WEBP": {".webp"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
}
_ALL_SUFFIXES = set().union(*_SUFFIXES.values())
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")  # of what is read
_FOREIGN = {  # what a file of a kind that is not read begins with, from byte `offset` on
    "HEIC or AVIF": (4, b"ftyp"),
    "PDF": (0, b"%PDF"),
    "PostScript": (0, b"%!PS"),
    "Photoshop": (0, b"8BPS"),
    "JPEG XL": (0, b"\xff\x0a"),
    "JPEG 2000": (4, b"jP  "),
    "ICO": (0, b"\0\0\1\0"),
    "ZIP": (0, b"PK\3\4"),
    "gzip": (0, b"\x1f\x8b"),
}


@dataclass(frozen=True)
class Look:
    """What was seen of an image. digest: of its bytes, 0 if not all were read; named: it is a file of its own."""

    notes: tuple[Note, ...]
    digest: int = 0
    named: bool = True


def look_at(source: object, name: str, *, full: bool, hash_sizes: frozenset[int] = frozenset()) -> Look:
    """Look at a path, a FileSlice, a data: URI or bytes. name: what notes call it.

    hash_sizes: files of these many bytes are hashed even if not `full`.
    """
    if isinstance(source, Path) and (problem := _find_fault_of_place(source, name)):
        return Look((problem,))
    try:
        file = open_file(source)
    except OSError as error:
        return Look((("unreadable-image", f"{name}: {error.strerror}"),))
    except ValueError as error:
        return Look((("bad-data-uri", f"{name}: {error}"),))
    with closing(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of what is told here
        num_bytes = file.seek(0, os.SEEK_END)
        notes = tuple(_inspect(source, file, num_bytes, name, full))
        digest = 0
        if full or num_bytes in hash_sizes:
            file.seek(0)
            digest = key_of(file.read())
    return Look(notes, digest, named=isinstance(source, Path))


def key_of(*parts: bytes | str) -> int:
    """Return a number for some content, never 0: equal content, equal number."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little") or 1


def _find_fault_of_place(path: Path, name: str) -> Note | None:
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        return "unreadable-image", f"{name}: {error.strerror}"
    except (OSError, ValueError):  # not there, or no name that can be
        if "\\" in name:
            return "backslash-path", name
        if near := near_file(path) or _find_higher(path, Path(name)):
            return "misnamed-image", f"{name}; there is {os.path.relpath(near, _root(path, Path(name)))}"
        return "missing-image", name
    return None if stat.S_ISREG(mode) else ("missing-image", f"{name} is not a file")


def _root(path: Path, name: Path) -> Path:
    """Return the folder below which `name` was looked for."""
    return path.parents[len(name.parts) - 1]


def _find_higher(path: Path, name: Path) -> Path | None:
    """Return the file if it lies with fewer folders before it, because --images names one that is too deep."""
    tails = [_root(path, name).joinpath(*name.parts[n:]) for n in range(1, len(name.parts))]
    return next((tail for tail in tails if tail.is_file()), None)


def open_file(source: object) -> BinaryIO:
    """Open an image's bytes. Raises OSError, or ValueError for a data: URI that is none."""
    if isinstance(source, Path):
        return source.open("rb")
    if isinstance(source, FileSlice):
        with source.path.open("rb") as file:
            file.seek(source.offset)
            return io.BytesIO(file.read(source.size))
    if isinstance(source, str):
        header, _, body = source.partition(",")
        if not header.endswith(";base64"):
            raise ValueError("no base64")
        return io.BytesIO(base64.b64decode(body, validate=True))
    assert isinstance(source, bytes)
    return io.BytesIO(source)


def _inspect(source: object, file: BinaryIO, num_bytes: int, name: str, full: bool) -> Iterator[Note]:
    if num_bytes == 0:
        yield "empty-image", name
        return
    if num_bytes > MAX_BYTES:
        yield "image-too-many-bytes", f"{name}: {num_bytes / 2**20:.0f} MiB, at most {MAX_BYTES // 2**20}"
        return
    file.seek(0)
    head = file.read(512)
    try:
        with PilImage.open(file, formats=FORMATS) as image:
            notes = [(kind, f"{name}: {what}") for kind, what in _inspect_header(image, Path(name).suffix.lower())]
            yield from notes
            if any(FAULTS[kind].severity == "error" for kind, _ in notes):
                return
            has_alpha = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    except UnidentifiedImageError:
        yield _name_of_stranger(head, name)
        return
    except PilImage.DecompressionBombError:
        yield "image-too-large", f"{name}: more than {MAX_SIDE} pixels on a side"
        return
    except Exception as error:  # broken data makes PIL's decoders stumble in every way
        yield ("truncated-image" if _is_whole(file, num_bytes) is False else "broken-image"), f"{name}: {error}"
        return
    whole = _is_whole(file, num_bytes)
    if full or has_alpha or not whole:
        broken = "truncated-image" if whole is False else "broken-image"
        yield from _inspect_pixels(source, file, name, full, has_alpha, broken)


def _inspect_header(image: PilImage.Image, suffix: str) -> Iterator[Note]:
    width, height = image.size
    long, short = max(image.size), min(image.size)
    if long > MAX_SIDE:
        yield "image-too-large", f"{width} x {height} pixels, at most {MAX_SIDE} on a side"
    elif not 0 < long <= MAX_RATIO * short:
        yield "image-too-narrow", f"{width} x {height} pixels, at most {MAX_RATIO} to 1"
    elif short < _TINY:
        yield "tiny-image", f"{width} x {height} pixels"
    if image.mode == "F":
        yield "float-image", "its pixels are floating-point numbers"
    elif image.mode == "I" or image.mode.startswith("I;16"):
        yield "deep-image", "its grey values have more than 8 bits"
    elif image.mode in ("CMYK", "YCCK"):
        yield "cmyk-image", f"its colours are {image.mode}"
    if suffix in _ALL_SUFFIXES and suffix not in _SUFFIXES[str(image.format)]:
        yield "suffix-disagrees", f"its content is {image.format}"
    if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) in range(2, 9):
        yield "rotated-image", f"EXIF orientation {image.getexif()[_ORIENTATION]}"
    if image.format != "MPO" and _has_frames(image):  # the further pictures of a camera's MPO are no animation
        yield "animated-image", "has more than one frame"


def _has_frames(image: PilImage.Image) -> bool:
    try:
        image.seek(1)
        image.seek(0)
    except Exception:  # EOFError: no second frame; whatever else it is, decoding will tell
        return False
    return True


def _name_of_stranger(head: bytes, name: str) -> Note:
    """Say what a file is that PIL does not recognise."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "unsupported-format", f"{name}: its content is SVG"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")):
        return "web-page-as-image", f"{name} begins with {text[:30].decode('utf-8', 'replace')!r}"
    if head.startswith(_BEGINNINGS):
        return "truncated-image", f"{name} ends within its header"
    for kind, (offset, sign) in _FOREIGN.items():
        if head[offset:].startswith(sign):
            return "unsupported-format", f"{name}: its content is {kind}"
    return "not-an-image", f"{name} begins with {head[:12]!r}"


def _is_whole(file: BinaryIO, num_bytes: int) -> bool | None:
    """Whether a file ends as its format says; None where the format does not say how."""
    file.seek(0)
    head = file.read(32)
    file.seek(max(0, num_bytes - 64))
    tail = file.read()
    if head.startswith(b"\xff\xd8\xff"):  # JPEG
        return b"\xff\xd9" in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" in tail
    if head.startswith(b"GIF8"):
        return tail.rstrip(b"\0").endswith(b";")
    if head.startswith(b"RIFF"):  # WebP
        return int.from_bytes(head[4:8], "little") + 8 <= num_bytes
    return None


def _inspect_pixels(
    source: object, file: BinaryIO, name: str, full: bool, has_alpha: bool, broken: str
) -> Iterator[Note]:
    try:
        picture = load_image(source)
    except ImageError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        yield broken, f"{name}: {reason or error}"
        return
    if has_alpha:
        file.seek(0)
        with PilImage.open(file, formats=FORMATS) as image:
            lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest < 255:  # type: ignore[operator]  # one channel has one pair
            yield "transparent-image", f"{name}: part of it is transparent"
    if full and all(low == high for low, high in picture.getextrema()):  # type: ignore[misc]
        yield "blank-image", f"{name} is all {picture.getpixel((0, 0))}"
