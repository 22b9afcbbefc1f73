"""What answers came from: benchmark, mode, model, prompts, data and decoding, as names and hashes.

Answers of two origins are never mixed, and every score says its origin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from llava_lite.conversation.message import Image
from llava_lite.evaluation.benchmark import Answer, Benchmark, Question
from llava_lite.evaluation.modes import Mode, image_key
from llava_lite.generation.chat_model import ChatModel, Sampling
from llava_lite.images.loading import FileSlice

WEIGHTS = (".safetensors", ".bin", ".gguf")
SETTINGS = (
    "config.json", "generation_config.json", "adapter_config.json", "processor_config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
SAMPLE_SIZE = 4096


@dataclass(frozen=True)
class Origin:
    """model: its name; of an endpoint its model and address
    model_sha256: of a checkpoint (see `hash_model`), None where the model is an endpoint
    prompts_sha256, data_sha256: of the questions as they are in normal mode, whatever the mode
    decoding: how answers are generated; of what chooses among options by likelihood, "choices" says so
    """

    benchmark: str
    mode: Mode
    model: str
    model_sha256: str | None
    prompts_sha256: str
    data_sha256: str
    decoding: dict[str, Any]

    @classmethod
    def of(
        cls, benchmark: Benchmark, questions: Sequence[Question], model: ChatModel, *, by_likelihood: bool = False
    ) -> Origin:
        """Say where answers in normal mode come from. by_likelihood: whether options are chosen among by it."""
        decoding = asdict(Sampling(max_new_tokens=benchmark.max_new_tokens))
        if by_likelihood:
            decoding["choices"] = "likelihood"
        return cls(
            benchmark=benchmark.name,
            mode="normal",
            model=model.name,
            model_sha256=hash_model(model.name),
            prompts_sha256=_hash_prompts(questions),
            data_sha256=_hash_data(questions),
            decoding=json.loads(json.dumps(decoding)),  # as on disk
        )

    @classmethod
    def of_answers(
        cls, benchmark: Benchmark, questions: Sequence[Question], name: str, answers: Sequence[Answer]
    ) -> Origin:
        """Say where answers made elsewhere come from: a file of this name, of which only the answers are known."""
        return cls(
            benchmark=benchmark.name,
            mode="normal",
            model=name,
            model_sha256=None,
            prompts_sha256=_hash_prompts(questions),
            data_sha256=_hash_data(questions),
            decoding={"answers_sha256": _hash([answer.question_id, answer.text] for answer in answers)},
        )

    def differences(self, other: Origin) -> list[str]:
        """Name what differs; two names of one folder are one model."""
        mine, theirs = asdict(self), asdict(other)
        if self.model_sha256 is not None and self.model_sha256 == other.model_sha256:
            del mine["model"]
        different = [name.removesuffix("_sha256") for name, value in mine.items() if value != theirs[name]]
        return list(dict.fromkeys(different))


def hash_model(name: str) -> str | None:
    """Hash a checkpoint, a folder or a hub id's in the hub client's cache; None where it is neither, as of an endpoint.

    Settings count whole, of weights their sizes and evenly spread samples: training shifts nearly every weight, so
    samples tell two checkpoints apart without reading 14 GB.
    """
    folder = _folder(name)
    if folder is None:
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in WEIGHTS or path.name in SETTINGS:
            digest.update(f"{path.name} {_hash_samples(path, 256 if path.suffix in WEIGHTS else None)}\n".encode())
    return digest.hexdigest()


def _folder(name: str) -> Path | None:
    """Find the folder of a model; one of a hub id is there once it was loaded."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def _hash_samples(path: Path, count: int | None) -> str:
    """Hash a file's size and about `count` evenly spread samples of it, or all of it."""
    return _hash_slice(FileSlice(path, 0, path.stat().st_size), count)


def _hash_slice(piece: FileSlice, count: int | None) -> str:
    step = max(SAMPLE_SIZE, piece.size // count) if count else SAMPLE_SIZE
    digest = hashlib.sha256(str(piece.size).encode())
    with piece.path.open("rb") as file:
        for start in range(0, piece.size, step):
            file.seek(piece.offset + start)
            digest.update(file.read(min(SAMPLE_SIZE, piece.size - start)))
    return digest.hexdigest()


def _hash_prompts(questions: Sequence[Question]) -> str:
    return _hash([q.id, q.conversation.system, _turns(q)] for q in questions)


def _turns(question: Question) -> list[list[str | None]]:
    """What is said, each image as None."""
    turns = question.conversation.messages
    return [[turn.role, *(None if isinstance(part, Image) else part for part in turn.content)] for turn in turns]


def _hash_data(questions: Sequence[Question]) -> str:
    """Hash correct answers and images; of large images samples, for a run has enough to read."""
    images = {image_key(image): image.source for question in questions for image in question.conversation.images}
    contents = {key: _content(key, source) for key, source in images.items()}
    rows = []
    for question in questions:
        shown = [contents[image_key(image)] for image in question.conversation.images]
        rows.append([question.id, question.kind, question.correct, shown, dict(question.row)])
    return _hash(rows)


def _content(key: str, source: object) -> list[str | None]:
    """Name a picture by what is in it, wherever it lies; one that is not there by its file's name."""
    if isinstance(source, FileSlice):
        return [None, _hash_slice(source, 4)]
    return [Path(key).name, _hash_samples(Path(key), 4) if Path(key).is_file() else None]


def _hash(rows: Iterable[list[Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
