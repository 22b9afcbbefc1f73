"""Checkpoints by their hub id: the files that are read, fetched once into the hub client's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from llava_lite.checkpoint.original_config import TOWER_DIRS, is_original
from llava_lite.checkpoint.parts import CheckpointError, read_json

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "mm_projector.bin", "non_lora_trainables.bin"]
_PICKLED = ["*.bin"]
_TOWERS = [f"{folder}/*.{kind}" for folder in TOWER_DIRS.values() for kind in ("json", "safetensors")]


def find_folder(name_or_dir: str | Path) -> Path:
    """Return the folder of a checkpoint: the path itself, or for a hub id the copy of it in the hub client's cache.

    A path whose first folder is there is a path. Pickled weights are fetched only where there are no others, of folders
    inside only the tower that `original_format` writes.
    Raises CheckpointError for a name that is neither a folder nor an id that can be had.
    """
    folder, name = Path(name_or_dir), str(name_or_dir)
    if folder.exists() or folder.parent.is_dir() or not _ID.fullmatch(name):
        return folder
    try:
        found = _fetch(name, _FILES)
        if not any(found.glob("*.safetensors")):
            found = _fetch(name, [*_FILES, *_PICKLED])
        if (found / "config.json").is_file() and is_original(read_json(found / "config.json")):
            found = _fetch(name, _TOWERS, ignore=None)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # unreachable, unknown, not for this user
        raise CheckpointError(
            f"{name}: no folder of that name is here, and the hub gave no model of that name "
            f"({str(error).splitlines()[0]}); give a folder, or see that the hub can be reached"
        ) from None
    return found


def _fetch(name: str, patterns: list[str], *, ignore: str | None = "*/*") -> Path:
    return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignore))
