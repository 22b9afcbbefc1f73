"""What stands in a checkpoint's folder: its kind, its parts, and how large they are by the weight files' headers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from llava_lite.card.stages import CardError
from llava_lite.checkpoint.folder import read_config
from llava_lite.checkpoint.names import our_name
from llava_lite.checkpoint.weights import PROJECTOR
from llava_lite.checkpoint.whole import NATIVE
from llava_lite.models.adapter import WEIGHTS as ADAPTER

Kind = Literal["native", "whole", "text", "projector", "adapter"]
_ORDER = ("vision tower", "projector", "language model", "adapter")
_PART = re.compile(r"(vision_tower|projector|language_model)\.")


@dataclass(frozen=True)
class Part:
    """what: words on its architecture; parameters: how many of its numbers are in the folder."""

    name: str
    what: str
    parameters: int


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    kind: `native`, a whole model that transformers opens; `whole`, one that only this library does; `text`, a language
    model alone; `projector` or `adapter`, which stand beside what is not in the folder
    """

    kind: Kind
    parts: tuple[Part, ...]
    dtypes: tuple[str, ...]
    config: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """Our section of config.json."""
        return self.config.get("llava_lite", {})

    @property
    def sees(self) -> bool:
        return any(part.name in ("vision tower", "projector") for part in self.parts)


def read_contents(folder: Path) -> Contents:
    """Read what a folder that a recipe wrote holds. Raises CheckpointError, or CardError for one that cannot answer."""
    config = read_config(folder)
    about = config.get("llava_lite")
    if about is None:
        raise CardError(
            f"{folder}: a {config['model_type']} model without our section in config.json; "
            "give what align, finetune, merge or export wrote"
        )
    kind: Kind = "text"
    if "adapter" in about:
        kind = "adapter"
    elif "parts" in about:
        kind = "projector"
    elif config["model_type"] in (*NATIVE, "llava_lite"):
        kind = "native" if config["model_type"] in NATIVE else "whole"
    counts, dtypes = _count(folder, config)
    parts = (Part(name, _describe(name, config), counts[name]) for name in sorted(counts, key=_ORDER.index))
    return Contents(kind, tuple(parts), tuple(sorted(dtypes)), config)


def _count(folder: Path, config: dict[str, Any]) -> tuple[Counter[str], set[str]]:
    """Count the numbers of each part, and name what they are stored as."""
    tower = config.get("vision_config", {}).get("model_type", "")
    counts, dtypes = Counter[str](), set[str]()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    weight = file.get_slice(name)
                    size = 1
                    for length in weight.get_shape():
                        size *= length
                    counts[_part_of(path.name, name, tower)] += size
                    dtypes.add(weight.get_dtype())
        except (OSError, SafetensorError) as error:
            raise CardError(f"{path}: cannot be read ({error}); the file is damaged") from None
    return counts, dtypes


def _part_of(file: str, weight: str, tower: str) -> str:
    if file in (PROJECTOR, ADAPTER):
        return "projector" if file == PROJECTOR else "adapter"
    found = _PART.match(our_name(weight, tower)) if tower else None
    return found[1].replace("_", " ") if found else "language model"


def _describe(part: str, config: dict[str, Any]) -> str:
    about = config["llava_lite"]
    if part == "projector":
        return str(about.get("projector") or about.get("parts", {}).get("projector", ""))
    if part == "adapter":
        return "LoRA, beside the language model's matrices"
    sizes = config.get("vision_config" if part == "vision tower" else "text_config", config)
    words = [str(sizes["model_type"]), f"{sizes['num_hidden_layers']} layers of {sizes['hidden_size']}"]
    if part == "vision tower":
        words.append(f"pictures of {sizes['image_size']} pixels in patches of {sizes['patch_size']}")
    else:
        words.append(f"vocabulary of {sizes['vocab_size']:,}")
    return ", ".join(words)
