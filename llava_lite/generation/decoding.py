"""Answers that are made together, one token each at every step; any may join, and leave, at any step.

cache     [ . . p p p p a a ]      rows are padded on the left: the newest tokens stand below each other,
          [ p p p p p a a a ]      so that a step adds one column
          [ . . . . p p p a ]  <-  a new row is computed alone and then laid beside the others
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    Cache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llava_lite import distributed
from llava_lite.example import Example, share_tiles
from llava_lite.generation.cache import Rows, lay_beside, new_cache, take_rows
from llava_lite.generation.chat_model import Finish, Sampling
from llava_lite.generation.kept import Conversations
from llava_lite.generation.streaming import Transcript
from llava_lite.models.llava import Llava


class Row:
    """One answer under way: what was asked, the tokens and the text so far.

    fingerprint: of the prompt, as `kept.fingerprint` gives it
    limit:       the most tokens the answer may have
    transcript:  what makes text of them
    watched:     whether somebody reads along, so that there is a `piece` after each step
    reason:      how it ended; None while it is under way
    """

    def __init__(
        self,
        example: Example,
        fingerprint: np.ndarray,
        sampling: Sampling,
        transcript: Transcript,
        *,
        limit: int,
        num_dropped_turns: int = 0,
        watched: bool = False,
    ) -> None:
        self.example = example
        self.fingerprint = fingerprint
        self.limit = limit
        self.ids: list[int] = []
        self.piece = ""
        self.reason: Literal["stop", "length", "cancelled"] | None = None
        self.num_reused_tokens = 0
        self._transcript = transcript
        self._watched = watched or bool(transcript.ends)
        self._num_dropped_turns = num_dropped_turns
        self._sampling = sampling
        self._processors = _processors(sampling)
        self._generator: torch.Generator | None = None

    @property
    def text(self) -> str:
        return self._transcript.text

    @property
    def is_plain(self) -> bool:
        """Whether it just takes the likeliest token."""
        return not self._processors

    @property
    def finish(self) -> Finish:
        assert self.reason is not None
        return Finish(
            self.reason, len(self.fingerprint), len(self.ids), self.num_reused_tokens, self._num_dropped_turns
        )

    def draw(self, logits: torch.Tensor) -> int:
        """Choose the next token; logits: float [1, V]. The random numbers are the row's own."""
        seen: Any = torch.cat([self.example.input_ids, torch.tensor(self.ids, dtype=torch.long)])[None]
        logits = self._processors(seen.to(logits.device), logits.float())
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        if self._generator is None:
            self._generator = torch.Generator(logits.device).manual_seed(self._sampling.seed)
        return int(torch.multinomial(logits.softmax(-1), 1, generator=self._generator))

    def take(self, token: int, *, ends: bool) -> None:
        """Add the next token, and what of the text is settled by it. ends: whether it ends an answer."""
        if self.reason is not None:  # goes on in step with other processes
            return
        self.ids.append(token)
        last = ends or len(self.ids) == self.limit
        self.piece = self._transcript.read(self.ids, last=last) if self._watched or last else ""
        if ends or self._transcript.ended:
            self.reason = "stop"
        elif last:
            self.reason = "length"

    def cancel(self) -> None:
        self.reason = self.reason or "cancelled"


def _processors(sampling: Sampling) -> LogitsProcessorList:
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature > 0:
        steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(sampling.top_p))
    return steps


