"""Save and load (Llava, Processor). The kinds of folder, by what config.json says:

model_type llava(_next) a whole model as transformers has it, plus our section `llava_lite`: template, image mode, BOS;
                        or without it, of other making
model_type llava_lite   a whole model that class cannot express, or (with `parts`) a projector and where its parts are,
                        or (with `adapter`) a PEFT adapter, a projector and where the rest is: parts, or a `checkpoint`
any with fields mm_*    the original LLaVA's layouts: `original_layouts`
any other               a language model alone, text only
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from llava_lite.checkpoint.hub import find_folder
from llava_lite.checkpoint.original_config import is_original
from llava_lite.checkpoint.original_layouts import base_of_original, find_layout, load_original, open_original
from llava_lite.checkpoint.parts import (
    CheckpointError,
    Parts,
    assemble,
    find_part,
    find_parts,
    fit_newline,
    make_processor,
    read_json,
    reading,
    record_part,
    record_parts,
)
from llava_lite.checkpoint.transformers_import import read_foreign
from llava_lite.checkpoint.weights import PROJECTOR, fill, read_weights
from llava_lite.checkpoint.whole import NATIVE, Whole, load_whole, read_whole, write_whole
from llava_lite.conversation.families import record_template
from llava_lite.models import adapter
from llava_lite.models.adapter import Quantize
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

Template = str | dict[str, object] | None
"""As `choose_template` takes it; None: the checkpoint's own."""


def save(
    folder: Path,
    model: Llava,
    processor: Processor,
    *,
    parts: Parts | str | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint into `folder`, as `writing` does.

    parts: given where only the projector was trained, or an adapter beside it: these alone are written, and where the
    rest is: its parts, or the folder of a whole checkpoint.
    weights: the model's state dict, where an engine has shared the weights out and the model holds a slice of each.
    """
    assert parts is not None or model.lora is None  # an adapter is merged, or saved beside its base
    weights = model.state_dict() if weights is None else weights
    with writing(folder) as new:
        if parts is None:
            config = write_whole(new, model, processor, dict(weights))
        else:
            config = _write_trained(new, folder, model, processor, parts, weights)
        (new / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; what is written there then replaces the checkpoint in `folder`, config.json last.

    Meanwhile `folder` has no config.json, so that an interrupted save is not a checkpoint. Other files stay.
    """
    new = folder / ".writing"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    for file in new.iterdir():  # safetensors writes files that only their owner may read
        file.chmod((new / "config.json").stat().st_mode)
    (folder / "config.json").unlink(missing_ok=True)
    for stale in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json"), folder / adapter.CONFIG]:
        stale.unlink(missing_ok=True)
    for file in sorted(new.iterdir(), key=lambda file: file.name == "config.json"):
        file.replace(folder / file.name)
    new.rmdir()


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype,
    vision_tower: str | None = None,
    language_model: str | None = None,
    quantize: Quantize | Literal["recorded"] | None = "recorded",
    template: Template = None,
) -> tuple[Llava, Processor]:
    """Open any folder that `save` wrote, a LLaVA of transformers or of the original's, or a language model alone.

    folder: or the id of any of these on the hub. An adapter stays beside its base, not merged.
    vision_tower, language_model: where to find a part that a checkpoint without it has lost.
    quantize: how the language model is held; by default as the checkpoint says, whole unless it is an adapter's.
    template: as `choose_template` takes it, instead of the one that the checkpoint says, or does not say.
    Raises CheckpointError, PartError or AdapterError: not a checkpoint, lost parts, missing or unexpected weights.
    """
    with reading(folder):
        return _load(find_folder(folder), dtype, vision_tower, language_model, quantize, template)


def _load(
    folder: Path,
    dtype: torch.dtype,
    vision_tower: str | None,
    language_model: str | None,
    quantize: Quantize | Literal["recorded"] | None,
    template: Template,
) -> tuple[Llava, Processor]:
    config = read_config(folder)
    about = config.get("llava_lite", {})
    how: Quantize | None = about.get("quantize") if quantize == "recorded" else quantize
    if is_original(config):
        again = {"vision_tower": vision_tower, "language_model": language_model}
        return load_original(open_original(folder, config, template=template, **again), dtype=dtype, quantize=how)
    if "parts" in about:
        parts = find_parts(about["parts"], folder, vision_tower=vision_tower, language_model=language_model)
        model, processor = assemble(_with_template(parts, template), dtype=dtype, quantize=how)
    elif "checkpoint" in about:
        base = find_folder(_find_base(about, folder, language_model))
        model, processor = _load(base, dtype, vision_tower, None, how, template or about["template"])
        processor = _with_mode(processor, about)
        fit_newline(model, processor)
    elif config["model_type"] in (*NATIVE, "llava_lite"):
        whole = _read_whole(folder, config, template)
        return load_whole(folder, whole, dtype=dtype, quantize=how), whole.processor
    else:
        return assemble(Parts(None, str(folder), template=template or about.get("template")), dtype=dtype, quantize=how)
    if model.projector is not None:
        fill(model.projector, read_weights(folder), folder)
    if "adapter" in about:
        model.read_lora(folder)
    return model, processor


