"""Files of records, opened without being read: each record is fetched when it is asked for, so memory stays flat.

JSON and JSONL   by an index of byte offsets
tables           parquet, arrow, `save_to_disk` folders and hub ids, in `tables`
tar shards       webdataset's layout, in `shards`

A record is a dict. What a container knows of images, it puts into the record as `bytes` or `FileSlice`; in a JSON file
an image is only ever a path.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from llava_lite.data.chunks import map_chunks

_WINDOW = 2**26
_PART = 2**25
_WORTH_PARTS = 2**28
_FIRST_KEY = re.compile(rb'\{\s*"[^"\\]*"\s*:')  # which the next records mostly begin with as well
_COMMA = re.compile(r"[ \n\r\t]*,[ \n\r\t]*(?=\{)")
_END = 2**20
_TABLES = ("*.parquet", "*.arrow")
_SHARDS = (".tar", ".tar.gz", ".tgz")  # the compressed ones too: it is ShardRecords that refuses them
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class SampleError(ValueError):
    """A data file or record that cannot be used."""


class _Malformed(Exception):
    """A place in a file and what is wrong there."""


class Records(Protocol):
    """A container of records."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def content_hash(self) -> str:
        """SHA-256 over what it holds."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> dict: ...


def open_records(path: str, *, split: str = "train", subset: str | None = None) -> Records:
    """Open a file, a folder or a hub id; which kind, its content and suffix say.

    split: which part of a table with several is meant. subset: which of the data sets that a folder or a hub id holds,
    by the name its card gives under `configs`. Raises SampleError that says what is wrong and where.
    """
    from llava_lite.data.shards import ShardRecords  # both import SampleError from here
    from llava_lite.data.tables import TableRecords

    place = Path(path)
    saved = any((place / mark).is_file() for mark in ("state.json", "dataset_dict.json"))
    shards = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
    shards = [shard for shard in shards if shard.name.lower().endswith(_SHARDS)]
    if subset is not None and (place.is_file() or saved or shards):
        raise SampleError(f"{path}: holds one data set and no subsets; leave `subset` out")
    if saved:
        return TableRecords.from_disk(place, split)
    if shards:
        return ShardRecords(place.name, shards)
    if place.is_dir():
        if any(next(place.rglob(pattern), None) for pattern in _TABLES):
            return TableRecords.from_folder(place, split, subset)
        raise SampleError(f"{place}: holds no .parquet, .arrow or .tar file; name the data file itself")
    if place.is_file():
        kind = place.suffix.lower()
        return TableRecords.from_file(place, split) if kind in (".parquet", ".arrow") else JsonRecords(place)
    if place.suffix or place.is_absolute() or path.count("/") != 1:
        beside = ", ".join(sorted(p.name for p in place.parent.glob("*.json*"))[:5]) if place.parent.is_dir() else ""
        raise SampleError(f"{path}: no such data file{f'; beside it: {beside}' if beside else ''}")
    return TableRecords.from_hub(path, split, subset)


class JsonRecords:
    """A JSON list of objects, or by its suffix a .jsonl file with one on each line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._spans = self._index(file)
        except OSError as error:
            raise cannot_be_read(path, error) from None
        if not len(self._spans):
            raise SampleError(f"{path}: holds no record")

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def content_hash(self) -> str:
        return hash_files([self.path])

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, number: int) -> dict:
        start, end = self._spans[number].tolist()
        try:
            data = os.pread(self._file.fileno(), end - start, start)
            record = json.loads(data.decode())  # sparing it the search for another encoding
        except OSError as error:
            raise cannot_be_read(self.path, error) from None
        except UnicodeDecodeError as error:
            raise SampleError(
                f"{self.path}: record {number} is not UTF-8 ({error.reason}); save the file anew"
            ) from None
        except json.JSONDecodeError as error:
            raise self._broken(start + error.pos, error.msg) from None
        except RecursionError:
            raise self._broken(start, "nested too deeply") from None
        except ValueError:
            raise self._broken(start, _long_integer()) from None
        if not isinstance(record, dict):
            raise SampleError(f"{self.path}: record {number} is not an object but {type(record).__name__}")
        return record

    def __getstate__(self) -> dict:
        return {"path": self.path, "_spans": self._spans}

    @cached_property
    def _file(self) -> BinaryIO:
        """The file, held open: one that is replaced under its name during a run is still read as it was indexed."""
        return self.path.open("rb", buffering=0)

    def _index(self, file: Any) -> np.ndarray:
        """Return where each record starts and ends: int64 [n, 2]."""
        if self.path.stat().st_size == 0:
            raise SampleError(f"{self.path}: the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:2] in _UTF16:
                raise SampleError(f"{self.path}: saved as UTF-16; save it as UTF-8")
            check_packed(self.path, data[:2])
            first = 3 if data[:3] == b"\xef\xbb\xbf" else 0
            if self.path.suffix.lower() == ".jsonl":
                return _as_array(self._lines(data, first))
            first = self._first_item(data, first)
            spans = self._in_parts(data, first) if len(data) >= _WORTH_PARTS else None
            try:
                return _as_array(self._items(data, first)) if spans is None else spans
            except _Malformed as error:
                raise self._broken(*error.args) from None

    def _in_parts(self, data: mmap.mmap, first: int) -> np.ndarray | None:
        """Walk a JSON list in parts at once, from places that look like the start of a record; None if one was not.

        A part's walk is right if it began at a record's start. The first one did; so where each ends just where the
        next began, all are.
        """
        key = _FIRST_KEY.match(data, first)
        if key is None:
            return None
        record = re.compile(rb"\}\s*,\s*(?=" + re.escape(key[0]) + rb")")
        cuts = [first]
        while start := record.search(data, cuts[-1] + _PART):
            cuts.append(start.end())
        parts = [np.array(part) for part in zip(cuts, [*cuts[1:], len(data)], strict=True)]
        spans = []
        for walk in map_chunks(self._walk_part, parts, f"reading {self.name}"):
            if walk is None:
                return None
            spans.append(walk)
        return np.concatenate(spans)

    def _walk_part(self, part: np.ndarray) -> np.ndarray | None:
        """Walk from one place to another in a process of its own; None if no record starts there, or one is broken."""
        start, stop = part.tolist()
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _as_array(self._items(data, start, stop if stop < len(data) else None))
            except _Malformed:
                return None

    def _lines(self, data: mmap.mmap, start: int) -> Iterator[tuple[int, int]]:
        while start < len(data):
            end = data.find(b"\n", start)
            end = len(data) if end < 0 else end
            if data[start:end].strip():
                yield start, end
            start = end + 1

    def _first_item(self, data: mmap.mmap, start: int) -> int:
        """Return where the first item of a JSON list starts, or the list's end."""
        at = _skip_space(data, start)
        if data[at : at + 1] != b"[":
            raise SampleError(f"{self.path}: holds no list; write a list of records, or name it .jsonl if one a line")
        return _skip_space(data, at + 1)

    def _items(self, data: mmap.mmap, start: int, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Walk a JSON list, from an item to just another or to the list's and the file's end; else raise _Malformed.

        It goes window by window. In Latin-1 a character is a byte, and JSON's own signs are ASCII.
        """
        scan = json.JSONDecoder(strict=False).raw_decode
        at = start
        base, window, size = at, "", _WINDOW // 2
        while data[at : at + 1] != b"]":
            if at == stop:
                return
            try:
                _, end = scan(window, at - base)
                broken = None
            except json.JSONDecodeError as error:
                end, broken = len(window), error
            except RecursionError:
                raise _Malformed(at, "nested too deeply") from None
            except ValueError:
                raise _Malformed(at, _long_integer()) from None
            if end == len(window) and base + end < len(data):  # it may go on behind the window
                size = 2 * size if base == at else _WINDOW
                base, window = at, data[at : at + size].decode("latin-1")
                continue
            if broken:
                raise _Malformed(base + broken.pos, broken.msg)
            yield at, base + end
            if comma := _COMMA.match(window, end):
                at = base + comma.end()
                continue
            at = _skip_space(data, base + end)
            if data[at : at + 1] == b",":
                at = _skip_space(data, at + 1)
                if data[at : at + 1] == b"]":
                    raise _Malformed(at, "a comma before the end of the list")
            elif data[at : at + 1] != b"]":
                raise _Malformed(at, "a comma or the end of the list is missing")
        if stop is not None:
            raise _Malformed(stop, "no item starts here")
        at = _skip_space(data, at + 1)
        if at < len(data):
            raise _Malformed(at, "more after the end of the list; name it .jsonl if it has one record a line")

    def _broken(self, place: int, message: str) -> SampleError:
        with self.path.open("rb") as file:
            before = file.read(place)
        line, column = before.count(b"\n") + 1, place - before.rfind(b"\n")
        return SampleError(f"{self.path}: broken JSON at line {line}, column {column}: {message}")


def hash_files(paths: list[Path], *, ends: bool = False) -> str:
    """SHA-256 over the content of files, in order.

    ends: over their sizes, beginnings and ends alone, for files full of images, which would take hours to read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{size}\n".encode())
                file.seek(0)
                if ends and size > 2 * _END:
                    digest.update(file.read(_END))
                    file.seek(-_END, os.SEEK_END)
                while block := file.read(2**24):
                    digest.update(block)
        except OSError as error:
            raise cannot_be_read(path, error) from None
    return digest.hexdigest()


def cannot_be_read(path: Path, error: OSError) -> SampleError:
    """Say that a data file is gone or closed to us."""
    return SampleError(f"{path}: cannot be read ({error.strerror or error}); is it still there?")


def check_packed(path: Path, start: bytes) -> None:
    """Raise SampleError for a file that starts as gzip's do."""
    if start.startswith(_GZIP):
        kind = "tar" if path.name.lower().endswith(_SHARDS) else "file"
        raise SampleError(f"{path}: a compressed {kind} cannot be read in place; unpack it with gunzip")


def _long_integer() -> str:
    return f"an integer of more than {sys.get_int_max_str_digits()} digits; write it as a string"


def _as_array(spans: Iterator[tuple[int, int]]) -> np.ndarray:
    return np.fromiter((place for span in spans for place in span), dtype=np.int64).reshape(-1, 2)


def _skip_space(data: mmap.mmap, at: int) -> int:
    while data[at : at + 1] in (b" ", b"\n", b"\r", b"\t"):
        at += 1
    return at