class Decoder:
    """Rows under way on one model.

    ends: tokens that end an answer; never: tokens that are not generated; num_patches: P' of a tile
    conversations: where what was computed is looked for and kept for a next turn; None: nowhere
    in_step: rows stay, and `release` says true, until those of all processes are done
    """

    def __init__(
        self,
        model: Llava,
        *,
        ends: Sequence[int],
        never: Sequence[int],
        num_patches: int,
        conversations: Conversations | None = None,
        in_step: bool = False,
    ) -> None:
        self.model = model
        self.ends = frozenset(ends)
        self.never = list(never)
        self.num_patches = num_patches
        self.conversations = conversations
        self.in_step = in_step
        self.rows: list[Row] = []
        self._cache = new_cache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)  # [B, L], 1 where a token stands

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of new rows, all that is new of them, and give each its first token."""
        known = [self.conversations.find(row.fingerprint) if self.conversations else None for row in rows]
        fresh = [row for row, kept in zip(rows, known, strict=True) if kept is None]
        groups: list[tuple[list[Row], Rows | None]] = [(fresh, None)] if fresh else []
        groups += [([row], kept) for row, kept in zip(rows, known, strict=True) if kept is not None]
        for group, kept in groups:
            cache, mask = kept if kept else (new_cache(), self._mask.new_zeros(len(group), 0))
            for row in group:
                row.num_reused_tokens = mask.shape[1]
            mask, logits = self._read(group, cache, mask)
            self._take(group, logits)
            beside = [(self._cache, self._mask)] if self.rows else []
            self._cache, self._mask = lay_beside([*beside, (cache, mask)])
            self.rows += group

    def step(self) -> None:
        """Give every row its next token."""
        last = torch.tensor([row.ids[-1:] for row in self.rows], device=self.model.device)
        position_ids = self._mask.sum(1, keepdim=True)
        self._mask = F.pad(self._mask, (0, 1), value=1)
        logits = self.model.extend(
            input_ids=last,
            attention_mask=self._mask,
            position_ids=position_ids,
            cache=self._cache,
        )
        self._take(self.rows, logits)

    def release(self) -> bool:
        """Let go the rows that have ended; return whether any is still under way."""
        under_way = [i for i, row in enumerate(self.rows) if row.reason is None]
        if self.in_step:
            return bool(distributed.all_sum(torch.tensor(len(under_way), device=self.model.device)))
        if len(under_way) < len(self.rows):
            for i, row in enumerate(self.rows):
                if row.reason is not None and self.conversations is not None:
                    self.conversations.keep(row.fingerprint, row.ids, take_rows(self._cache, self._mask, [i])[0])
            self.rows = [self.rows[i] for i in under_way]
            self._cache, self._mask = take_rows(self._cache, self._mask, under_way)
        return bool(under_way)

    def _read(self, rows: Sequence[Row], cache: Cache, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add to a cache what it lacks of prompts; return the mask [B, L] and the logits [B, V] behind each."""
        known = mask.shape[1]
        examples = [_after(row.example, known, self.model.image_token_id) for row in rows]
        width = max(len(example.input_ids) for example in examples)
        input_ids = torch.zeros(len(rows), width, dtype=torch.long)
        new = torch.zeros_like(input_ids)
        for i, example in enumerate(examples):
            input_ids[i, width - len(example.input_ids) :] = example.input_ids
            new[i, width - len(example.input_ids) :] = 1
        tiles, patch_index, patch_weight = share_tiles(examples, self.num_patches)
        if self.in_step and not len(tiles):  # all processes run the tower
            tiles = tiles.new_zeros(1, *tiles.shape[1:])
        device = self.model.device
        mask = torch.cat([mask, new.to(device)], dim=1)
        logits = self.model.extend(
            input_ids=input_ids.to(device),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, known:],
            cache=cache,
            pixel_values=tiles.to(device),
            patch_index=patch_index.to(device),
            patch_weight=None if patch_weight is None else patch_weight.to(device),
        )
        return mask, logits

    def _take(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Give each row its next token; logits: float [B, V]."""
        logits[:, self.never] = -torch.inf
        if all(row.is_plain for row in rows):
            tokens = logits.argmax(-1).tolist()
        else:
            tokens = [row.draw(logits[i : i + 1]) for i, row in enumerate(rows)]
        for row, token in zip(rows, tokens, strict=True):
            row.take(token, ends=token in self.ends)


def _after(example: Example, num_tokens: int, image_token_id: int) -> Example:
    """Leave out the first tokens of an Example."""
    if num_tokens == 0:
        return example
    num_visual = int((example.input_ids[:num_tokens] == image_token_id).sum())
    return replace(
        example,
        input_ids=example.input_ids[num_tokens:],
        patch_index=example.patch_index[num_visual:],
        patch_weight=None if example.patch_weight is None else example.patch_weight[num_visual:],
    )
