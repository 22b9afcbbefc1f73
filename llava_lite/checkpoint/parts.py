"""A model put together from pretrained parts, and the record of which parts they were."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from llava_lite.conversation.derived import derive_template
from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import ConversationError
from llava_lite.conversation.template import ChatTemplate
from llava_lite.images.layout import is_anyres
from llava_lite.images.transform import ImageTransform
from llava_lite.models.adapter import Quantize
from llava_lite.models.language_model import (
    find_language_family,
    fit_embeddings,
    load_language_model,
    load_tokenizer,
    longest_sequence,
)
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import read_part_config
from llava_lite.models.projector import make_projector
from llava_lite.models.vision_tower import count_patches, load_vision_tower, read_tower_config
from llava_lite.processor import Processor, prepare_tokenizer

TOKENIZER = "tokenizer"
"""The name of the template that the language model's tokenizer brings."""


class CheckpointError(ValueError):
    """A folder that is not a whole checkpoint, or not one this version reads."""


_STUMBLES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Turn whatever a wrong value in somebody's JSON makes transformers, or us, stumble over into a CheckpointError.

    Errors of ours say more, and pass; so does what a machine lacks (files, memory, packages).
    """
    try:
        yield
    except (*_STUMBLES, StrictDataclassError) as error:
        if type(error).__module__.partition(".")[0] == "llava_lite":
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise CheckpointError(f"{where}: its config.json, or a file it names, is broken ({reason})") from error


@dataclass(frozen=True)
class Parts:
    """What to assemble. Parts are folders or hub ids; no vision tower makes a text-only model.

    vision_feature_layer: which hidden state of the tower is projected (-2: LLaVA's)
    image_mode: one of `images.layout.ImageMode`
    template: the chat template, as `choose_template` takes it; None: the one of the language model's family
    """

    vision_tower: str | None
    language_model: str
    projector: str = "mlp2x_gelu"
    vision_feature_layer: int = -2
    image_mode: str = "pad"
    template: str | dict[str, object] | None = None


def assemble(
    parts: Parts,
    *,
    dtype: torch.dtype,
    quantize: Quantize | None = None,
    text_config: PretrainedConfig | None = None,
    text_weights: dict[str, torch.Tensor] | None = None,
    tower_weights: dict[str, torch.Tensor] | None = None,
) -> tuple[Llava, Processor]:
    """Load the parts and join them with a new projector, initialised from torch's current seed.

    text_config, text_weights, tower_weights: of parts that stand in another way in the folders that `parts` names.
    The tokenizer gets an `<image>` token and the language model a row for it where it has no spare one.
    Raises PartError, ProjectorError, ConversationError or ImageError.
    """
    processor = make_processor(parts, text_config)
    language_model = load_language_model(
        parts.language_model, dtype=dtype, quantize=quantize, config=text_config, weights=text_weights
    )
    fit_embeddings(language_model, len(processor.tokenizer))
    tower = projector = None
    if parts.vision_tower is not None:
        tower = load_vision_tower(
            parts.vision_tower, feature_layer=parts.vision_feature_layer, dtype=dtype, weights=tower_weights
        )
        hidden_size = int(language_model.config.get_text_config().hidden_size)
        projector = make_projector(parts.projector, tower.hidden_size, hidden_size).to(dtype)
    model = Llava(
        vision_tower=tower,
        projector=projector,
        language_model=language_model,
        image_token_id=processor.image_token_id,
        quantize=quantize,
    )
    fit_newline(model, processor)
    return model, processor


def make_processor(parts: Parts, text_config: PretrainedConfig | None = None) -> Processor:
    """Make the processor that `assemble` gives; reads no weights. Raises what `assemble` raises."""
    config = text_config or read_part_config(parts.language_model)
    family = find_language_family(config.model_type, parts.language_model)
    tokenizer = load_tokenizer(parts.language_model, text_config)
    bos = prepare_tokenizer(tokenizer, image=parts.vision_tower is not None)
    transform, num_patches = None, 0
    if parts.vision_tower is not None:
        transform = ImageTransform.from_tower(parts.vision_tower, parts.image_mode)
        num_patches = count_visual_tokens(read_tower_config(parts.vision_tower), parts.projector, transform)
    return Processor(
        tokenizer=tokenizer,
        template=choose_template(parts.template or family.template, tokenizer),
        transform=transform,
        num_patches=num_patches,
        bos=bos,
        max_positions=longest_sequence(config),
    )


def count_visual_tokens(vision_config: PretrainedConfig, projector: str, transform: ImageTransform) -> int:
    """Return how many visual tokens, P', a tower and a projector make of a tile. Raises PartError, ProjectorError."""
    with torch.device("meta"):  # its shape is asked, no weight is drawn
        return make_projector(projector, 1, 1).num_patches(count_patches(vision_config, transform.size))


def fit_newline(model: Llava, processor: Processor) -> None:
    """Give the projector an `image_newline`, drawn from torch's current seed, if the image mode ends rows with one.

    One that is there stays; one that the mode never shows is taken away, since nothing would train it.
    """
    if model.projector is None or processor.transform is None:
        return
    if not is_anyres(processor.transform.mode):
        model.projector.register_parameter("image_newline", None)
    elif model.projector.image_newline is None:
        model.projector.add_newline(int(model.language_model.config.get_text_config().hidden_size))


def choose_template(which: str | dict[str, object], tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return a row of the table by its name, a recorded template by its fields, or, for `tokenizer`, the one that the
    language model's tokenizer brings. Raises ConversationError.
    """
    if which != TOKENIZER:
        return find_template(which)
    where = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise ConversationError(f"{where}: its tokenizer has no chat template; give one: {option('template')}")
    if "strftime_now" in tokenizer.get_chat_template():
        remedy = f"give one: {option('template')}"
        raise ConversationError(f"{where}: its tokenizer's chat template writes today's date; {remedy}")

    def render(messages: list[dict[str, str]], ask: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))

    return derive_template(TOKENIZER, render, tokenizer.bos_token)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; raise CheckpointError for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: damaged, it holds no JSON object")
    return content


def option(name: str) -> str:
    """Say how what a checkpoint lacks, or has lost, is given: a part or a template."""
    return f"{name}=... of llava_lite.load, model.{name}=... of a training command"


def record_parts(parts: Parts, folder: Path) -> dict[str, object]:
    """Write down where the parts are, seen from `folder`, with the hashes of their weights."""
    record: dict[str, object] = asdict(parts)
    for name in ("vision_tower", "language_model"):
        part = record[name]
        if isinstance(part, str):
            record[name] = record_part(part, folder)
    return record


def record_part(part: str, folder: Path) -> dict[str, object]:
    """Write down where one part is: its hub id, or its path seen from `folder`."""
    is_folder = Path(part).is_dir()
    where = Path(os.path.relpath(part, folder)).as_posix() if is_folder else part
    return {"path": where, "folder": is_folder, "sha256": _hash_weights(part)}


def find_parts(record: dict[str, object], folder: Path, *, verify: bool = True, **instead: str | None) -> Parts:
    """Find recorded parts again, each where it was or where `instead` says.

    verify: read their weights to see that they are the same.

    Raises CheckpointError for a part that is gone, or that has other weights than the projector was trained against.
    """
    found = dict(record)
    for name in ("vision_tower", "language_model"):
        entry = record[name]
        if isinstance(entry, dict):
            found[name] = find_part(name, entry, folder, verify=verify, instead=instead.get(name))
    return Parts(**found)  # type: ignore[arg-type]


def find_part(name: str, entry: dict, folder: Path, *, verify: bool, instead: str | None = None) -> str:
    """Find what `record_part` wrote down, as `find_parts` does."""
    # without `..`: a run that goes on keeps this path, and the step folder that it leads through is deleted
    part = instead or (os.path.normpath(folder / entry["path"]) if entry["folder"] else entry["path"])
    if entry["folder"] and not instead and not Path(part).is_dir():
        raise CheckpointError(f"{folder}: its {name} is not at {part} any more; say where it is: {option(name)}")
    if verify and _hash_weights(part) != entry["sha256"]:
        raise CheckpointError(
            f"{folder}: {part} is not the {name} its projector was trained against (the weights differ); "
            f"give the right one: {option(name)}"
        )
    return str(part)


def _hash_weights(part: str) -> dict[str, str]:
    """SHA-256 of each weight file of a folder or hub id, by file name."""
    try:
        folder = Path(part) if Path(part).is_dir() else Path(str(cached_file(part, "config.json"))).parent
    except OSError:
        raise CheckpointError(f"{part}: neither a folder nor a hub id that can be reached") from None
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    return {file.name: _hash_file(file, file.stat().st_mtime_ns) for file in files}


@lru_cache(maxsize=64)
def _hash_file(path: Path, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()
