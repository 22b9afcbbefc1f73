"""Checkpoints in the layouts of the original LLaVA repository, by the files that stand beside their config.json:

whole       pytorch_model*.bin or *.safetensors: language model, projector, and the vision tower or its name alone
projector   mm_projector.bin of stage one, beside the names of tower and language model
adapter     LoRA: adapter_config.json, adapter_model.*, and what else was trained in non_lora_trainables.bin

A tower inside is what was trained, so it is taken, where the original's loader takes the one that `mm_vision_tower`
names; of that one only what its config and its pictures are. The chat template, which none of them says, is told by the
tokenizer's tokens or is that of the language model's family; `template` overrides it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PretrainedConfig

from llava_lite.checkpoint import original_config
from llava_lite.checkpoint.original_config import is_original, read_text_config
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble, option, read_json
from llava_lite.checkpoint.weights import fill, holds_weights, read_file, read_weights
from llava_lite.conversation.families import record_template
from llava_lite.images.layout import is_anyres
from llava_lite.images.transform import ImageTransform
from llava_lite.models import adapter
from llava_lite.models.adapter import Quantize
from llava_lite.models.language_model import load_tokenizer
from llava_lite.models.llava import Llava
from llava_lite.models.pretrained import PartError, complain_of_weights, read_part_config
from llava_lite.models.vision_tower import read_tower_config
from llava_lite.processor import Processor

Layout = Literal["whole", "projector", "adapter"]

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
_PROJECTOR_FILES = ("mm_projector.safetensors", "mm_projector.bin")
_NON_LORA = "non_lora_trainables.bin"


@dataclass(frozen=True)
class Original:
    """What a folder is.

    parts:       how it is joined, and of what; a whole folder is its own language model
    text_config: the language model's, where it is inside an original folder; None where it is a model of its own
    """

    folder: Path
    layout: Layout
    parts: Parts
    text_config: PretrainedConfig | None


def find_layout(folder: Path) -> Layout:
    """Tell a folder's layout by its files. Raises CheckpointError where none of them is there."""
    if (folder / adapter.CONFIG).is_file():
        return "adapter"
    if holds_weights(folder):
        return "whole"
    if any((folder / name).is_file() for name in _PROJECTOR_FILES):
        return "projector"
    raise CheckpointError(
        f"{folder}: an original LLaVA's config.json, but no weights beside it; there should be pytorch_model*.bin, "
        f"model*.safetensors, mm_projector.bin or {adapter.CONFIG}"
    )


def open_original(
    folder: Path,
    config: dict[str, Any],
    *,
    vision_tower: str | None = None,
    language_model: str | None = None,
    template: str | dict[str, object] | None = None,
) -> Original:
    """Read what a folder is, and find what it names; reads no weights.

    vision_tower, language_model: instead of what it names: a tower (of a folder with the tower inside, its config.json
    and preprocessor_config.json are enough), the language model of a projector or an adapter.
    Raises CheckpointError, PartError, ConversationError or ImageError.
    """
    layout = find_layout(folder)
    base, base_config = (
        (str(folder), config) if layout == "whole" else _find_base(folder, layout, config, language_model)
    )
    text_config = None if base_config is None else read_text_config(base_config, base)
    tower = _find(folder, "vision_tower", vision_tower or config.get("mm_vision_tower") or config.get("vision_tower"))
    vision = read_tower_config(tower)
    original_config.check(config, vision, folder)
    family = (text_config or read_part_config(base)).model_type
    row = original_config.find_chat_template(config, family, load_tokenizer(base, text_config), template)
    parts = Parts(
        tower,
        base,
        projector=original_config.projector_kind(config),
        vision_feature_layer=original_config.feature_layer(config, vision),
        image_mode=original_config.image_mode(config, vision),
        template=record_template(row),
    )
    _check_pixels(parts, folder)
    return Original(folder, layout, parts, text_config)


def load_original(original: Original, *, dtype: torch.dtype, quantize: Quantize | None) -> tuple[Llava, Processor]:
    """Load a folder that `open_original` opened. Raises CheckpointError, PartError or AdapterError."""
    folder, layout = original.folder, original.layout
    own = _read_own(folder, layout)
    base = own
    if layout != "whole":
        complain_of_weights(folder, (), own.language_model)
        base = _split(read_weights(Path(original.parts.language_model))) if original.text_config else _Weights()
    model, processor = assemble(
        original.parts,
        dtype=dtype,
        quantize=quantize,
        text_config=original.text_config,
        text_weights=base.language_model or None,
        tower_weights=own.tower or base.tower or None,
    )
    assert model.projector is not None
    if model.projector.image_newline is None:  # made where anyres would need it, but not of use to this mode
        own.projector.pop("image_newline", None)
    named = {f"projector.{name}": weight for name, weight in own.projector.items()}
    fill(torch.nn.ModuleDict({"projector": model.projector}), named, folder)
    if layout == "adapter":
        model.read_lora(folder)
    return model, processor


