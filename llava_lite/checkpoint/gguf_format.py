"""Whole models as two files that llama.cpp reads: the language model with its tokenizer, and `mmproj`, the rest.

Weights are those of the model, renamed and rearranged as llama.cpp's own converter does it; each file is read back and
compared, tensor by tensor. What llama.cpp would compute otherwise is refused, with the reason. What no file can say,
and stays different there (tests/checkpoint/test_llama_cpp.py holds all else against llama.cpp itself):

- GELU, in projectors, in Gemma and in some towers, is the tanh approximation, on a CPU looked up in fp16 (1e-3);
- a picture is resized first and padded then (we: the other way), always to a square of CLIP's mean colour (122, 116,
  104), also for models of the image modes crop and resize: the same only for square pictures;
- a model with windows (Mistral 0.1, Phi-3) sees beyond them, so it is said to hold no more than the first;
- what spells a special token in people's words becomes that token; text is not brought to NFC (Qwen);
- of a tower with a class token (CLIP), llama.cpp since May 2025 gives each patch its neighbour's position, drops the
  first and takes the class token for the last (issue 25814, pull request 25844): a defect that it has to mend, by which
  answers suffer. The file is right; SigLIP towers are not affected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from llava_lite.checkpoint.gguf_language import describe_language, find_gguf_family, language_tensors
from llava_lite.checkpoint.gguf_tokenizer import describe_tokenizer
from llava_lite.checkpoint.gguf_vision import describe_vision, vision_tensors
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

GgufDtype = Literal["f32", "f16", "bf16"]


@dataclass(frozen=True)
class _File:
    """A file to be: `writer` holds its metadata; tensors: name in the file -> fp32 weights."""

    path: Path
    writer: GGUFWriter
    tensors: dict[str, torch.Tensor]


def write_gguf(folder: Path, model: Llava, processor: Processor, *, dtype: GgufDtype = "f16") -> list[Path]:
    """Write `model-<dtype>.gguf` and, for a model that sees, `mmproj-model-<dtype>.gguf`; return their paths.

    model: in fp32 and whole: any adapter merged, not quantised
    dtype: of the matrices; what llama.cpp wants in fp32 (norms, biases, positions) always is

    Raises CheckpointError for what llama.cpp cannot express (then nothing is written), for weights that dtype cannot
    hold, and where a file does not read back as it was written.
    """
    _need_gguf()
    files = [_language_file(folder / f"model-{dtype}.gguf", model, processor, dtype)]
    if model.vision_tower is not None:
        files.append(_vision_file(folder / f"mmproj-model-{dtype}.gguf", model, processor, dtype))
    for file in files:
        _write(file, dtype)
        _read_back(file, dtype)
    return [file.path for file in files]


def _need_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise CheckpointError("writing GGUF needs the package gguf: pip install 'llava-lite[gguf]'") from None


def _language_file(path: Path, model: Llava, processor: Processor, dtype: GgufDtype) -> _File:
    config = model.language_model.config
    writer = _start(find_gguf_family(config).arch, dtype)
    tensors = language_tensors(model.language_model)
    describe_language(writer, config)
    describe_tokenizer(writer, processor, num_rows=len(tensors["token_embd.weight"]))
    return _File(path, writer, tensors)


def _vision_file(path: Path, model: Llava, processor: Processor, dtype: GgufDtype) -> _File:
    writer = _start("clip", dtype)
    tensors = vision_tensors(model, processor)
    describe_vision(writer, model, processor)
    return _File(path, writer, tensors)


def _start(arch: str, dtype: GgufDtype) -> GGUFWriter:
    import gguf

    kinds = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    }
    writer = gguf.GGUFWriter(None, arch)
    writer.add_file_type(kinds[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return writer


def _write(file: _File, dtype: GgufDtype) -> None:
    """Write a file, one tensor at a time."""
    for name, weight in file.tensors.items():
        kind, data = _pack(name, weight, dtype)
        file.writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, raw_dtype=kind)
    file.writer.write_header_to_file(file.path)
    file.writer.write_kv_data_to_file()
    file.writer.write_ti_data_to_file()
    for name, weight in file.tensors.items():
        file.writer.write_tensor_data(_pack(name, weight, dtype)[1])
    file.writer.close()


def _pack(name: str, weight: torch.Tensor, dtype: GgufDtype) -> tuple[GGMLQuantizationType, np.ndarray]:
    """Return how a tensor is stored, by the rules of llama.cpp's converter, and its numbers or, of bf16, bytes."""
    import gguf

    kind = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "bf16": gguf.GGMLQuantizationType.BF16,
    }[dtype]
    plain = weight.ndim == 1 or name.endswith("_norm.weight") or name == "v.position_embd.weight"
    if plain or (name == "v.patch_embd.weight" and dtype == "bf16"):  # convolutions are of fp16 or fp32
        kind = gguf.GGMLQuantizationType.F32
    with np.errstate(over="ignore"):
        data = gguf.quants.quantize(weight.contiguous().cpu().numpy(), kind)
    if kind == gguf.GGMLQuantizationType.F16 and not np.isfinite(data).all():
        raise CheckpointError(f"GGUF: {name} has weights that fp16 does not hold; choose bf16 or f32")
    return kind, data


def _read_back(file: _File, dtype: GgufDtype) -> None:
    """Raise CheckpointError unless a file holds just the tensors that were to be written."""
    import gguf

    read = {tensor.name: tensor for tensor in gguf.GGUFReader(file.path).tensors}
    if read.keys() != file.tensors.keys():
        raise CheckpointError(f"{file.path}: has other tensors than were written: {read.keys() ^ file.tensors.keys()}")
    for name, weight in file.tensors.items():
        kind, data = _pack(name, weight, dtype)
        tensor = read[name]
        same_shape = tuple(reversed(tensor.shape.tolist())) == tuple(weight.shape)
        if tensor.tensor_type != kind or not same_shape or not np.array_equal(tensor.data, data):
            raise CheckpointError(f"{file.path}: {name} is not what was written; is the disk full, or failing?")
