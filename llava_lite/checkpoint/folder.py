"""Save and load (Llava, Processor). The kinds of folder, by what config.json says:

model_type llava        a whole model as transformers has it, plus our section `llava_lite`: template, image mode, BOS
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
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.initialization import no_init_weights

from llava_lite.checkpoint.original_config import is_original
from llava_lite.checkpoint.original_layouts import base_of_original, find_layout, load_original, open_original
from llava_lite.checkpoint.parts import (
    CheckpointError,
    Parts,
    assemble,
    choose_template,
    count_visual_tokens,
    find_part,
    find_parts,
    fit_newline,
    make_processor,
    record_part,
    record_parts,
)
from llava_lite.checkpoint.transformers_format import (
    generation_config,
    is_native,
    native_config,
    native_names,
    save_native_processor,
    save_tokenizer,
    with_chat_template,
)
from llava_lite.checkpoint.weights import PROJECTOR, fill, read_weights, write_weights
from llava_lite.conversation.families import find_template, record_template
from llava_lite.images.transform import ImageTransform
from llava_lite.models import adapter
from llava_lite.models.adapter import Quantize
from llava_lite.models.language_model import (
    find_language_family,
    load_language_model,
    load_tokenizer,
    longest_sequence,
)
from llava_lite.models.llava import Llava
from llava_lite.models.projector import make_projector
from llava_lite.models.vision_tower import TOWERS, VisionTower
from llava_lite.processor import Processor, prepare_tokenizer


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
            config = _write_whole(new, model, processor, dict(weights))
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
    template: str | dict[str, object] | None = None,
    quantize: Quantize | Literal["recorded"] | None = "recorded",
) -> tuple[Llava, Processor]:
    """Open any folder that `save` or the original LLaVA wrote, or a language model alone. An adapter is not merged.

    vision_tower, language_model: where to find a part that a checkpoint without it has lost.
    template: the chat template, as `choose_template` takes it, instead of the checkpoint's. The original's checkpoints
    do not say it: there it is told by the tokenizer's tokens, or it is the one of the language model's family.
    quantize: how the language model is held; by default as the checkpoint says, whole unless it is an adapter's.
    Raises CheckpointError, PartError or AdapterError: not a checkpoint, lost parts, missing or unexpected weights.
    """
    folder = Path(folder)
    config = read_config(folder)
    about = config.get("llava_lite", {})
    how: Quantize | None = about.get("quantize") if quantize == "recorded" else quantize
    again = {"vision_tower": vision_tower, "language_model": language_model}
    if is_original(config):
        return load_original(open_original(folder, config, template=template, **again), dtype=dtype, quantize=how)
    model, processor = _load_own(folder, config, about, dtype, how, again)
    return model, _with_template(processor, template)


def _load_own(
    folder: Path,
    config: dict,
    about: dict,
    dtype: torch.dtype,
    how: Quantize | None,
    again: dict[str, str | None],
) -> tuple[Llava, Processor]:
    if "parts" in about:
        parts = find_parts(about["parts"], folder, verify=True, **again)
        model, processor = assemble(parts, dtype=dtype, quantize=how)
    elif "checkpoint" in about:
        base = _find_base(about, folder, again["language_model"])
        tower, template = again["vision_tower"], about["template"]
        model, processor = load(base, dtype=dtype, quantize=how, vision_tower=tower, template=template)
        processor = _as_recorded(processor, about)
        fit_newline(model, processor)
    elif config["model_type"] in ("llava", "llava_lite"):
        return _load_whole(folder, config, about, dtype, how)
    else:
        return assemble(Parts(None, str(folder), template=about.get("template")), dtype=dtype, quantize=how)
    if model.projector is not None:
        fill(model.projector, read_weights(folder), folder)
    if "adapter" in about:
        model.read_lora(folder)
    return model, processor


def load_processor(
    folder: str | Path,
    *,
    vision_tower: str | None = None,
    language_model: str | None = None,
    template: str | dict[str, object] | None = None,
) -> Processor:
    """Return the processor that `load` gives; reads no weights. Raises as it."""
    folder = Path(folder)
    config = read_config(folder)
    again = {"vision_tower": vision_tower, "language_model": language_model}
    if is_original(config):
        original = open_original(folder, config, template=template, **again)
        return make_processor(original.parts, original.text_config)
    return _with_template(_own_processor(folder, config, again), template)


def _own_processor(folder: Path, config: dict, again: dict[str, str | None]) -> Processor:
    about = config.get("llava_lite", {})
    if "parts" in about:
        return make_processor(find_parts(about["parts"], folder, verify=False, **again))
    if "checkpoint" in about:
        base = _find_base(about, folder, again["language_model"], verify=False)
        processor = load_processor(base, vision_tower=again["vision_tower"], template=about["template"])
        return _as_recorded(processor, about)
    if config["model_type"] in ("llava", "llava_lite"):
        return _whole_processor(folder, config)
    return make_processor(Parts(None, str(folder), template=about.get("template")))


def holds_projector_alone(folder: str | Path) -> bool:
    """Whether a checkpoint is what align writes: a projector, and where its parts are. Raises CheckpointError."""
    config = read_config(Path(folder))
    if is_original(config):
        return find_layout(Path(folder)) == "projector"
    return "parts" in config.get("llava_lite", {}) and not holds_adapter(folder)


def holds_adapter(folder: str | Path) -> bool:
    """Whether a checkpoint is an adapter, and where what it stands beside is. Raises CheckpointError."""
    config = read_config(Path(folder))
    if is_original(config):
        return find_layout(Path(folder)) == "adapter"
    return "adapter" in config.get("llava_lite", {})


def base_of(folder: str | Path, *, vision_tower: str | None = None, language_model: str | None = None) -> Parts | str:
    """Return what an adapter stands beside that starts from, or goes on from, a checkpoint: `save` takes it.

    Raises CheckpointError for a part that is gone.
    """
    folder = Path(folder)
    config = read_config(folder)
    about = config.get("llava_lite", {})
    again = {"vision_tower": vision_tower, "language_model": language_model}
    if is_original(config):
        return base_of_original(open_original(folder, config, **again))
    if "parts" in about:
        return find_parts(about["parts"], folder, verify=False, **again)
    return _find_base(about, folder, language_model, verify=False) if "checkpoint" in about else str(folder)


def read_config(folder: Path) -> dict:
    """Read config.json; raise CheckpointError where there is none that says what the folder is."""
    path = folder / "config.json"
    if not path.is_file():
        steps = sorted(folder.glob("step-*/config.json"))
        hint = f"; a run stopped here, its newest checkpoint is {steps[-1].parent}" if steps else ""
        if (folder / "mm_projector.bin").is_file():
            hint = "; mm_projector.bin needs the config.json that the original wrote with it"
        raise CheckpointError(f"{folder}: not a checkpoint (no config.json){hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_type"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise CheckpointError(f"{path}: broken, or it does not say its model_type") from None
    if config["model_type"] in ("llava", "llava_lite") and "llava_lite" not in config and not is_original(config):
        raise CheckpointError(
            f"{folder}: a LLaVA folder of other making; it does not say which chat template it was trained with"
        )
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
    return find_part("checkpoint", about["checkpoint"], folder, verify=verify, instead=instead)


def _with_template(processor: Processor, which: str | dict[str, object] | None) -> Processor:
    return processor if which is None else processor.with_template(choose_template(which, processor.tokenizer))


def _as_recorded(processor: Processor, about: dict) -> Processor:
    """Give a base's processor the template and the image mode that an adapter was trained with."""
    processor = processor.with_template(find_template(about["template"]))
    return processor.with_image_mode(about["image_mode"]) if "image_mode" in about else processor


