"""Stage two, finetune: teach projector and language model, end to end, to follow visual instructions.

The vision tower stays frozen. LLaVA-1.5: 665K conversations, one epoch, 128 samples a step, learning rate 2e-5. With
`train: [language_model]` and no vision tower, the same recipe trains a language model on text alone. With `lora` the
language model learns an adapter, which is what is written; `llava-lite merge` makes it whole.

    llava-lite train finetune --config configs/demo/finetune.yaml
    llava-lite train finetune --config configs/demo-lora/finetune.yaml
    python train/finetune.py --config configs/llava-1.5-7b/finetune.yaml model.checkpoint=runs/llava-1.5-7b/align
    torchrun --nproc-per-node 8 train/finetune.py --config configs/llava-1.5-7b/finetune.yaml
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from llava_lite import distributed
from llava_lite.checkpoint.folder import base_of, holds_adapter, holds_projector_alone, load, load_processor
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble, fit_newline, make_processor
from llava_lite.config import Strict
from llava_lite.images.layout import ImageMode
from llava_lite.models.adapter import Lora, Quantize
from llava_lite.models.llava import Llava, Part
from llava_lite.processor import Processor
from llava_lite.recipes import run
from llava_lite.stage import StageConfig, dry_run, train
from llava_lite.training.resume import find_start, is_finished


class ModelConfig(Strict):
    """What to start from: a checkpoint, or parts with a new projector."""

    checkpoint: str | None = None
    """An align result or any other checkpoint folder."""
    vision_tower: str | None = None
    """Without a checkpoint: a CLIP, SigLIP or DINOv2 tower; none for text alone. With one: where its tower is now."""
    language_model: str | None = None
    """Without a checkpoint: a causal language model. With one: where its language model is now."""
    projector: str = "mlp2x_gelu"
    """Without a checkpoint: linear, mlp<N>x_gelu, shuffle<S>_mlp<N>x_gelu or pool<S>_mlp<N>x_gelu."""
    vision_feature_layer: int = -2
    """Without a checkpoint: which hidden state of the tower is projected."""
    image_mode: ImageMode | None = None
    """How a picture becomes tiles: pad with the mean colour, crop, resize, anyres or anyres_max_<N>. By default that of
    a finetuned checkpoint; pad after align and for new parts."""
    template: str | None = None
    """Chat template to train, by its name; `tokenizer`: the one that the language model's tokenizer brings. By default
    the checkpoint's, or that of the language model's family."""
    quantize: Quantize | None = None
    """Hold the language model's blocks in 4bit (NF4, QLoRA) or 8bit while `lora` learns beside them."""


class LoraConfig(Strict):
    """Low-rank adapters beside the language model's matrices, which then stay as they are (values of LLaVA-1.5)."""

    rank: int = 128
    """Rank of what is added to each matrix."""
    alpha: int = 256
    """What is added is scaled by alpha / rank."""
    dropout: float = 0.05
    """Share of an adapter's inputs that is dropped while it learns."""
    targets: tuple[str, ...] | None = None
    """Last names of the linear layers that get one, such as q_proj; by default all in the language model's blocks."""


class Config(StageConfig):
    """Stage two."""

    train: tuple[Part, ...] = ("projector", "language_model")
    """The parts that learn."""
    vision_layers: int | None = None
    """Where the vision tower learns: only its last so many layers."""
    lora: LoraConfig | None = None
    """Train adapters in place of the language model's own weights; the projector learns whole beside them."""
    model: ModelConfig


def start_model(config: ModelConfig) -> tuple[Llava, Processor]:
    """Open the checkpoint, or join the parts."""
    dtype = distributed.dtype()
    if config.checkpoint is None:
        return assemble(list_parts(config), dtype=dtype, quantize=config.quantize)
    if holds_adapter(config.checkpoint):
        raise CheckpointError(f"{config.checkpoint}: an adapter; make it whole first, with llava-lite merge")
    model, processor = load(
        config.checkpoint, dtype=dtype, quantize=config.quantize, template=config.template, **find_again(config)
    )
    processor = adapt(processor, config)
    fit_newline(model, processor)
    return model, processor


def open_processor(config: Config) -> Processor:
    """Open what makes tensors of this stage's data, without weights, for `llava-lite inspect`."""
    start = config.model
    if start.checkpoint is None:
        return make_processor(list_parts(start))
    return adapt(load_processor(start.checkpoint, template=start.template, **find_again(start)), start)


def list_parts(config: ModelConfig) -> Parts:
    if config.language_model is None:
        raise CheckpointError("nothing to start from; set model.checkpoint or model.language_model")
    return Parts(
        **config.model_dump(exclude={"checkpoint", "image_mode", "quantize"}), image_mode=config.image_mode or "pad"
    )


def find_again(config: ModelConfig) -> dict[str, str | None]:
    return {"vision_tower": config.vision_tower, "language_model": config.language_model}


def adapt(processor: Processor, config: ModelConfig) -> Processor:
    """Give a checkpoint's processor the image mode of this stage."""
    if config.image_mode or holds_projector_alone(str(config.checkpoint)):
        processor = processor.with_image_mode(config.image_mode or "pad")
    return processor


def find_lora(config: Config) -> Lora | None:
    """Return the adapter that is asked for; say what contradicts it."""
    if config.lora is None:
        if config.model.quantize:
            raise CheckpointError("model.quantize: weights of few bits do not learn; set lora too, or leave it out")
        return None
    if config.model.quantize and config.parallel.strategy in ("zero3", "fsdp2"):
        raise CheckpointError(
            "model.quantize: weights of few bits cannot be shared out; set parallel.strategy=ddp or zero2"
        )
    if "language_model" not in config.train or "vision_tower" in config.train:
        raise CheckpointError("lora: trains the language model, not the vision tower; train=[projector,language_model]")
    return Lora(**config.lora.model_dump())


def find_base(config: ModelConfig, start_from: Path | None) -> Parts | str:
    """Return what an adapter stands beside: what it stood beside, or what it starts from."""
    if start_from is not None:
        return base_of(start_from)
    return list_parts(config) if config.checkpoint is None else base_of(config.checkpoint, **find_again(config))


def check_adapter(model: Llava, lora: Lora | None, quantize: Quantize | None) -> None:
    """Raise CheckpointError where a run that goes on has another adapter than is asked for."""
    if lora and model.lora and lora.targets is None:
        lora = replace(lora, targets=model.lora.targets)
    if (model.lora, model.quantize) != (lora, quantize):
        raise CheckpointError(
            f"the run was started with {model.lora}, quantize {model.quantize}, and not with {lora}, quantize "
            f"{quantize}; set it back, or overwrite=true"
        )


def main(config: Config) -> None:
    """Finetune, and write the whole model to output_dir, or the adapter and the projector."""
    distributed.start(alone=config.parallel.strategy != "ddp", deterministic=config.deterministic)
    if is_finished(config):
        return distributed.logger.info("%s is finished; nothing to do", config.output_dir)
    lora = find_lora(config)
    start_from = find_start(config)

    torch.manual_seed(config.seed)
    if start_from is None:
        model, processor = start_model(config.model)
        if lora is not None:
            model.add_lora(lora)
    else:
        model, processor = load(start_from, dtype=distributed.dtype())
        check_adapter(model, lora, config.model.quantize)
    parts = find_base(config.model, start_from) if lora else None
    model.to(distributed.device()).train_only(config.train, vision_layers=config.vision_layers)

    train(model, processor, config, parts=parts, start_from=start_from)


if __name__ == "__main__":
    run(main, Config, partial(dry_run, main))
