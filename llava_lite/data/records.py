"""Files of records, opened without being read: each record is fetched when it is asked for, so memory stays flat.

JSON and JSONL   by an index of byte offsets
tables           parquet, arrow, `save_to_disk` folders and hub ids, through `datasets`
tar shards       webdataset's layout, by an index of where each member lies

A record is a dict. What a container knows of images, it puts into the record as `bytes` or `FileSlice`; in a JSON file
an image is only ever a path.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import tarfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from llava_lite.images.loading import FileSlice

_WINDOW = 2**26
_TABLES = ("*.parquet", "*.arrow")
_IMAGE_SUFFIXES = {"jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm"}


class SampleError(ValueError):
    """A data file or record that cannot be used."""


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


def open_records(path: str, *, split: str = "train") -> Records:
    """Open a file, a folder or a hub id; which kind, its content and suffix say.

    split: which part of a table with several is meant. Raises SampleError that says what is wrong and where.
    """
    place = Path(path)
    if place.is_dir():
        if any((place / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            return TableRecords.from_disk(place, split)
        if shards := sorted(place.glob("*.tar")):
            return ShardRecords(place.name, shards)
        if any(next(place.rglob(pattern), None) for pattern in _TABLES):
            return TableRecords.from_files(place, split)
        raise SampleError(f"{place}: holds no .parquet, .arrow or .tar file; name the data file itself")
    if place.suffix in (".parquet", ".arrow") and place.is_file():
        return TableRecords.from_files(place, split)
    if place.suffix == ".tar" and place.is_file():
        return ShardRecords(place.name, [place])
    if place.is_file():
        return JsonRecords(place)
    if place.suffix or place.is_absolute() or path.count("/") != 1:
        beside = ", ".join(sorted(p.name for p in place.parent.glob("*.json*"))[:5]) if place.parent.is_dir() else ""
        raise SampleError(f"{path}: no such data file{f'; beside it: {beside}' if beside else ''}")
    return TableRecords.from_hub(path, split)


class JsonRecords:
    """A JSON list of objects, or by its suffix a .jsonl file with one on each line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._spans = self._index(file)
        except OSError as error:
            raise SampleError(f"{path}: cannot be read ({error.strerror})") from None
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
        start, end = map(int, self._spans[number])
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            data = file.read(end - start)
        try:
            record = json.loads(data)
        except UnicodeDecodeError as error:
            raise SampleError(
                f"{self.path}: record {number} is not UTF-8 ({error.reason}); save the file anew"
            ) from None
        except json.JSONDecodeError as error:
            raise self._broken(start + error.pos, error.msg) from None
        except RecursionError:
            raise self._broken(start, "nested too deeply") from None
        if not isinstance(record, dict):
            raise SampleError(f"{self.path}: record {number} is not an object but {type(record).__name__}")
        return record

    def _index(self, file: Any) -> np.ndarray:
        """Return where each record starts and ends: int64 [n, 2]."""
        if self.path.stat().st_size == 0:
            raise SampleError(f"{self.path}: the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            first = 3 if data[:3] == b"\xef\xbb\xbf" else 0
            spans = self._lines(data, first) if self.path.suffix == ".jsonl" else self._items(data, first)
            flat = np.fromiter((place for span in spans for place in span), dtype=np.int64)
        return flat.reshape(-1, 2)

    def _lines(self, data: mmap.mmap, start: int) -> Iterator[tuple[int, int]]:
        while start < len(data):
            end = data.find(b"\n", start)
            end = len(data) if end < 0 else end
            if data[start:end].strip():
                yield start, end
            start = end + 1

    def _items(self, data: mmap.mmap, start: int) -> Iterator[tuple[int, int]]:
        """Walk a JSON list, window by window. In Latin-1 a character is a byte, and JSON's own signs are ASCII."""
        scan = json.JSONDecoder(strict=False).raw_decode
        at = _skip_space(data, start)
        if data[at : at + 1] != b"[":
            raise SampleError(f"{self.path}: holds no list; write a list of records, or name it .jsonl if one a line")
        at = _skip_space(data, at + 1)
        base, window, size = at, "", _WINDOW // 2
        while data[at : at + 1] != b"]":
            try:
                _, end = scan(window, at - base)
                broken = None
            except json.JSONDecodeError as error:
                end, broken = len(window), error
            except RecursionError:
                raise self._broken(at, "nested too deeply") from None
            if end == len(window) and base + end < len(data):  # it may go on behind the window
                size = 2 * size if base == at else _WINDOW
                base, window = at, data[at : at + size].decode("latin-1")
                continue
            if broken:
                raise self._broken(base + broken.pos, broken.msg)
            yield at, base + end
            at = _skip_space(data, base + end)
            if data[at : at + 1] == b",":
                at = _skip_space(data, at + 1)
                if data[at : at + 1] == b"]":
                    raise self._broken(at, "a comma before the end of the list")
            elif data[at : at + 1] != b"]":
                raise self._broken(at, "a comma or the end of the list is missing")
        at = _skip_space(data, at + 1)
        if at < len(data):
            raise self._broken(at, "more after the end of the list; name it .jsonl if it has one record a line")

    def _broken(self, place: int, message: str) -> SampleError:
        with self.path.open("rb") as file:
            before = file.read(place)
        line, column = before.count(b"\n") + 1, place - before.rfind(b"\n")
        return SampleError(f"{self.path}: broken JSON at line {line}, column {column}: {message}")


class TableRecords:
    """Rows of a Hugging Face data set; columns of images give the file's bytes, undecoded."""

    def __init__(self, name: str, table: Any, content_hash: str) -> None:
        import datasets

        for column, feature in table.features.items():
            if isinstance(feature, datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))
            elif isinstance(getattr(feature, "feature", None), datasets.Image):
                table = table.cast_column(column, datasets.List(datasets.Image(decode=False)))
        if not len(table):
            raise SampleError(f"{name}: holds no record")
        self.name = name
        self.content_hash = content_hash
        self._table = table

    @classmethod
    def from_disk(cls, folder: Path, split: str) -> TableRecords:
        import datasets

        return cls(folder.name, _choose(datasets.load_from_disk(str(folder)), split, folder), _hash_folder(folder))

    @classmethod
    def from_files(cls, place: Path, split: str) -> TableRecords:
        import datasets
        import pyarrow

        broken = (
            datasets.exceptions.DatasetGenerationError,
            datasets.exceptions.DataFilesNotFoundError,
            pyarrow.ArrowInvalid,
        )
        try:
            if place.is_file():
                kind = place.suffix.removeprefix(".")
                table = datasets.load_dataset(kind, data_files={split: str(place)}, split=split)
                return cls(place.name, table, hash_files([place]))
            return cls(place.name, _choose(datasets.load_dataset(str(place)), split, place), _hash_folder(place))
        except broken as error:
            cause = error.__cause__ or error
            raise SampleError(f"{place}: cannot be read as a table ({_first_line(cause)})") from None

    @classmethod
    def from_hub(cls, name: str, split: str) -> TableRecords:
        import datasets

        try:
            table = _choose(datasets.load_dataset(name), split, name)
        except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
            message = f"neither a data file nor a data set of the hub that can be reached ({_first_line(error)})"
            raise SampleError(f"{name}: {message}") from None
        return cls(name, table, str(table._fingerprint))

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> dict:
        row = self._table[int(number)]
        return {name: _stored_image(value) for name, value in row.items()}