def _write_whole(new: Path, model: Llava, processor: Processor, weights: dict[str, torch.Tensor]) -> dict:
    language_model = model.language_model
    about: dict[str, object] = {"template": record_template(processor.template), "bos": processor.bos}
    generation_config(language_model, processor).save_pretrained(new)
    if language_model.config.tie_word_embeddings:
        del weights["language_model.lm_head.weight"]
    if model.vision_tower is None:
        write_weights(new, {name.removeprefix("language_model."): w for name, w in weights.items()})
        with_chat_template(processor).save_pretrained(new)
        return {**_plain(language_model.config), "llava_lite": about}
    assert model.projector is not None and processor.transform is not None
    about["projector"] = model.projector.kind
    about |= {"image_mode": processor.transform.mode, "tower_short_side": processor.transform.tower.short_side}
    if is_native(model):
        names = native_names(model)
        write_weights(new, {names[name]: w for name, w in weights.items()})
        save_native_processor(new, model, processor)
        return {**_plain(native_config(model, processor.num_patches)), "llava_lite": about}
    write_weights(new, weights)
    save_tokenizer(new, processor)
    processor.transform.image_processor.save_pretrained(new)
    return {
        "model_type": "llava_lite",
        "vision_config": _plain(model.vision_tower.model.config),
        "text_config": _plain(language_model.config),
        "llava_lite": about,
    }


