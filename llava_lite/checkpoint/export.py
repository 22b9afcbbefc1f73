"""Any checkpoint written in a format that others read, proven to be the same before it is there.

transformers  LlavaForConditionalGeneration, or LlavaNextForConditionalGeneration for anyres; vLLM and SGLang read both
original      the layout of the LLaVA repository
gguf          a language model and an mmproj file for llama.cpp

What cannot be expressed is refused by name; what the other side does in its own way is told. See docs/interchange.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from llava_lite.checkpoint.folder import Template, base_of, holds_adapter, read_config, save
from llava_lite.checkpoint.hub import find_folder
from llava_lite.checkpoint.merge import merge_checkpoint
from llava_lite.checkpoint.parts import CheckpointError, Parts
from llava_lite.checkpoint.proof import DTYPES, differ, logits_of, new_folder, open_ready, probe
from llava_lite.checkpoint.transformers_format import differences, why_not_native
from llava_lite.conversation.families import record_template
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

FORMATS = ("transformers", "original", "gguf")
_GGUF_DTYPES: Mapping[str, Literal["f32", "f16", "bf16"]] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def export_checkpoint(
    source: str, out: Path, *, format: str, dtype: str | None = None, template: str | None = None
) -> str:
    """Write a checkpoint into `out` in one of FORMATS; return what was written and what the format does otherwise.

    source: any folder or hub id that `folder.load` opens; a projector comes with its parts, an adapter merged.
    dtype: of the weights, by default as they are stored.
    template: the chat template by its name, where the source does not say it, or instead of what it says.
    Raises CheckpointError where `out` holds something, the format cannot express a part of the model, or what was
    written does not come back the same; nothing is left behind then.
    """
    if format not in FORMATS:
        raise CheckpointError(f"export: unknown format {format!r}; there are: {', '.join(FORMATS)}")
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"export: no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    dtype = dtype or _stored_dtype(source)
    with new_folder(out) as work:
        whole, written = Path(source), work / "whole"
        if holds_adapter(source):
            whole = work / "merged"
            merge_checkpoint(source, whole, dtype=dtype)
        if format == "gguf":
            return "\n- ".join([f"{out}: written for llama.cpp", *_write_gguf(written, whole, dtype, template)])
        model, processor = open_ready(whole, DTYPES[dtype], template=template)
        unsaid = None
        if format == "original":
            from llava_lite.checkpoint import original_format

            original_format.write_original(written, model, processor, stands_at=out)
            told = original_format.differences(processor)
            unsaid = record_template(processor.template)
        else:
            _check_native(source, model, processor)
            save(written, model, processor)
            told = differences(processor)
        difference = _read_back(written, model, processor, unsaid, holds_image_token=format == "transformers")
    first = f"{out}: written as {_kind(out)}; read back, logits differ by at most {difference:.2g}"
    return "\n- ".join([first, *told])


def _write_gguf(written: Path, whole: Path, dtype: str, template: str | None) -> list[str]:
    """Write the files, which are compared tensor by tensor where they are written; return what is to be told."""
    from llava_lite.checkpoint import gguf_format

    written.mkdir()
    model, processor = open_ready(whole, DTYPES["float32"], template=template)
    files = gguf_format.write_gguf(written, model, processor, dtype=_GGUF_DTYPES[dtype])
    return [", ".join(path.name for path in files), *gguf_format.differences(model, processor)]


def _check_native(source: str, model: Llava, processor: Processor) -> None:
    reason = why_not_native(model, processor) if model.vision_tower is not None else ""
    if reason:
        raise CheckpointError(f"{source}: transformers' Llava classes cannot express {reason}")


def _read_back(
    written: Path, model: Llava, processor: Processor, unsaid: Template, *, holds_image_token: bool
) -> float:
    """Return how far the logits of what was written are from the model's; raise CheckpointError unless it is the same.

    The same weights in the same arithmetic: what is left is the order in which a GPU adds up.
    unsaid: the template, where the format does not say it
    holds_image_token: else that token, which is never said, gets a new row when the folder is read
    """
    again, its_processor = open_ready(written, model.language_model.dtype, template=unsaid)
    before, after = logits_of(model, processor), logits_of(again, its_processor)
    if _words(processor) != _words(its_processor) or len(before) != len(after):
        raise CheckpointError(f"{written}: read back, a prompt becomes other tokens; nothing was written")
    if not holds_image_token:
        before, after = (_without(*pair) for pair in ((before, model.image_token_id), (after, again.image_token_id)))
    difference = differ(before, after)
    if not difference <= 1e-5 * float(before.abs().max()):
        raise CheckpointError(f"{written}: read back, its logits differ by {difference:.2g}; nothing was written")
    return difference


def _without(logits: torch.Tensor, token: int) -> torch.Tensor:
    """Leave a token's column out of logits [T, V]."""
    return torch.cat([logits[:, :token], logits[:, token + 1 :]], dim=1)


def _words(processor: Processor) -> list[int]:
    """Return the ids of the probe but for its image's, which may be others in a format."""
    return [token for token in probe(processor).input_ids.tolist() if token != processor.image_token_id]


def _kind(folder: Path) -> str:
    """Say what a folder is for transformers."""
    config = read_config(folder)
    return ", ".join(config.get("architectures") or [str(config["model_type"])])


def _stored_dtype(source: str) -> str:
    """Return the dtype of a checkpoint's language model, as its config.json says it."""
    base = base_of(source)
    config = read_config(find_folder(base.language_model if isinstance(base, Parts) else base))
    text = config.get("text_config", {})
    named = [values.get(key) for values in (config, text) for key in ("dtype", "torch_dtype")]
    found = next((str(name) for name in named if name), "float32")
    if found not in DTYPES:
        raise CheckpointError(f"{source}: stored in {found}; say what to write: {', '.join(DTYPES)}")
    return found
