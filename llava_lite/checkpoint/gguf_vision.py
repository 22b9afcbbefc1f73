"""Vision tower and projector in llama.cpp's words: the `mmproj` file, of what it calls the projector type `mlp`.

llama.cpp runs a tower up to a `feature_layer`: here the last, as the layers above the selected one are not kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from llava_lite.checkpoint.gguf_language import find_gguf_family
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.checkpoint.transformers_format import native_names
from llava_lite.images.layout import is_anyres
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor

if TYPE_CHECKING:
    from gguf import GGUFWriter

# By the tower's `hidden_act`: whether llama.cpp's `use_gelu` says it; it has no exact GELU, but the tanh approximation.
_USES_GELU = {"quick_gelu": False, "gelu": True, "gelu_pytorch_tanh": True}
_UNUSED = (
    "vision_tower.vision_model.post_layernorm."  # kept by a tower, but no feature comes from it; llama.cpp uses it
)


def _refuse(model: Llava, processor: Processor) -> None:
    """Raise CheckpointError for what llama.cpp cannot run as it is."""
    tower, projector = model.vision_tower, model.projector
    assert tower is not None and projector is not None and processor.transform is not None
    config = tower.model.config
    problem = None
    if config.model_type not in ("clip_vision_model", "siglip_vision_model"):
        problem = f"its LLaVA path knows CLIP and SigLIP towers, not {config.model_type} (no scales of layers)"
    elif config.hidden_act not in _USES_GELU:
        problem = f"it has no activation {config.hidden_act} in a tower; it has {', '.join(_USES_GELU)}"
    elif config.intermediate_size == config.hidden_size:
        problem = (
            "it takes the MLP of a tower for one of an old file, both matrices swapped, where both sizes are equal"
        )
    elif projector.kind == "linear" or projector.kind == "mlp1x_gelu":
        problem = f"it puts a GELU behind the only layer of projector {projector.kind!r}; it runs mlp2x_gelu"
    elif projector.kind != "mlp2x_gelu":
        problem = f"its LLaVA path has no projector {projector.kind!r}; it runs mlp2x_gelu"
    elif is_anyres(processor.transform.mode):
        problem = (
            f"it lays the tiles of image mode {processor.transform.mode} out in another order, with their padding and "
            "without the newline that ends rows; it runs models trained in mode pad"
        )
    if problem:
        raise CheckpointError(f"GGUF: llama.cpp cannot run this model as it is: {problem}")


def vision_tensors(model: Llava, processor: Processor) -> dict[str, torch.Tensor]:
    """Return the weights of tower and projector under llama.cpp's names. Raises CheckpointError."""
    import gguf

    _refuse(model, processor)
    assert model.vision_tower is not None and model.projector is not None
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, model.vision_tower.model.config.num_hidden_layers)
    ours = model.state_dict()
    tensors = {}
    for name, published in native_names(model).items():
        if not name.startswith("vision_tower.") or published.startswith(_UNUSED):
            continue
        new_name = names.get_name(published, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise CheckpointError(f"GGUF: llama.cpp has no place for the weight {name}")
        tensors[new_name] = ours[name].float()
    scale = _patch_scale(model)
    for name, weight in model.projector.state_dict().items():
        tensors[f"mm.{name}"] = weight.float() / (scale if name.startswith("2.") else 1)
    return tensors


def _patch_scale(model: Llava) -> float:
    """Return what llama.cpp multiplies patches by before its first layer; ours enter as the projector makes them."""
    config = model.language_model.config
    return math.sqrt(config.hidden_size) if find_gguf_family(config).scales_patches else 1.0


def describe_vision(writer: GGUFWriter, model: Llava, processor: Processor) -> None:
    """Write the numbers of tower, projector and pictures."""
    assert model.vision_tower is not None and processor.transform is not None
    config = model.vision_tower.model.config
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(model.language_model.config.hidden_size)
    writer.add_vision_image_size(processor.transform.size)
    writer.add_vision_patch_size(config.patch_size)
    writer.add_vision_embedding_length(config.hidden_size)
    writer.add_vision_feed_forward_length(config.intermediate_size)
    writer.add_vision_block_count(config.num_hidden_layers)
    writer.add_vision_head_count(config.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(config.layer_norm_eps)
    writer.add_vision_use_gelu(_USES_GELU[config.hidden_act])
    writer.add_array("clip.vision.feature_layer", [config.num_hidden_layers])  # else it leaves out the last block
    writer.add_vision_image_mean(list(processor.transform.tower.mean))
    writer.add_vision_image_std(list(processor.transform.tower.std))