def base_of_original(original: Original) -> Parts | str:
    """Return what a new adapter stands beside, as `folder.save` takes it: a whole original folder, or parts."""
    return original.parts if original.text_config is None else original.parts.language_model


@dataclass(frozen=True)
class _Weights:
    """Weights by part, in our names of each part's own."""

    language_model: dict[str, torch.Tensor] = field(default_factory=dict)
    tower: dict[str, torch.Tensor] = field(default_factory=dict)
    projector: dict[str, torch.Tensor] = field(default_factory=dict)


def _read_own(folder: Path, layout: Layout) -> _Weights:
    """Read what a folder itself holds but for an adapter."""
    if layout == "whole":
        return _split(read_weights(folder))
    if layout == "projector":
        path = next(folder / name for name in _PROJECTOR_FILES if (folder / name).is_file())
    else:
        path = folder / _NON_LORA
        if not path.is_file():
            raise CheckpointError(
                f"{folder}: an adapter without its projector, {_NON_LORA}; the original writes that only at the end of "
                "a run, so a checkpoint-N folder of one is not whole"
            )
    # LLaVA wrapped by PEFT, by DeepSpeed or by nothing
    return _split({re.sub(r"^(base_model\.)?(model\.)+", "model.", name): w for name, w in read_file(path).items()})


def _split(weights: dict[str, torch.Tensor]) -> _Weights:
    parts = _Weights()
    for name, weight in weights.items():
        if name.startswith(TOWER):
            parts.tower[name.removeprefix(TOWER)] = weight
        elif name.startswith(PROJECTOR):
            layer = name.removeprefix(PROJECTOR)  # a linear one has no number
            parts.projector[layer if "." in layer else f"0.{layer}"] = weight
        elif name == NEWLINE:
            parts.projector["image_newline"] = weight
        else:
            parts.language_model[name] = weight
    return parts


def _find_base(
    folder: Path, layout: Layout, config: dict[str, Any], instead: str | None
) -> tuple[str, dict[str, Any] | None]:
    """Find the language model of a projector or an adapter; with its config.json if it is an original folder, too."""
    named = config.get("_name_or_path")
    if layout == "adapter":
        named = read_json(folder / adapter.CONFIG).get("base_model_name_or_path")
    path = Path(_place(folder, instead or named or ""))
    base_config = read_json(path / "config.json") if os.path.isfile(path / "config.json") else {}
    if not is_original(base_config) or path.samefile(folder):
        return _find(folder, "language_model", instead or named), None
    if find_layout(path) != "whole":
        raise CheckpointError(f"{folder}: its language model, {path}, is itself a {find_layout(path)}; make that whole")
    return str(path), base_config


def _find(folder: Path, name: str, named: str | None) -> str:
    """Return where a part is. Raises CheckpointError that names the option which says it."""
    place = _place(folder, named or "")
    try:
        if not named or (os.path.isdir(place) and Path(place).samefile(folder)):
            raise PartError("it names none")
        read_part_config(place)
    except PartError as error:
        raise CheckpointError(
            f"{folder}: its {name} {named!r} is not to be found ({error}); say where it is: {option(name)}"
        ) from None
    return place


def _place(folder: Path, named: str) -> str:
    """Look a path up from the checkpoint and from here, and, where all was moved, by its last name inside; else it is
    a hub id."""
    places = (folder / named, Path(named), folder / Path(named).name)
    return next((str(place) for place in places if os.path.isdir(place)), named)  # no error for what is no path


def _check_pixels(parts: Parts, folder: Path) -> None:
    """Raise CheckpointError for a tower whose processor cuts off a border: the original then cuts padded tiles, too."""
    tower = ImageTransform.from_tower(str(parts.vision_tower), parts.image_mode).tower
    if tower.short_side != tower.size and (parts.image_mode == "pad" or is_anyres(parts.image_mode)):
        raise CheckpointError(
            f"{folder}: image_aspect_ratio {parts.image_mode!r}, but its tower's preprocessor_config.json resizes to "
            f"{tower.short_side} and cuts {tower.size} out, which is read only where pictures are cropped"
        )