class ShardRecords:
    """Tar files as webdataset writes them: members that share a name up to its first dot are one record.

    `<key>.json` holds the record, without its images; a `<key>.txt` in its place is a caption. The images are the
    members with an image's suffix, in the order of the archive.
    """

    def __init__(self, name: str, shards: list[Path]) -> None:
        self.name = name
        self.shards = shards
        members: list[tuple[int, int, int, int]] = []  # record, kind, offset, size
        keys: list[str] = []
        shard_of: list[int] = []
        for number, shard in enumerate(shards):
            for key, group in self._groups(shard):
                members += [(len(keys), kind, offset, size) for kind, offset, size in group]
                keys.append(key)
                shard_of.append(number)
        if not keys:
            raise SampleError(f"{name}: holds no record; a record is <key>.json or <key>.txt with its images beside it")
        self._keys = np.array(keys, dtype=np.bytes_)
        self._shard_of = np.array(shard_of, dtype=np.int32)
        self._members = np.array(members, dtype=np.int64)
        self._starts = np.searchsorted(self._members[:, 0], np.arange(len(keys) + 1))

    @cached_property
    def content_hash(self) -> str:
        return hash_files(self.shards)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, number: int) -> dict:
        shard = self.shards[self._shard_of[number]]
        members = self._members[self._starts[number] : self._starts[number + 1]]
        images = [FileSlice(shard, int(offset), int(size)) for _, kind, offset, size in members if kind == _IMAGE]
        key = self._keys[number].decode()
        for _, kind, offset, size in members:
            if kind == _IMAGE:
                continue
            with shard.open("rb") as file:
                file.seek(int(offset))
                text = file.read(int(size))
            try:
                words = text.decode()
                record = json.loads(words) if kind == _JSON else _caption(words)
            except ValueError as error:
                raise SampleError(f"{shard}: {key}.{'json' if kind == _JSON else 'txt'} is broken ({error})") from None
            if not isinstance(record, dict):
                raise SampleError(f"{shard}: {key}.json is not an object but {type(record).__name__}")
            named = {name: value for name, value in record.items() if name not in ("image", "images")}
            return {"id": key, **named, **({"image": images} if images else {})}
        raise SampleError(f"{shard}: {key} has neither a .json nor a .txt member")

    def _groups(self, shard: Path) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
        key, group, end = "", list[tuple[int, int, int]](), 0
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if not member.isfile():
                        continue
                    own, _, suffix = PurePosixPath(member.name).name.partition(".")
                    own = str(PurePosixPath(member.name).parent / own)
                    if own != key and group:
                        yield key, group
                        group = []
                    key = own
                    kind = _KINDS.get(suffix.rpartition(".")[2].lower())
                    if kind is not None:
                        group.append((kind, member.offset_data, member.size))
            with shard.open("rb") as file:  # tarfile takes a header that is cut off for the end
                file.seek(end)
                if file.read(_BLOCK) != bytes(_BLOCK):
                    raise tarfile.TarError("it is cut off")
        except (OSError, tarfile.TarError) as error:
            raise SampleError(f"{shard}: not a whole tar file ({error})") from None
        if group:
            yield key, group