def _load_whole(
    folder: Path, config: dict, about: dict, dtype: torch.dtype, quantize: Quantize | None
) -> tuple[Llava, Processor]:
    vision_config, text_config = (_sub_config(config[name]) for name in ("vision_config", "text_config"))
    find_language_family(text_config.model_type, folder)
    processor = _whole_processor(folder, config)
    weights = read_weights(folder)
    with no_init_weights():
        tower = VisionTower(TOWERS[vision_config.model_type].model_class(vision_config)).to(dtype)
        if quantize is None:
            language_model = AutoModelForCausalLM.from_config(text_config, dtype=dtype)
    if quantize is not None:
        inside = {name: weights.pop(name) for name in sorted(weights) if name.startswith("language_model.")}
        language_model = load_language_model(
            str(folder),
            dtype=dtype,
            quantize=quantize,
            config=text_config,
            weights={name.removeprefix("language_model."): weight for name, weight in inside.items()},
        )
    projector = make_projector(about["projector"], tower.hidden_size, text_config.hidden_size).to(dtype)
    model = Llava(
        vision_tower=tower,
        projector=projector,
        language_model=language_model,
        image_token_id=processor.image_token_id,
        quantize=quantize,
    )
    fit_newline(model, processor)  # it has its place before weights are read
    if config["model_type"] == "llava":
        ours = {theirs: name for name, theirs in native_names(model).items()}
        weights = {ours.get(name, name): weight for name, weight in weights.items()}
    if quantize is not None:  # the language model is whole already
        fill(torch.nn.ModuleDict({n: p for n, p in model.parts().items() if n != "language_model"}), weights, folder)
    else:
        fill(model, weights, folder)
        language_model.tie_weights()
    return model, processor


def _whole_processor(folder: Path, config: dict) -> Processor:
    about = config["llava_lite"]
    vision_config, text_config = (_sub_config(config[name]) for name in ("vision_config", "text_config"))
    tokenizer = load_tokenizer(str(folder))
    prepare_tokenizer(tokenizer, image=True)
    transform = ImageTransform.from_tower(folder, about.get("image_mode"))
    if "tower_short_side" in about:  # what only crop needs, preprocessor_config.json does not say in other modes
        transform = transform.with_short_side(about["tower_short_side"])
    return Processor(
        tokenizer=tokenizer,
        template=find_template(about["template"]),
        transform=transform,
        num_patches=count_visual_tokens(vision_config, about["projector"], transform),
        bos=about["bos"],
        max_positions=longest_sequence(text_config),
    )


def _sub_config(config: dict) -> PretrainedConfig:
    return AutoConfig.for_model(**config)


def _plain(config: PretrainedConfig) -> dict:
    return json.loads(config.to_json_string(use_diff=False))
