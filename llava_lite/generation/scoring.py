"""How likely a model holds answers that are given to it, all of them in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from llava_lite.example import IGNORE, Example, share_tiles
from llava_lite.generation.chat_model import Score
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor


@torch.no_grad()
def score_answers(model: Llava, processor: Processor, examples: Sequence[Example]) -> list[Score]:
    """Score the last answer of each Example, with which it ends.

    All but their last tokens are packed into one row, where each is a document of its own. Tiles that they share are
    seen once, and so are documents: those of options to choose from, if only their last tokens differ.
    """
    if not examples:
        return []
    documents, places = _documents(examples)
    lengths = [len(document.input_ids) for document in documents]
    starts = [0, *accumulate(lengths)]
    firsts = [int((example.labels == IGNORE).nonzero().max()) + 1 for example in examples]  # tokens of the answers
    before = [
        torch.arange(starts[place] + first, starts[place] + len(example.input_ids)) - 1
        for example, place, first in zip(examples, places, firsts, strict=True)
    ]
    tiles, patch_index, patch_weight = share_tiles(documents, processor.num_patches)
    device = model.device
    logits = model.logits(
        input_ids=torch.cat([document.input_ids for document in documents])[None].to(device),
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None].to(device),
        pixel_values=tiles.to(device),
        patch_index=patch_index.to(device),
        patch_weight=None if patch_weight is None else patch_weight.to(device),
        keep=torch.cat(before).to(device),
    )[0]  # [all answers' tokens, V]
    answers = [example.input_ids[first:] for example, first in zip(examples, firsts, strict=True)]
    log_probs = logits.float().log_softmax(-1).gather(1, torch.cat(answers)[:, None].to(device)).flatten().cpu()
    return [
        Score(tuple(str(processor.tokenizer.decode([token])) for token in answer.tolist()), tuple(part.tolist()))
        for answer, part in zip(answers, log_probs.split([len(answer) for answer in answers]), strict=True)
    ]


def _documents(examples: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """Cut off last tokens, which predict nothing, and return what is left, each once, and of each Example its place."""
    numbers: dict[tuple[int, bytes], int] = {}
    documents, places = list[Example](), list[int]()
    for example in examples:
        ids = example.input_ids[:-1]
        key = id(example.pixel_values), ids.numpy().tobytes()  # the same words about the same pictures
        if key not in numbers:
            numbers[key] = len(documents)
            documents.append(replace(example, input_ids=ids))
        places.append(numbers[key])
    return documents, places
