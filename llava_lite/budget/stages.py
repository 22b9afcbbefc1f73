"""From a configuration to what is trained: the stages it stands for, and the shape of the model of each.

Nothing but configurations is read, ours and the parts' own. Where a stage starts from a checkpoint that is not there
yet, the configuration of the stage that will write it says what it will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import AutoConfig

from llava_lite.budget.hardware import BudgetError
from llava_lite.budget.shapes import Shape, find_text, find_tower
from llava_lite.checkpoint.folder import holds_adapter
from llava_lite.checkpoint.folder import read_config as read_checkpoint
from llava_lite.checkpoint.original_config import is_original
from llava_lite.checkpoint.original_layouts import open_original
from llava_lite.checkpoint.parts import find_parts, reading
from llava_lite.checkpoint.transformers_import import read_foreign
from llava_lite.checkpoint.whole import NATIVE
from llava_lite.config import read_config
from llava_lite.models.adapter import Lora
from llava_lite.recipes import load_recipe, recipe_of
from llava_lite.training.config import RunConfig

STAGES = ("align", "finetune")


@dataclass(frozen=True)
class Stage:
    """One run. module: its recipe; settings: all of its configuration, as plain values."""

    path: Path
    module: ModuleType
    config: RunConfig
    settings: dict[str, Any]
    shape: Shape

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


def read_stages(path: Path, overrides: Sequence[str]) -> list[Stage]:
    """Read a recipe's YAML file, or of a folder both stages; overrides go to each of them.

    A folder with stage two alone, as for LoRA, starts from what another folder's stage one writes: it comes first then.
    Raises BudgetError, ConfigError, RecipeError, PartError, CheckpointError.
    """
    if not path.is_dir():
        return [_read(path, overrides)]
    files = [path / f"{name}.yaml" for name in STAGES if (path / f"{name}.yaml").is_file()]
    if not files:
        raise BudgetError(
            f"{path}: holds no {' or '.join(f'{name}.yaml' for name in STAGES)}; name a recipe's YAML file"
        )
    if files[0].stem == STAGES[1]:
        _, _, settings = _settings(files[0], overrides)
        writer = _find_writer(files[0], str(settings["model"].get("checkpoint")))
        files = [*([writer] if writer else []), *files]
    return [_read(file, overrides) for file in files]


def _read(path: Path, overrides: Sequence[str]) -> Stage:
    module, config, settings = _settings(path, overrides)
    model = settings["model"]
    vision, text, projector, image_mode = _start(path, model)
    shape = Shape(
        vision=vision,
        text=text,
        projector=projector,
        image_mode=image_mode,
        train=settings.get("train", ("projector",)),
        lora=Lora(**settings["lora"]) if settings.get("lora") else None,
        quantize=model.get("quantize"),
        vision_layers=settings.get("vision_layers"),
    )
    if shape.quantize and shape.lora is None:
        raise BudgetError(f"{path}: model.quantize: weights of few bits do not learn; set lora too, or leave it out")
    return Stage(path, module, config, settings, shape)


def _settings(path: Path, overrides: Sequence[str]) -> tuple[ModuleType, Any, dict[str, Any]]:
    recipe = recipe_of(path)
    if recipe.stem not in STAGES:
        raise BudgetError(f"{path}: a budget is made of {' and '.join(STAGES)}, not of {recipe.stem}")
    module = load_recipe(recipe)
    config = read_config(module.Config, path, overrides)
    return module, config, config.model_dump()


def _start(path: Path, model: dict[str, Any]) -> tuple[Any, Any, str, str]:
    """Return the configs of tower and language model, the projector's kind and the image mode."""
    checkpoint = model.get("checkpoint")
    mode = model.get("image_mode")
    if checkpoint is None:
        return _join(path, model, mode or "pad")
    if (Path(checkpoint) / "config.json").is_file():
        with reading(checkpoint):
            return _read_start(Path(checkpoint), mode, model)
    writer = _find_writer(path, checkpoint)
    if writer is not None:
        before = _settings(writer, ())[2]["model"]
        again = {name: model[name] for name in ("vision_tower", "language_model") if model.get(name)}
        return _join(writer, before | again, mode or "pad")
    raise BudgetError(
        f"{path}: model.checkpoint={checkpoint} is not there, and no align.yaml beside it writes it; "
        "set model.checkpoint=null model.vision_tower=... model.language_model=..."
    )


def _join(path: Path, model: dict[str, Any], image_mode: str) -> tuple[Any, Any, str, str]:
    if model["language_model"] is None:
        raise BudgetError(f"{path}: nothing to start from; set model.checkpoint or model.language_model")
    tower = model["vision_tower"]
    vision = find_tower(tower, model["vision_feature_layer"]) if tower else None
    return vision, find_text(model["language_model"]), model["projector"], image_mode


def _read_start(folder: Path, mode: str | None, model: dict[str, Any]) -> tuple[Any, Any, str, str]:
    """Read what a checkpoint that is there says of itself."""
    config = read_checkpoint(folder)
    about = config.get("llava_lite", {})
    if holds_adapter(folder):
        raise BudgetError(f"{folder}: an adapter; make it whole first, with llava-lite merge")
    again = {name: model.get(name) for name in ("vision_tower", "language_model")}
    if is_original(config):
        original = open_original(folder, config, **again)
        parts, text = original.parts, original.text_config or find_text(original.parts.language_model)
        seen = mode or ("pad" if original.layout == "projector" else parts.image_mode)
        return find_tower(str(parts.vision_tower), parts.vision_feature_layer), text, parts.projector, seen
    if "parts" in about:
        parts = find_parts(about["parts"], folder, verify=False, **again)
        vision = find_tower(parts.vision_tower, parts.vision_feature_layer) if parts.vision_tower else None
        return vision, find_text(parts.language_model), parts.projector, mode or "pad"
    if config["model_type"] in NATIVE and not about:
        whole = read_foreign(folder, config, model.get("template"))
        assert whole.processor.transform is not None
        return whole.vision_config, whole.text_config, whole.projector, mode or whole.processor.transform.mode
    if config["model_type"] in (*NATIVE, "llava_lite"):  # its tower was cut when it was saved
        vision, text = (AutoConfig.for_model(**config[name]) for name in ("vision_config", "text_config"))
        return vision, text, about["projector"], mode or about.get("image_mode", "pad")
    return None, find_text(str(folder)), "linear", "pad"


def _find_writer(path: Path, checkpoint: str) -> Path | None:
    """Return the align.yaml, in this folder or in one beside it, whose result a checkpoint is."""
    here = path.parent
    around = sorted(here.resolve().parent.glob(f"*/{STAGES[0]}.yaml"))
    for file in (here / f"{STAGES[0]}.yaml", *(here / ".." / other.parent.name / other.name for other in around)):
        if file.is_file() and _settings(file, ())[1].output_dir == Path(checkpoint):
            return file if file.parent == here else here.parent / file.parent.name / file.name
    return None
