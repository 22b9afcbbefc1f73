"""How much a stage learns from: measured on the data where it is, else what is known of LLaVA's own, else as told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llava_lite.budget.hardware import BudgetError
from llava_lite.budget.stages import Stage
from llava_lite.data.dataset import longest_sample
from llava_lite.data.mixture import DataConfig, Mixture, list_sources
from llava_lite.processor import Processor

SAMPLED = 256


@dataclass(frozen=True)
class Workload:
    """num_samples: of an epoch; the rest are means over samples.

    tokens, visual, learnt: all, those of images, those with a target; tiles: what the tower sees
    most_learnt: the largest share of a row that can have a target
    told:        where this is from, in a line
    """

    num_samples: int
    tokens: float
    visual: float
    learnt: float
    tiles: float
    most_learnt: float
    told: str


@dataclass(frozen=True)
class _Known:
    """text, learnt: tokens a sample; images a sample; most_learnt: as Workload's, text of images apart."""

    num_samples: int
    text: float
    images: float
    learnt: float
    text_alone: bool = False


# By the name of the file that LLaVA published. Counts are exact; tokens are estimates, within about a fifth.
_KNOWN = {
    "blip_laion_cc_sbu_558k.json": _Known(558_128, 24, 1, 20),
    "chat.json": _Known(595_375, 24, 1, 20),  # LLaVA-CC3M-Pretrain-595K
    "llava_v1_5_mix665k.json": _Known(665_298, 307, 0.939, 150, text_alone=True),
    "llava_instruct_80k.json": _Known(80_000, 270, 1, 150),
    "llava_instruct_150k.json": _Known(157_712, 270, 1, 150),
    "llava_instruct_158k.json": _Known(157_712, 270, 1, 150),
}


def find_workload(stage: Stage, *, num_samples: int | None = None, tokens_per_sample: int | None = None) -> Workload:
    """Measure, or look up, what a stage learns from; what is given goes before. Raises BudgetError."""
    data = DataConfig(**stage.settings["data"])
    picture = stage.shape.picture()
    visual, tiles = (len(picture.index), picture.num_tiles) if picture else (0, 0)
    found: Workload | None = None
    if not (num_samples and tokens_per_sample) and _is_here(data):
        found = _measure(stage, data, visual, tiles)
    elif data.path is not None and data.path.name in _KNOWN:
        known = _KNOWN[data.path.name]
        tokens = known.text + known.images * visual
        found = Workload(
            num_samples=known.num_samples,
            tokens=tokens,
            visual=known.images * visual,
            learnt=known.learnt,
            tiles=known.images * tiles,
            most_learnt=1.0 if known.text_alone else min(1.0, 2 * known.text / (2 * known.text + visual)),
            told=f"assumed of {data.path.name}, which is not here: {known.num_samples:,} samples; images "
            f"{known.images:g}, tokens of text about {known.text:g} a sample, {known.learnt:g} of them learnt",
        )
    if num_samples or tokens_per_sample:
        found = _as_given(stage, found, num_samples, tokens_per_sample, visual, tiles)
    if found is None:
        where = data.path or ", ".join(str(source.path) for source in list_sources(data))
        raise BudgetError(
            f"{stage.name}: {where} is not here, and nothing is known of it; set data.path, or say how much it is: "
            "--samples N --tokens-per-sample N (its images' tokens counted)"
        )
    return found


def _is_here(data: DataConfig) -> bool:
    if data.path is not None and not data.path.exists():
        return False
    return all(source.path.exists() for source in list_sources(data))


def _measure(stage: Stage, data: DataConfig, visual: int, tiles: int) -> Workload | None:
    """Look at some records, evenly spread; None where there is no tokenizer to count them with."""
    try:
        processor: Processor = stage.module.open_processor(stage.config)
    except ValueError:
        return None
    mixture = Mixture(data)
    limit = longest_sample(data, processor, row_tokens=stage.config.batch.tokens)
    places = np.unique(np.linspace(0, len(mixture) - 1, min(len(mixture), SAMPLED)).astype(int))
    lengths, learnt, images = [], [], []
    for entry in places.tolist():
        try:
            conversation = mixture.sample(entry).conversation
            length, targets = processor.length(conversation, limit)
        except ValueError:
            continue
        lengths.append(length)
        learnt.append(targets)
        images.append(sum(not isinstance(part, str) for m in conversation.messages for part in m.content))
    if not lengths:
        raise BudgetError(f"{stage.name}: none of {len(places)} records can be used; llava-lite doctor says why")
    missed = f" ({len(places) - len(lengths)} of them cannot be used)" if len(lengths) < len(places) else ""
    return Workload(
        num_samples=len(mixture),
        tokens=float(np.mean(lengths)),
        visual=float(np.mean(images)) * visual,
        learnt=float(np.mean(learnt)),
        tiles=float(np.mean(images)) * tiles,
        most_learnt=float(np.max(np.array(learnt) / np.array(lengths))),
        told=f"measured on {len(places)} of {len(mixture):,} records{missed}: images {np.mean(images):.2f}, "
        f"tokens {np.mean(lengths):.0f} a sample, {np.mean(learnt):.0f} of them learnt",
    )


def _as_given(
    stage: Stage, found: Workload | None, num_samples: int | None, tokens: int | None, visual: int, tiles: int
) -> Workload | None:
    """Put what the user says in the place of what was found; without that, each sample is taken to have an image."""
    num_samples = num_samples or (found.num_samples if found else None)
    if num_samples is None or (tokens is None and found is None):
        return None
    num_visual = found.visual if found else visual
    total = tokens or (found.tokens if found else 0)
    text = total - num_visual
    if text < 2:
        raise BudgetError(
            f"{stage.name}: --tokens-per-sample {tokens}: an image alone takes {num_visual:.0f} of them here; give more"
        )
    learnt = found.learnt / (found.tokens - found.visual) * text if found else text / 2
    return Workload(
        num_samples=num_samples,
        tokens=total,
        visual=num_visual,
        learnt=learnt,
        tiles=found.tiles if found else tiles,
        most_learnt=found.most_learnt if found else 1.0,
        told=f"as given: {num_samples:,} samples of {total:.0f} tokens, {num_visual:.0f} of them images'; "
        f"{learnt:.0f} are taken to be learnt",
    )
