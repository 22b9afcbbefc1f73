"""An adapter and its base made one whole checkpoint, which is proven to compute the same before it is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image as PilImage

from llava_lite import distributed
from llava_lite.checkpoint.folder import holds_adapter, load, save
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.conversation.message import Conversation
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor, join_patches

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# How far a logit may move, seen from the largest one: by what the merged weights lose when they are rounded to a dtype.
_MAY_DIFFER: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_INT8 = 5e-2
"""LLM.int8 rounds what goes into a matrix, too; merged it does no more."""


def merge_checkpoint(folder: str | Path, out: Path, *, into: str = "dequantized", dtype: str | None = None) -> str:
    """Write the whole model of an adapter's checkpoint into `out`, and return what it measured in a line or two.

    into: `dequantized`, the base as the adapter was trained beside it, or `original`, the base before it was quantised,
    which is another model: the difference is told. dtype: of the weights, by default what this device computes in.
    The logits of a conversation are compared between the adapter beside its base and the checkpoint as read back.
    Raises CheckpointError where they differ by more than rounding, and leaves nothing behind.
    """
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"merge: no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    if into not in ("dequantized", "original"):
        raise CheckpointError(f"merge: into {into!r} is neither dequantized nor original")
    if not holds_adapter(folder):
        raise CheckpointError(f"{folder}: holds no adapter, so there is nothing to merge")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: is there already; remove it or name another folder")
    kind = DTYPES[dtype] if dtype else distributed.dtype()
    model, processor = _open(folder, kind)
    quantize, trained = model.quantize, _logits(model, processor)
    beside = trained
    if quantize and into == "original":
        del model
        model, processor = _open(folder, kind, as_trained=False)
        beside = _logits(model, processor)
    model.merge_lora()
    existing = next(parent for parent in out.absolute().parents if parent.is_dir())
    new = Path(tempfile.mkdtemp(prefix=".merging-", dir=existing))
    try:
        save(new / "whole", model, processor)
        del model
        merged = _logits(*_open(new / "whole", kind))
        difference, largest = _differ(merged, beside), float(beside.abs().max())
        allowed = _INT8 if quantize == "8bit" and into == "dequantized" else _MAY_DIFFER[kind]
        if not difference <= allowed * largest:
            raise CheckpointError(
                f"{folder}: merged, its logits differ by {difference:.2g} (the largest is {largest:.3g}), which is "
                f"more than rounding to {str(kind).removeprefix('torch.')} explains; nothing was written"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        (new / "whole").replace(out)
    finally:
        shutil.rmtree(new)
    told = f"{out}: merged; logits differ from the adapter's by at most {difference:.2g} (the largest is {largest:.3g})"
    if quantize and into == "original":
        told += f"\nfrom those beside the {quantize} base, as it was trained, by {_differ(merged, trained):.2g}"
    return told


def _open(folder: str | Path, dtype: torch.dtype, *, as_trained: bool = True) -> tuple[Llava, Processor]:
    model, processor = load(folder, dtype=dtype, quantize="recorded" if as_trained else None)
    return model.to(distributed.device()).eval(), processor


def _differ(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@torch.no_grad()
def _logits(model: Llava, processor: Processor) -> torch.Tensor:
    """Ask about a picture of many colors, and answer: float [T, V] in fp32."""
    picture = PilImage.linear_gradient("L").resize((96, 64)).convert("RGB").rotate(30, fillcolor=(200, 40, 90))
    images = [picture] if processor.transform is not None else []
    asked = Conversation().ask("What is in the image? How many of them, and where?", images)
    example = processor.encode(asked.answer("There are two: a red circle at the left, and a large blue square."))
    patch_index, patch_weight = join_patches([example], processor.num_patches)
    device = model.device
    logits = model.logits(
        input_ids=example.input_ids[None].to(device),
        position_ids=torch.arange(len(example.input_ids), device=device)[None],
        pixel_values=example.pixel_values.to(device),
        patch_index=patch_index.to(device),
        patch_weight=None if patch_weight is None else patch_weight.to(device),
    )
    return logits[0].float().cpu()