def _with_template(parts: Parts, template: Template) -> Parts:
    return parts if template is None else replace(parts, template=template)


def _read_whole(folder: Path, config: dict, template: Template) -> Whole:
    return read_whole(folder, config, template) if "llava_lite" in config else read_foreign(folder, config, template)


def load_processor(
    folder: str | Path,
    *,
    vision_tower: str | None = None,
    language_model: str | None = None,
    template: Template = None,
) -> Processor:
    """Return the processor that `load` gives; reads no weights. Raises as it."""
    with reading(folder):
        return _load_processor(find_folder(folder), vision_tower, language_model, template)


def _load_processor(
    folder: Path, vision_tower: str | None, language_model: str | None, template: Template
) -> Processor:
    config = read_config(folder)
    about = config.get("llava_lite", {})
    if is_original(config):
        again = {"vision_tower": vision_tower, "language_model": language_model}
        original = open_original(folder, config, template=template, **again)
        return make_processor(original.parts, original.text_config)
    if "parts" in about:
        parts = find_parts(
            about["parts"], folder, verify=False, vision_tower=vision_tower, language_model=language_model
        )
        return make_processor(_with_template(parts, template))
    if "checkpoint" in about:
        base = find_folder(_find_base(about, folder, language_model, verify=False))
        return _with_mode(_load_processor(base, vision_tower, None, template or about["template"]), about)
    if config["model_type"] in (*NATIVE, "llava_lite"):
        return _read_whole(folder, config, template).processor
    return make_processor(Parts(None, str(folder), template=template or about.get("template")))


def holds_projector_alone(folder: str | Path) -> bool:
    """Whether a checkpoint is what align writes: a projector, and where its parts are. Raises CheckpointError."""
    found = find_folder(folder)
    config = read_config(found)
    if is_original(config):
        return find_layout(found) == "projector"
    return "parts" in config.get("llava_lite", {}) and not holds_adapter(folder)


def holds_adapter(folder: str | Path) -> bool:
    """Whether a checkpoint is an adapter, and where what it stands beside is. Raises CheckpointError."""
    found = find_folder(folder)
    config = read_config(found)
    return find_layout(found) == "adapter" if is_original(config) else "adapter" in config.get("llava_lite", {})


def base_of(folder: str | Path, *, vision_tower: str | None = None, language_model: str | None = None) -> Parts | str:
    """Return what an adapter stands beside that starts from, or goes on from, a checkpoint: `save` takes it.

    Raises CheckpointError for a part that is gone.
    """
    found = find_folder(folder)
    config = read_config(found)
    about = config.get("llava_lite", {})
    again = {"vision_tower": vision_tower, "language_model": language_model}
    if is_original(config):
        return base_of_original(open_original(found, config, **again))
    if "parts" in about:
        return find_parts(about["parts"], found, verify=False, **again)
    return _find_base(about, found, language_model, verify=False) if "checkpoint" in about else str(folder)


def read_config(folder: Path) -> dict:
    """Read config.json; raise CheckpointError where there is none that says what the folder is."""
    path = folder / "config.json"
    if not path.is_file():
        steps = sorted(folder.glob("step-*/config.json"))
        hint = f"; a run stopped here, its newest checkpoint is {steps[-1].parent}" if steps else ""
        if (folder / "mm_projector.bin").is_file():
            hint = "; mm_projector.bin needs the config.json that the original wrote with it"
        raise CheckpointError(f"{folder}: not a checkpoint (no config.json){hint}")
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{path}: broken, or it does not say its model_type")
    about = config.get("llava_lite", {})
    if not isinstance(about, dict) or (config["model_type"] == "llava_lite" and not about):
        raise CheckpointError(f"{path}: broken, its section llava_lite is gone")
    return config


def _write_trained(
    new: Path,
    folder: Path,
    model: Llava,
    processor: Processor,
    base: Parts | str,
    weights: Mapping[str, torch.Tensor],
) -> dict:
    if model.projector is not None:
        save_file(_below("projector.", weights), new / PROJECTOR)
    seen: dict[str, object] = {"template": record_template(processor.template)}
    if processor.transform is not None:
        seen["image_mode"] = processor.transform.mode
    about: dict[str, object]
    if isinstance(base, Parts):
        about = {"parts": record_parts(base, folder) | seen}
        beside = record_part(base.language_model, folder)
    else:
        about = {"checkpoint": record_part(base, folder), **seen}
        beside = record_part(base, folder)
    if model.lora is not None:
        adapter.write_adapter(new, _below("language_model.", weights), model.lora, base=str(beside["path"]))
        about |= {"adapter": "lora", "quantize": model.quantize}
    return {"model_type": "llava_lite", "llava_lite": about}


def _below(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): w.contiguous() for name, w in weights.items() if name.startswith(prefix)}


def _find_base(about: dict, folder: Path, instead: str | None, *, verify: bool = True) -> str:
    return find_part("language_model", about["checkpoint"], folder, verify=verify, instead=instead)


def _with_mode(processor: Processor, about: dict) -> Processor:
    """Give a base's processor the image mode that an adapter was trained with."""
    return processor.with_image_mode(about["image_mode"]) if "image_mode" in about else processor
