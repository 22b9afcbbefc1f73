"""An adapter and its base made one whole checkpoint, which is proven to compute the same before it is there."""

from __future__ import annotations

from pathlib import Path

from llava_lite import distributed
from llava_lite.checkpoint.folder import holds_adapter, save
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.checkpoint.proof import DTYPES, MAY_DIFFER, differ, logits_of, new_folder, open_ready

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
    kind = DTYPES[dtype] if dtype else distributed.dtype()
    with new_folder(out) as new:
        model, processor = open_ready(folder, kind)
        quantize, trained = model.quantize, logits_of(model, processor)
        beside = trained
        if quantize and into == "original":
            del model
            model, processor = open_ready(folder, kind, as_trained=False)
            beside = logits_of(model, processor)
        model.merge_lora()
        save(new / "whole", model, processor)
        del model
        merged = logits_of(*open_ready(new / "whole", kind))
        difference, largest = differ(merged, beside), float(beside.abs().max())
        allowed = _INT8 if quantize == "8bit" and into == "dequantized" else MAY_DIFFER[kind]
        if not difference <= allowed * largest:
            raise CheckpointError(
                f"{folder}: merged, its logits differ by {difference:.2g} (the largest is {largest:.3g}), which is "
                f"more than rounding to {str(kind).removeprefix('torch.')} explains; nothing was written"
            )
    told = f"{out}: merged; logits differ from the adapter's by at most {difference:.2g} (the largest is {largest:.3g})"
    if quantize and into == "original":
        told += f"\nfrom those beside the {quantize} base, as it was trained, by {differ(merged, trained):.2g}"
    return told
