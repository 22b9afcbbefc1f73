"""What an evaluation shows and asks, to be looked for in the data that is learnt from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llava_lite.data.doctor.faults import Finding
from llava_lite.data.doctor.picture import key_of, open_file
from llava_lite.data.doctor.record import Turn, inspect_record, questions
from llava_lite.data.mixture import DataConfig, Source, list_sources
from llava_lite.data.records import SampleError
from llava_lite.data.sample import record_id


@dataclass
class HeldOut:
    """The images and questions of evaluations, as keys of their content.

    images: which questions are asked of an image; sizes: of the images' files in bytes; talks: what is asked without
    """

    images: dict[int, set[int]] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    talks: frozenset[int] = frozenset()
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Sequence[Path], image_dir: Path | None) -> HeldOut:
        """Read all images of these data, whose records may also be a benchmark's ({"image", "text" or "question"}).

        An image is looked for below image_dir, then beside its file. One that is not found is told as a finding.
        Raises SampleError where a file cannot be read.
        """
        held_out = cls()
        talks: set[int] = set()
        for path in paths:
            for source in map(Source, list_sources(DataConfig(path=path))):
                for number in range(len(source.records)):
                    talks.update(held_out._add(source, number, image_dir))
        held_out.talks = frozenset(talks)
        return held_out

    def _add(self, source: Source, number: int, image_dir: Path | None) -> Iterator[int]:
        """Take a record in; yield the key of what it asks if it shows no image."""
        try:
            record = source.record(number)
        except SampleError as error:
            raise SampleError(f"--eval: {error}") from None
        asked = list(_questions(record, source.image_dir))
        folders = [folder for folder in (image_dir, source.image_dir) if folder is not None]
        found = [inspect_record(record, folder).images for folder in folders]
        if not found[0]:
            yield key_of(*asked)
        for places in zip(*found, strict=True):
            data = next(filter(None, map(_read, places)), b"")
            if data:
                self.sizes.add(len(data))
                self.images.setdefault(key_of(data), set()).update(map(key_of, asked))
            else:
                name = record_id(record, number)
                self.findings.append(Finding("eval-image-missing", source.name, number, name, str(places[0])))


def _questions(record: dict, image_dir: Path) -> Iterator[str]:
    """Yield what a record asks, in the turns of training data or in the one field of a benchmark's."""
    turns = inspect_record(record, image_dir).turns
    for name in ("text", "question"):
        if not turns and isinstance(record.get(name), str):
            turns = [Turn("user", record[name], 1, 0)]
    return questions(turns)


def _read(image: object) -> bytes:
    try:
        with open_file(image) as file:
            return file.read()
    except (OSError, ValueError):
        return b""
