"""Stage zero, contrastive: teach a vision tower to see, by telling which caption belongs to which image (CLIP).

Most people start from a published tower and never need this. Everything learns; the result is a CLIP folder, whose
vision half is a vision tower for the next stages. One process: the loss compares all pairs of a step with each other.

    llava-lite train contrastive --config configs/demo/contrastive.yaml
"""

from pathlib import Path

import torch

from llava_lite import distributed
from llava_lite.checkpoint.folder import writing
from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.config import Strict
from llava_lite.data.captions import CaptionDataset, CaptionSteps
from llava_lite.data.loader import LoaderConfig, read_steps
from llava_lite.data.mixture import SourceConfig
from llava_lite.data.sampler import Order
from llava_lite.images.layout import OneTileMode
from llava_lite.images.transform import ImageTransform
from llava_lite.models.clip import load_clip
from llava_lite.models.language_model import load_tokenizer
from llava_lite.recipes import run
from llava_lite.training.config import RunConfig
from llava_lite.training.engine import PlainEngine
from llava_lite.training.loop import fit
from llava_lite.training.memory import checkpoint_layers
from llava_lite.training.resume import find_start, is_finished


class ModelConfig(Strict):
    """The towers to train."""

    clip: str
    """A CLIP folder or hub id: both towers, tokenizer and preprocessor_config.json."""
    image_mode: OneTileMode = "pad"
    """How a picture becomes a square: pad with the mean colour, crop, or resize (stretch)."""


class Config(RunConfig):
    """Stage zero."""

    model: ModelConfig
    data: SourceConfig
    loader: LoaderConfig = LoaderConfig()


def main(config: Config) -> None:
    """Train both towers, and write them to output_dir."""
    if distributed.world_size() > 1 or config.parallel.strategy != "ddp":
        raise CheckpointError(
            "contrastive training runs in one process; start it without torchrun, with parallel.strategy=ddp"
        )
    distributed.start()
    if is_finished(config):
        return distributed.logger.info("%s is finished; nothing to do", config.output_dir)
    start_from = find_start(config)

    torch.manual_seed(config.seed)
    model = load_clip(str(start_from or config.model.clip), dtype=distributed.dtype()).to(distributed.device())
    tokenizer = load_tokenizer(config.model.clip)
    checkpoint_layers(model, config.gradient_checkpointing)
    transform = ImageTransform.from_tower(config.model.clip, config.model.image_mode)

    dataset = CaptionDataset(config.data)
    order = Order(len(dataset), config.batch.samples, config.seed, config.epochs, config.max_steps)
    steps = CaptionSteps(dataset, order, transform, tokenizer)

    def save(folder: Path) -> None:
        with writing(folder) as new:
            model.model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            transform.save_tower(new)

    fit(
        PlainEngine(model, config.optim, num_steps=steps.num_steps),
        lambda first: read_steps(steps, first, config.loader),
        config,
        num_samples=len(dataset),
        data_hash=dataset.content_hash,
        save=lambda folder, _: save(folder),
        start_from=start_from,
    )


if __name__ == "__main__":
    run(main, Config)
