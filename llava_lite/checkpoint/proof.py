"""A checkpoint made of another one is kept only if it computes the same: a new folder, and the probe it must pass."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image as PilImage

from llava_lite import distributed
from llava_lite.checkpoint.folder import Template, load
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.conversation.message import Conversation
from llava_lite.example import Example, join_patches
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# How far a logit may move, seen from the largest one: by what weights lose when they are rounded to a dtype.
MAY_DIFFER: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to work in, beside `out`; what is then in its `whole` becomes `out`, and the rest goes.

    Raises CheckpointError where `out` holds something. Where the work fails, nothing is left behind.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: is there already; remove it or name another folder")
    existing = next(parent for parent in out.absolute().parents if parent.is_dir())
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=existing))
    try:
        yield work
        out.parent.mkdir(parents=True, exist_ok=True)
        (work / "whole").replace(out)
    finally:
        shutil.rmtree(work)


def open_ready(
    folder: str | Path, dtype: torch.dtype, *, as_trained: bool = True, template: Template = None
) -> tuple[Llava, Processor]:
    """Load a checkpoint onto the device; not as_trained: its language model whole, however it was held."""
    model, processor = load(folder, dtype=dtype, quantize="recorded" if as_trained else None, template=template)
    return model.to(distributed.device()).eval(), processor


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def probe(processor: Processor) -> Example:
    """Ask about a picture of many colors, and answer."""
    picture = PilImage.linear_gradient("L").resize((96, 64)).convert("RGB").rotate(30, fillcolor=(200, 40, 90))
    images = [picture] if processor.transform is not None else []
    asked = Conversation().ask("What is in the image? How many of them, and where?", images)
    return processor.encode(asked.answer("There are two: a red circle at the left, and a large blue square."))


@torch.no_grad()
def logits_of(model: Llava, processor: Processor) -> torch.Tensor:
    """Return the logits of the probe: float [T, V] in fp32."""
    example = probe(processor)
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
