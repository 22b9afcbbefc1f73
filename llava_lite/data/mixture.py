"""Which records of which sources a run learns from, and the proof of it: the lineage file.

A mixture is written in the recipe's YAML (`data.sources`) or in a YAML file of its own (`data.path: mix.yaml`), ours
(`sources:`) or LLaVA-NeXT's (`datasets:` of `json_path` and `sampling_strategy`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from llava_lite.config import Strict, read_config
from llava_lite.data.records import SampleError, hash_files, open_records
from llava_lite.data.sample import Sample, read_sample, record_id, sample_name

_TAKE = re.compile(r"(?:(first|end|random):)?(\d+)(%?)")


class SourceConfig(Strict):
    """One set of records."""

    path: Path
    """A .json or .jsonl file, parquet, arrow or tar files or their folder, a `save_to_disk` folder, or a hub id."""
    image_dir: Path | None = None
    """The folder below which its images lie; by default the data file's own."""
    split: str = "train"
    """Which part of a table that has several."""
    subset: str | None = None
    """Which configuration of a Hugging Face data set that has several."""
    take: Annotated[str, BeforeValidator(str)] = "all"
    """all, first:N, end:N or random:N, where N may be a share as 10%; N alone is drawn at random."""
    repeat: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often each record taken is seen in an epoch; a part of one, as in 1.5, is drawn at random."""
    reader: str | None = None
    """`my_reader.py:function`, which turns a record of another format into one of LLaVA's or OpenAI's."""


class DataConfig(Strict):
    """What to learn from, and what to do with what cannot be learnt from."""

    path: Path | None = None
    """One source, as `data.sources[].path`, or a YAML file that lists several."""
    image_dir: Path | None = None
    """The folder below which the images lie of every source that names none; by default the data file's own."""
    sources: tuple[SourceConfig, ...] = ()
    """Several sources, in place of `path`."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of what is drawn at random from sources."""
    max_length: int | None = Field(default=None, gt=0)
    """Most tokens of a sample; by default what fits a row (batch.tokens) and the language model."""
    too_long: Literal["error", "truncate", "skip"] = "error"
    """What becomes of a longer sample: it ends the run before it starts, is cut at its end, or is left out; both
    are counted and listed. A cut never falls into an image, and a sample left with nothing to learn is left out."""
    on_bad_sample: Literal["error", "skip"] = "error"
    """What becomes of a record that cannot be used: it ends the run, or is left out, counted and listed in
    output_dir/left_out.jsonl (one found while training: replaced by the next that fits, listed in failed.jsonl)."""
    max_bad: float = Field(default=0.01, ge=0, le=1)
    """The largest share of samples that may be skipped; more end the run."""
    cache_dir: Path = Path("~/.cache/llava_lite")
    """Where the lengths of large sources are remembered, by their content."""


class NextEntry(Strict):
    """One entry of LLaVA-NeXT's `datasets:`."""

    json_path: Path
    """As `sources[].path`."""
    sampling_strategy: str = "all"
    """As `sources[].take`."""


class MixtureFile(Strict):
    """A YAML file of sources, in our spelling or LLaVA-NeXT's."""

    sources: tuple[SourceConfig, ...] = ()
    """Sources as in a recipe's `data.sources`."""
    datasets: tuple[NextEntry, ...] = ()
    """Sources as LLaVA-NeXT writes them."""


class Source:
    """One opened set of records."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.records = open_records(str(config.path), split=config.split, subset=config.subset)
        self.name = self.records.name
        self.image_dir = config.image_dir or (config.path if config.path.is_dir() else config.path.parent)
        if config.reader:
            _load_reader(config.reader)

    def record(self, number: int) -> dict:
        """Fetch one record, through the reader if there is one. Raises SampleError."""
        record = self.records[number]
        if self.config.reader is None:
            return record
        try:
            record = _load_reader(self.config.reader)(record)
        except Exception as error:  # the reader is the user's own code: whatever it raises, say for which record
            name = sample_name(record_id(record, number), self.name)
            raise SampleError(f"{name}: {self.config.reader} failed: {type(error).__name__}: {error}") from error
        if not isinstance(record, dict):
            name = sample_name(str(number), self.name)
            raise SampleError(
                f"{name}: {self.config.reader} returned {type(record).__name__}; return a record (a dict)"
            )
        return record

    def sample(self, number: int) -> Sample:
        """Read one record. Raises SampleError."""
        return read_sample(self.record(number), source=self.name, number=number, image_dir=self.image_dir)

    def taken(self, seed: int) -> np.ndarray:
        """Return the records that its config takes, in order: int64 [n]. Raises SampleError where it takes none."""
        generator = torch.Generator().manual_seed(seed)
        records = select(len(self.records), self.config.take, self.config.repeat, generator)
        if not len(records):
            told = f"take={self.config.take} and repeat={self.config.repeat:g} take no record"
            raise SampleError(f"{self.config.path}: {told}; raise them")
        return records

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the records, and the reader if there is one."""
        if self.config.reader is None:
            return self.records.content_hash
        reader = hash_files([Path(self.config.reader.rpartition(":")[0])])
        return hashlib.sha256((self.records.content_hash + reader).encode()).hexdigest()


