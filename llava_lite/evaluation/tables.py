"""Benchmarks as Hugging Face datasets hold them: folders of parquet files, downloaded or cloned, with pictures inside.

The files are read through `datasets`, which turns them once into files that are mapped into memory; a picture is then a
stretch of such a file, and equal pictures are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llava_lite.evaluation.files import EvaluationError, Fields, check_row
from llava_lite.images.loading import FileSlice

if TYPE_CHECKING:
    import pyarrow


def find_parquet(data: Path, folders: Sequence[str], split: str, config: str = "") -> list[Path]:
    """Find the parquet files of a split, SPLIT-*.parquet or SPLIT.parquet; empty where there are none.

    They lie in CONFIG/, or without one in data/ or beside it, of DATA/FOLDER or of DATA itself.
    folders: what the dataset is called at the hub, and what people call it.
    """
    inside = [config] if config else ["data", ""]
    for place in [data / folder / part for folder in folders for part in inside] + [data / part for part in inside]:
        found = sorted([*place.glob(f"{split}-*.parquet"), *place.glob(f"{split}.parquet")])
        if found:
            return found
    return []


def read_parquet(paths: Sequence[Path], fields: Fields, images: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read the rows of parquet files, which have at least `fields`, of these types.

    Other columns are left alone: the pictures of a large split would be copied for nothing.

    images: columns of pictures ({"bytes", "path"}, bare bytes, or a list of them): each becomes a FileSlice, None where
    there is none. Raises EvaluationError for unreadable files and missing columns.
    """
    import datasets
    import pyarrow.parquet

    columns = [*fields, *images]
    try:
        there = pyarrow.parquet.read_schema(paths[0]).names
        missing = [name for name in columns if name not in there]
        table = None if missing else datasets.Dataset.from_parquet([str(path) for path in paths], columns=columns)
    except (OSError, ValueError, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise EvaluationError(f"{paths[0]}: cannot be read ({error}); download it anew") from None
    if table is None:
        named = f"no column {', '.join(missing)} among {', '.join(there)}"
        raise EvaluationError(f"{paths[0]}: {named}; is this the right dataset?")
    rows = table.select_columns(list(fields)).to_list()
    for number, row in enumerate(rows):
        check_row(row, fields, f"{paths[0].parent}, row {number}")
    for name in images:
        try:
            pictures = _pictures([Path(file["filename"]) for file in table.cache_files], name)
        except (TypeError, KeyError) as error:
            raise EvaluationError(
                f"{paths[0]}: column {name} has no pictures ({error}); is this the right dataset?"
            ) from None
        for row, picture in zip(rows, pictures, strict=True):
            row[name] = picture
    return rows


def _pictures(files: Sequence[Path], column: str) -> list[Any]:
    """The pictures of a column, as stretches of the Arrow files that hold it."""
    import pyarrow

    known: dict[bytes, FileSlice] = {}
    pictures: list[Any] = []
    for file in files:
        with pyarrow.memory_map(str(file)) as mapped:
            base = mapped.read_buffer(1).address
            mapped.seek(0)
            for batch in pyarrow.ipc.open_stream(mapped):
                pictures += _slices(batch.column(column), file, base, known)
    return pictures


def _slices(array: pyarrow.Array, file: Path, base: int, known: dict[bytes, FileSlice]) -> list[Any]:
    """Of each row its picture, or the list of its pictures."""
    import pyarrow

    if pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type):
        flat = _slices(array.flatten(), file, base, known)
        counts = [len(row) if row.is_valid else 0 for row in array]
        return [flat[end - count : end] for end, count in zip(accumulate(counts), counts, strict=True)]
    if pyarrow.types.is_null(array.type):
        return [None] * len(array)
    cells = array.field("bytes") if pyarrow.types.is_struct(array.type) else array
    if not (pyarrow.types.is_binary(cells.type) or pyarrow.types.is_large_binary(cells.type)):
        raise TypeError(f"{array.type} is no type of pictures")
    _, bounds, data = cells.buffers()
    starts = np.frombuffer(bounds, np.int64 if pyarrow.types.is_large_binary(cells.type) else np.int32)
    found: list[FileSlice | None] = []
    for number in range(len(cells)):
        if not (array[number].is_valid and cells[number].is_valid):
            found.append(None)
            continue
        start, end = starts[cells.offset + number : cells.offset + number + 2].tolist()
        own = FileSlice(file, data.address - base + start, end - start)
        found.append(known.setdefault(hashlib.sha256(data[start:end]).digest(), own))
    return found