_BLOCK = 512  # bytes; a tar file is made of such, and ends with blocks of zeros
_JSON, _TEXT, _IMAGE = range(3)
_KINDS = {"json": _JSON, "txt": _TEXT, **dict.fromkeys(_IMAGE_SUFFIXES, _IMAGE)}


def hash_files(paths: list[Path]) -> str:
    """SHA-256 over the content of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**24):
                digest.update(block)
            digest.update(str(file.tell()).encode())
    return digest.hexdigest()


def _hash_folder(folder: Path) -> str:
    return hash_files(sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".arrow", ".json")))


def _choose(table: Any, split: str, where: object) -> Any:
    """Take one split of a table that has several."""
    if not isinstance(table, dict):
        return table
    if split not in table:
        raise SampleError(f"{where}: has no split {split!r}; choose one of {', '.join(table)} with `split`")
    return table[split]


def _stored_image(value: Any) -> Any:
    """Take an undecoded image column's value as bytes, or else as the path it was read from."""
    if isinstance(value, list):
        return [_stored_image(item) for item in value]
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        return value["bytes"] if value["bytes"] is not None else value["path"]
    return value


def _caption(text: str) -> dict:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text.strip()}]
    return {"conversations": turns}


def _skip_space(data: mmap.mmap, at: int) -> int:
    while data[at : at + 1] in (b" ", b"\n", b"\r", b"\t"):
        at += 1
    return at


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
