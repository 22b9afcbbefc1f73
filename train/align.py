"""Stage one, align: teach the projector to say an image in the language model's words, on caption pairs.

Vision tower and language model are frozen; only the projector learns. LLaVA-1.5: 558K captions, one epoch, 256 samples
a step, learning rate 1e-3. The prompt is the image alone, the answer its caption (template `plain`).

    llava-lite train align --config configs/demo/align.yaml
    python train/align.py --config configs/llava-1.5-7b/align.yaml data.path=blip_laion_cc_sbu_558k.json
    torchrun --nproc-per-node 8 train/align.py --config configs/llava-1.5-7b/align.yaml
"""

from functools import partial

import torch

from llava_lite import distributed
from llava_lite.checkpoint.folder import load
from llava_lite.checkpoint.parts import Parts, assemble, make_processor
from llava_lite.config import Strict
from llava_lite.conversation.families import find_template
from llava_lite.images.layout import ImageMode
from llava_lite.processor import Processor
from llava_lite.recipes import run
from llava_lite.stage import StageConfig, dry_run, train
from llava_lite.training.resume import find_start, is_finished


class ModelConfig(Strict):
    """The parts to join, each a folder or a hub id."""

    vision_tower: str
    """A CLIP, SigLIP or DINOv2 vision tower."""
    language_model: str
    """A causal language model."""
    projector: str = "mlp2x_gelu"
    """linear, mlp<N>x_gelu, shuffle<S>_mlp<N>x_gelu or pool<S>_mlp<N>x_gelu (S x S patches to one token)."""
    vision_feature_layer: int = -2
    """Which hidden state of the tower is projected; the layers above it are not run."""
    image_mode: ImageMode = "crop"
    """How a picture becomes tiles: crop (as the original in this stage), pad, resize, anyres or anyres_max_<N>."""
    template: str | None = None
    """Chat template for asking the result, by its name; `tokenizer`: the one that the language model's tokenizer
    brings. By default the one of the language model's family."""


class Config(StageConfig):
    """Stage one."""

    model: ModelConfig


def open_processor(config: Config) -> Processor:
    """Open what makes tensors of this stage's data, without weights, for `llava-lite inspect`."""
    return as_captions(make_processor(Parts(**config.model.model_dump())))


def as_captions(processor: Processor) -> Processor:
    """Write the image and its caption alone; the result is asked with the template that the processor had."""
    return processor.with_template(find_template("plain"))


def main(config: Config) -> None:
    """Align, and write the projector to output_dir."""
    distributed.start(alone=config.parallel.strategy != "ddp", deterministic=config.deterministic)
    if is_finished(config):
        return distributed.logger.info("%s is finished; nothing to do", config.output_dir)
    start_from = find_start(config)

    parts = Parts(**config.model.model_dump())
    torch.manual_seed(config.seed)
    if start_from is None:
        model, processor = assemble(parts, dtype=distributed.dtype())
    else:
        model, processor = load(start_from, dtype=distributed.dtype())
    model.to(distributed.device()).train_only(["projector"])

    train(model, as_captions(processor), config, asked=processor, parts=parts, start_from=start_from)


if __name__ == "__main__":
    run(main, Config, partial(dry_run, main))