class Mixture:
    """The entries of all sources, one after another: entry i is record `record_of[i]` of source `source_of[i]`."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.sources = [Source(source) for source in list_sources(config)]
        taken = []
        for number, source in enumerate(self.sources):
            taken.append(source.taken(config.seed * 1_000_003 + number))
        self.record_of = np.concatenate(taken)
        self.source_of = np.repeat(np.arange(len(taken), dtype=np.int16), [len(part) for part in taken])

    def __len__(self) -> int:
        return len(self.record_of)

    def sample(self, entry: int) -> Sample:
        """Read one entry. Raises SampleError."""
        return self.sources[self.source_of[entry]].sample(int(self.record_of[entry]))

    def name(self, entry: int) -> str:
        """Return what messages call an entry, without needing that it can be read."""
        return sample_name(self.entry_id(entry), self.sources[self.source_of[entry]].name)

    def entry_id(self, entry: int) -> str:
        """Return the id of an entry's record, or its place where it has none or cannot be read."""
        number = int(self.record_of[entry])
        try:
            return record_id(self.sources[self.source_of[entry]].record(number), number)
        except SampleError:
            return str(number)

    def lineage(self) -> list[dict[str, object]]:
        """Say for each source what was taken of it."""
        return [
            {
                "path": str(source.config.path),
                "hub": not source.config.path.exists(),
                "image_dir": str(source.image_dir),
                "sha256": source.content_hash,
                "records": len(source.records),
                "take": source.config.take,
                "repeat": source.config.repeat,
                "entries": int((self.source_of == number).sum()),
                "entries_sha256": hashlib.sha256(self.record_of[self.source_of == number].tobytes()).hexdigest(),
            }
            for number, source in enumerate(self.sources)
        ]


def select(num_records: int, take: str, repeat: float, generator: torch.Generator) -> np.ndarray:
    """Return the records that `take` and `repeat` ask for, in order: int64 [n]. Raises SampleError.

    A share is rounded up to whole records, and N is a cap: of fewer records all are taken.
    """
    chosen = np.arange(num_records)
    if take != "all":
        match = _TAKE.fullmatch(take)
        if match is None or (match[3] and int(match[2]) > 100):
            raise SampleError(f"take={take!r} is not understood; write all, first:N, end:N, random:N or 10%")
        count = min(num_records, math.ceil(num_records * int(match[2]) / 100) if match[3] else int(match[2]))
        chosen = {"first": chosen[:count], "end": chosen[num_records - count :]}.get(
            match[1], np.sort(torch.randperm(num_records, generator=generator)[:count].numpy())
        )
    whole = int(repeat)
    part = torch.randperm(len(chosen), generator=generator)[: round((repeat - whole) * len(chosen))].numpy()
    return np.concatenate([*[chosen] * whole, chosen[np.sort(part)]])


def with_data(config: DataConfig, path: Path | None, image_dir: Path | None) -> DataConfig:
    """Return the same settings for other data, where a path is given, and another image folder."""
    if path is not None:
        config = config.model_copy(update={"path": path, "sources": ()})
    if image_dir is not None and config.sources:
        raise SampleError(f"image folder {image_dir}: each of data.sources has its own; name the data as well")
    return config if image_dir is None else config.model_copy(update={"image_dir": image_dir})


def list_sources(config: DataConfig) -> list[SourceConfig]:
    """Return the sources that a configuration names, unopened. Raises SampleError or ConfigError."""
    if (config.path is None) == (not config.sources):
        raise SampleError("data: give either path or sources")
    if config.path is None:
        return [_with_images(source, config) for source in config.sources]
    if config.path.suffix in (".yaml", ".yml"):
        return [_find(source, config) for source in _read_mixture(config.path)]
    return [SourceConfig(path=config.path, image_dir=config.image_dir)]


def _read_mixture(path: Path) -> list[SourceConfig]:
    """Read a YAML file of sources, ours or LLaVA-NeXT's."""
    content = read_config(MixtureFile, path)
    theirs = [SourceConfig(path=entry.json_path, take=entry.sampling_strategy) for entry in content.datasets]
    if not content.sources and not theirs:
        raise SampleError(f"{path}: no `sources:` and no `datasets:` in it; list some")
    return [*content.sources, *theirs]


def _with_images(source: SourceConfig, config: DataConfig) -> SourceConfig:
    """Give a source that names no image folder the one of the whole data."""
    return source if source.image_dir else source.model_copy(update={"image_dir": config.image_dir})


def _find(source: SourceConfig, config: DataConfig) -> SourceConfig:
    """Place what a mixture file names: beside that file if it is there, else as written."""
    assert config.path is not None
    beside = config.path.parent
    found: dict[str, object] = {"path": beside / source.path} if (beside / source.path).exists() else {}
    if source.image_dir and (beside / source.image_dir).is_dir():
        found["image_dir"] = beside / source.image_dir
    if source.reader and (beside / source.reader.rpartition(":")[0]).is_file():
        found["reader"] = str(beside / source.reader)
    return _with_images(source.model_copy(update=found), config)


@lru_cache
def _load_reader(where: str) -> Callable[[dict], dict]:
    """Load `file.py:function`. Raises SampleError."""
    file, _, name = where.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file) if file.endswith(".py") else None
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise SampleError(f"reader={where!r}: no such file; write my_reader.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # a dataclass in it looks itself up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise SampleError(f"reader={where!r}: {file} does not run: {type(error).__name__}: {error}") from error
    if not callable(vars(module).get(name)):
        raise SampleError(f"reader={where!r}: {file} has no function {name!r}")
    return vars(module)[name]
