"""Load one pretrained part from a folder or hub id, and refuse it if a weight is missing or unaccounted for.

What comes with a part is data: no code of its folder is run (without `trust_remote_code=False` transformers asks at the
terminal), and no attention kernel is fetched that its config.json names.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging


class PartError(ValueError):
    """A pretrained part that cannot be used: absent, of an unknown kind, or with missing or unexpected weights."""


def read_part_config(name_or_dir: str) -> PretrainedConfig:
    """Read what a part is. Raises PartError where there is none."""
    try:
        return AutoConfig.from_pretrained(name_or_dir, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PartError(f"{name_or_dir}: no model here ({_first_line(error)}); give a model folder or hub id") from None


def load_part(
    model_class: type[PreTrainedModel] | type[AutoModelForCausalLM],
    name_or_dir: str,
    *,
    dtype: torch.dtype | Literal["auto"],
    may_leave: str = r"(?!)",
    config: PretrainedConfig | None = None,
    quantization: BitsAndBytesConfig | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Load a model of exactly this class, every weight accounted for.

    may_leave: pattern of weights in the files that this class does not use; anything else left over is an error.
    config: what to load it as instead of what its config.json says. dtype: auto, that of the files.
    weights: the weights, where they are read already; `config` is then needed, and of `name_or_dir` the name alone.
    Raises PartError naming the weights.
    """
    config = config or read_part_config(name_or_dir)
    config._attn_implementation = None  # the class's own, whatever config.json names
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of unused weights; what matters of it is raised below
    loader: Any = model_class
    try:
        loaded = loader.from_pretrained(
            name_or_dir if weights is None else None,
            dtype=dtype,
            output_loading_info=True,
            config=config,
            quantization_config=quantization,
            state_dict=weights,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise PartError(f"{name_or_dir}: cannot be loaded ({_first_line(error)})") from None
    finally:
        logging.set_verbosity(verbosity)
    model, report = loaded
    unexpected = [name for name in report["unexpected_keys"] if not re.match(may_leave, name)]
    complain_of_weights(name_or_dir, report["missing_keys"], unexpected)
    return model


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """Read a file that torch wrote of tensors by name, and of nothing else: no code in it is run. Raises PartError."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise PartError(
            f"{path}: damaged, or it holds more than tensors, which is not read since that could run its code; "
            "where you trust it, convert it to safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise PartError(f"{path}: cannot be read ({_first_line(error)}); the file is missing or damaged") from None
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise PartError(f"{path}: holds something else than tensors by name")
    return weights


def complain_of_weights(where: object, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Raise PartError that names missing and unexpected weights, if there are any."""
    complaints = [
        f"{len(names)} {what} weights: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected)))
        if names
    ]
    if complaints:
        raise PartError(f"{where}: {'; '.join(complaints)}; the files do not belong to this config.json")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
