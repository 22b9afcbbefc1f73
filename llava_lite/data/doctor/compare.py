"""What only shows across records: each record is one row of numbers, and rows that share a key are repetitions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llava_lite.data.doctor.faults import Finding
from llava_lite.data.mixture import Source
from llava_lite.data.sample import record_id

ROW = np.dtype(
    [
        ("source", "i2"),
        ("number", "i8"),
        ("length", "i4"),  # tokens, or characters without a processor; 0: could not be measured
        ("learnt", "i4"),
        ("answers", "i4"),  # characters
        ("turns", "i2"),  # questions
        ("images", "i2"),
        ("id", "u8"),  # from here on keys of content, see `key_of`; 0: there is none
        ("talk", "u8"),
        ("shown", "u8"),
    ]
)
_COPIED = 200  # characters of answers from which on two images hardly have the same by chance


def compare_records(rows: np.ndarray, sources: dict[int, Source]) -> Iterator[Finding]:
    """Tell which records repeat others; rows: as `ROW`."""
    pairs = np.stack([rows["talk"], rows["shown"]], axis=1)
    told = np.zeros(len(rows), dtype=bool)
    for row, first in _repeated(np.unique(pairs, axis=0, return_inverse=True)[1].ravel(), rows["talk"] != 0):
        told[row] = True
        yield find_in("duplicate-record", rows[row], sources, f"the same as {_place(rows[first], sources)}")
    ids = np.stack([rows["source"].astype(np.uint64), rows["id"]], axis=1)
    for row, first in _repeated(np.unique(ids, axis=0, return_inverse=True)[1].ravel(), (rows["id"] != 0) & ~told):
        if rows["shown"][row] == 0 or rows["shown"][row] != rows["shown"][first]:  # LLaVA's ids are those of images
            yield find_in("duplicate-id", rows[row], sources, f"the id of {_place(rows[first], sources)}")
    long = (rows["images"] > 0) & (rows["answers"] >= _COPIED) & ~told
    for row, first in _repeated(rows["talk"], long):
        detail = f"the same words as {_place(rows[first], sources)}, under another image"
        yield find_in("copied-answer", rows[row], sources, detail)


def _repeated(keys: np.ndarray, among: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (row, first row with its key) of the rows that are not the first."""
    rows = np.flatnonzero(among)
    _, first, inverse = np.unique(keys[rows], return_index=True, return_inverse=True)
    yield from (
        (int(row), int(rows[first[group]]))
        for place, (row, group) in enumerate(zip(rows, inverse, strict=True))
        if first[group] != place
    )


def _place(row: np.void, sources: dict[int, Source]) -> str:
    return f"record {row['number']} of {sources[row['source']].name}"


def find_in(kind: str, entry: np.void, sources: dict[int, Source], detail: str) -> Finding:
    """Name a fault of the record that a row speaks of."""
    source, number = sources[entry["source"]], int(entry["number"])
    return Finding(kind, source.name, number, record_id(source.record(number), number), detail)
