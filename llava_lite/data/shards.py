"""Tar shards in webdataset's layout: an index of where each member lies, and no archive is ever unpacked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from llava_lite.data.records import SampleError, cannot_be_read, check_packed, hash_files
from llava_lite.images.loading import FileSlice

_BLOCK = 512  # bytes; a tar file is made of such, and ends with blocks of zeros
_IMAGE_SUFFIXES = {"jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm"}
_JSON, _TEXT, _IMAGE = range(3)
_WORDS = {"json": _JSON, "txt": _TEXT}


class ShardRecords:
    """Tar files as webdataset writes them: members that share a name up to its first dot are one record.

    `<key>.json`, by exactly this name, holds the record without its images; where there is none, `<key>.txt` is a
    caption. It is so too where the json has neither `conversations` nor `messages`, as img2dataset writes it: notes on
    the download beside the caption. The order of the members says nothing of this. The images are the members with an
    image's suffix, in the order of the archive.
    """

    def __init__(self, name: str, shards: list[Path]) -> None:
        self.name = name
        self.shards = shards
        members: list[tuple[int, int, int, int]] = []  # record, kind, offset, size
        keys: list[bytes] = []
        shard_of: list[int] = []
        for number, shard in enumerate(shards):
            for key, group in self._groups(shard):
                members += [(len(keys), kind, offset, size) for kind, offset, size in group]
                keys.append(key.encode("utf-8", errors="backslashreplace"))
                shard_of.append(number)
        if not keys:
            raise SampleError(f"{name}: holds no record; a record is <key>.json or <key>.txt with its images beside it")
        self._keys = np.array(keys, dtype=np.bytes_)
        self._shard_of = np.array(shard_of, dtype=np.int32)
        self._members = np.array(members, dtype=np.int64)
        self._starts = np.searchsorted(self._members[:, 0], np.arange(len(keys) + 1))

    @cached_property
    def content_hash(self) -> str:
        return hash_files(self.shards, ends=True)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, number: int) -> dict:
        shard = self.shards[self._shard_of[number]]
        members = self._members[self._starts[number] : self._starts[number + 1]]
        images = [FileSlice(shard, int(offset), int(size)) for _, kind, offset, size in members if kind == _IMAGE]
        words = {kind: (int(offset), int(size)) for _, kind, offset, size in members if kind != _IMAGE}
        key = self._keys[number].decode()
        if not words:
            raise SampleError(f"{shard}: {key} has neither a .json nor a .txt member")
        record = _read_json(shard, f"{key}.json", *words[_JSON]) if _JSON in words else {}
        if _TEXT in words and record.get("conversations") is None and record.get("messages") is None:
            record = _caption(_read_text(shard, f"{key}.txt", *words[_TEXT]))
        named = {name: value for name, value in record.items() if name not in ("image", "images")}
        return {"id": key, **named, **({"image": images} if images else {})}

    def _groups(self, shard: Path) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
        key, group, end = "", list[tuple[int, int, int]](), 0
        try:
            with shard.open("rb") as file:
                check_packed(shard, file.read(2))
            with tarfile.open(shard, "r:", encoding="utf-8", errors="backslashreplace") as archive:
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
                    kind = _kind(suffix.lower())
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


def _kind(suffix: str) -> int | None:
    """Tell what a member is by all that follows its key: `0.png` is an image, `meta.json` is not the record."""
    return _IMAGE if suffix.rpartition(".")[2] in _IMAGE_SUFFIXES else _WORDS.get(suffix)


def _read_json(shard: Path, name: str, offset: int, size: int) -> dict:
    text = _read_text(shard, name, offset, size)
    try:
        record = json.loads(text)
    except ValueError as error:
        raise SampleError(f"{shard}: {name} is broken ({error})") from None
    except RecursionError:
        raise SampleError(f"{shard}: {name} is broken (nested too deeply)") from None
    if not isinstance(record, dict):
        raise SampleError(f"{shard}: {name} is not an object but {type(record).__name__}")
    return record


def _read_text(shard: Path, name: str, offset: int, size: int) -> str:
    try:
        with shard.open("rb") as file:
            file.seek(offset)
            return file.read(size).decode()
    except OSError as error:
        raise cannot_be_read(shard, error) from None
    except UnicodeDecodeError as error:
        raise SampleError(f"{shard}: {name} is broken ({error})") from None


def _caption(text: str) -> dict:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text.strip()}]
    return {"conversations": turns}
