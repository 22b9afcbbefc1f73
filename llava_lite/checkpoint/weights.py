"""The weight files of a checkpoint: safetensors, in shards with an index where they are large.

Folders of other making may have nothing but torch's own `.bin`: it is read as weights alone, no code in it runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llava_lite.checkpoint.parts import CheckpointError, read_json
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import complain_of_weights, read_pickled

PROJECTOR = "projector.safetensors"
_MAX_SHARD = "5GB"
# The first that is there: a folder that has two of them has the same weights twice.
_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    PROJECTOR,
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)


def write_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write weights as `model.safetensors`, or as shards with their index."""
    split = split_torch_state_dict_into_shards(weights, max_shard_size=_MAX_SHARD)
    for filename, names in split.filename_to_tensors.items():
        shard = {name: weights[name].detach().cpu().contiguous() for name in names}
        save_file(shard, folder / filename, metadata={"format": "pt"})
        (folder / filename).chmod(folder.stat().st_mode & 0o666)  # else only their owner may read them
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def holds_weights(folder: Path) -> bool:
    """Whether there are weight files that `read_weights` reads."""
    return any((folder / name).is_file() for name in _FILES)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read all weight files a checkpoint has; the index, if there is one, says which these must be.

    Raises CheckpointError or PartError where there are none, one is missing or damaged, or two hold the same weight.
    """
    weights: dict[str, torch.Tensor] = {}
    for name in _files(folder):
        more = read_file(folder / name)
        if twice := sorted(weights.keys() & more.keys()):
            raise CheckpointError(f"{folder / name}: holds {twice[0]}, as another file beside it does")
        weights |= more
    return weights


def read_file(path: Path) -> dict[str, torch.Tensor]:
    """Read one file of weights, as its suffix says. Raises CheckpointError or PartError."""
    if path.suffix == ".bin":
        return read_pickled(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the file is missing or damaged") from None


def _files(folder: Path) -> list[str]:
    name = next((name for name in _FILES if (folder / name).is_file()), None)
    if name is None:
        raise CheckpointError(f"{folder}: no weights (model.safetensors or {PROJECTOR}) beside its config.json")
    if not name.endswith(".json"):
        return [name]
    shards = read_json(folder / name).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise CheckpointError(f"{folder / name}: damaged; it should say which file holds which weight")
    if any(Path(shard).name != shard for shard in shards.values()):
        raise CheckpointError(f"{folder / name}: names files outside its folder")
    return sorted(set(shards.values()))


def fill(module: torch.nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Give a module all of its weights. Raises CheckpointError or PartError that names what is missing or left over."""
    try:
        missing, unexpected = module.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # a size that differs
        raise CheckpointError(f"{folder}: {str(error).splitlines()[-1].strip()}") from None
    tied = {"language_model.lm_head.weight"} if _ties(module) else set()
    complain_of_weights(folder, set(missing) - tied, unexpected)


def _ties(module: torch.nn.Module) -> bool:
    return isinstance(module, Llava) and bool(module.language_model.config.tie_word_embeddings)
