"""Tables of records, through `datasets`: parquet, arrow, `save_to_disk` folders and hub ids.

A row is given as it was written: pictures as the file's bytes or its path, never decoded, and without the empty fields
that arrow, whose rows all have the same, puts into turns and parts.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import yaml

from llava_lite.data.records import SampleError, hash_files

_IMAGES = ("image", "images")
_TURNS = ("conversations", "messages")
# what `datasets` raises for files, folders and hub ids that it cannot read; arrow's errors are ValueErrors or OSErrors
_BROKEN = (OSError, ValueError, KeyError, RuntimeError, yaml.YAMLError, datasets.exceptions.DatasetsError)


class TableRecords:
    """Rows of a Hugging Face data set; columns of images give the file's bytes, undecoded."""

    def __init__(self, name: str, table: datasets.Dataset, content_hash: str) -> None:
        if not len(table):
            raise SampleError(f"{name}: holds no record")
        self.name = name
        self.content_hash = content_hash
        # rows are taken as arrow's and decoded here: to cast a nested column would write the whole table anew
        self._table = table.with_format("arrow")
        self._features = datasets.Features(_undecoded(dict(table.features)))

    @classmethod
    def from_disk(cls, folder: Path, split: str) -> TableRecords:
        """Open what `save_to_disk` wrote."""
        with _reading(folder, "cannot be read as a saved data set", "; save it anew with save_to_disk"):
            table = datasets.load_from_disk(str(folder))
        return cls(folder.name, _choose(table, split, folder), _hash_folder(folder))

    @classmethod
    def from_file(cls, path: Path, split: str) -> TableRecords:
        """Open a .parquet or .arrow file."""
        kind = path.suffix.lower().removeprefix(".")
        with _reading(path, "cannot be read as a table", "; write the file anew"):
            table = datasets.load_dataset(kind, data_files={split: glob.escape(str(path))}, split=split)
        return cls(path.name, table, hash_files([path], ends=True))

    @classmethod
    def from_folder(cls, folder: Path, split: str, subset: str | None) -> TableRecords:
        """Open a folder of tables, laid out as on the hub."""
        place = str(folder.resolve())
        pattern = glob.escape(place) != place
        remedy = "; rename the folder without any of *?[" if pattern else "; check the files and README.md in it"
        with _reading(folder, "cannot be read as a table", remedy), _naming_subsets(str(folder), subset):
            table = datasets.load_dataset(str(folder), subset)
        return cls(folder.name, _choose(table, split, folder), _hash_folder(folder))

    @classmethod
    def from_hub(cls, name: str, split: str, subset: str | None) -> TableRecords:
        """Open `owner/name`, or what the cache holds of it."""
        problem = "neither a data file nor a data set of the hub that can be reached"
        with _reading(name, problem, "; check the name and the network"), _naming_subsets(name, subset):
            table = datasets.load_dataset(name, subset)
        chosen = _choose(table, split, name)
        return cls(name, chosen, str(chosen._fingerprint))

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> dict:
        try:
            row = self._features.decode_example(self._table[int(number)].to_pylist()[0])
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise SampleError(f"{self.name}: record {number} cannot be read ({_first_line(error)})") from None
        for column in _TURNS:
            if column in row:
                row[column] = self._as_turns(row[column], f"{self.name}: record {number}: `{column}`")
        for column in _IMAGES:
            if row.get(column) == []:  # a list column's way of having none; in JSON `[]` says that `<image>` is a word
                del row[column]
        return {name: _as_written(value) for name, value in row.items()}

    def _as_turns(self, value: Any, where: str) -> Any:
        """Turn a column of lists by key, as `Sequence({...})` stores turns and parts, into a list of dicts."""
        if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
            if len({len(column) for column in value.values()}) > 1:
                raise SampleError(f"{where} has lists of different lengths; each turn needs an entry in every one")
            value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
        if isinstance(value, list):
            for turn in value:
                if isinstance(turn, dict) and isinstance(turn.get("content"), dict):
                    turn["content"] = self._as_turns(turn["content"], f"{where}: `content`")
        return value


@contextmanager
def _reading(where: object, problem: str, remedy: str) -> Iterator[None]:
    """Say in one line what `datasets` could not read, or where it could not write."""
    try:
        yield
    except SampleError:
        raise
    except _BROKEN as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        cause = cause or error
        if isinstance(cause, OSError) and _in_cache(cause):
            message = f"the cache of data sets cannot be written ({cause.strerror}); set HF_HOME to a folder that can"
            raise SampleError(f"{cause.filename}: {message}") from None
        raise SampleError(f"{where}: {problem} ({_first_line(cause)}){remedy}") from None


@contextmanager
def _naming_subsets(name: str, subset: str | None) -> Iterator[None]:
    """Where loading fails because a subset is missing or unknown, name those there are."""
    try:
        yield
    except ValueError:
        names = datasets.get_dataset_config_names(name)
        if subset is not None and subset not in names:
            message = f"has no subset {subset!r}; choose one of {', '.join(names)} with `subset`, or leave it out"
            raise SampleError(f"{name}: {message}") from None
        if subset is None and len(names) > 1:
            raise SampleError(
                f"{name}: holds several data sets; choose one of {', '.join(names)} with `subset`"
            ) from None
        raise


def _in_cache(error: OSError) -> bool:
    """Whether an error is of the cache: of a file in it, or of a folder above it that could not be made."""
    if not isinstance(error.filename, str) or isinstance(error, FileNotFoundError):
        return False
    place = Path(error.filename)
    caches = (Path(datasets.config.HF_DATASETS_CACHE), Path(datasets.config.HF_CACHE_HOME))
    return any(place.is_relative_to(cache) or cache.is_relative_to(place) for cache in caches)


def _hash_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".arrow", ".json"))
    return hash_files(files, ends=True)


def _choose(table: Any, split: str, where: object) -> datasets.Dataset:
    """Take one split of a table that has several."""
    if not isinstance(table, dict):
        return table
    if split not in table:
        raise SampleError(f"{where}: has no split {split!r}; choose one of {', '.join(table)} with `split`")
    return table[split]


def _undecoded(feature: Any) -> Any:
    """The same feature, but what `datasets` would decode of media stays the file's bytes or path."""
    if isinstance(feature, dict):
        return {name: _undecoded(inner) for name, inner in feature.items()}
    if isinstance(feature, datasets.List):
        return datasets.List(_undecoded(feature.feature), length=feature.length)
    if isinstance(feature, datasets.LargeList):
        return datasets.LargeList(_undecoded(feature.feature))
    if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
        return type(feature)(decode=False)
    return feature


def _as_written(value: Any) -> Any:
    """Take stored images as bytes, or else as the path they were read from, and drop what arrow filled in below."""
    if isinstance(value, list):
        return [_as_written(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"bytes", "path"}:
        return value["bytes"] if value["bytes"] is not None else value["path"]
    inner = {name: _as_written(item) for name, item in value.items()}
    return {name: item for name, item in inner.items() if item is not None}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
