"""How likely a model holds answers that are given to it, all of them in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llava_lite.example import IGNORE, Example, share_tiles
from llava_lite.generation.chat_model import Score
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor


@torch.no_grad()
def score_answers(model: Llava, processor: Processor, examples: Sequence[Example]) -> list[Score]:
    """Score the last answer of each Example, with which it ends.

    They are packed into one row, where each is a document of its own; tiles that they share are seen once.
    """
    lengths = [len(example.input_ids) for example in examples]
    firsts = [int((example.labels == IGNORE).nonzero().max()) + 1 for example in examples]  # tokens of the answers
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    before = [
        torch.arange(start + first, start + length) - 1
        for start, first, length in zip(starts, firsts, lengths, strict=True)
    ]
    tiles, patch_index, patch_weight = share_tiles(examples, processor.num_patches)
    device = model.device
    logits = model.logits(
        input_ids=torch.cat([example.input_ids for example in examples])[None].to(device),
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
