"""How the documents of a packed row keep apart: each attends to itself alone, and no mask of the whole row is built.

    row       [ a a a a | b b | c c c c c ]      one row, several documents
    positions   0 1 2 3   0 1   0 1 2 3 4        restart with each document

transformers knows packed rows by restarting positions, but builds a dense T x T mask for them. Here each document goes
through attention on its own, which costs the sum of squares instead of the square of the sum. What else a family's own
attention does is done here too, or refused: sliding windows, soft-capped scores, grouped heads, its own scale.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PER_DOCUMENT = "llava_lite_per_document"

# What language models hand on to their attention that does not change what it computes.
_SAYS_NOTHING = frozenset({"position_ids", "use_cache"})


def document_bounds(position_ids: torch.Tensor) -> torch.Tensor:
    """Return where the documents of a packed row start, and where the last one ends: long [documents + 1], on the CPU.

    A tensor, because to compiled layers numbers of a list are a part of the program.

    position_ids: long [1, T], zero where a document starts
    """
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    return torch.tensor([*starts, position_ids.shape[1]])


@torch.compiler.disable  # compiled layers call it as it is: it has other shapes for each document
def attend_per_document(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    documents: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query, key, value: [B, heads, T, size] -> [B, T, heads, size].

    documents:      their bounds, as `document_bounds` gives them, for one packed row; None: every row is one document
    attention_mask: bool [B, 1, T, T'], all that a token may see; None: what is before it, within the window
    sliding_window: how many tokens a token sees at most, itself included; None: all
    softcap:        scores become softcap * tanh(scores / softcap) (Gemma 2)

    Raises RuntimeError for packed documents beside a mask or cache, for attention that looks ahead, and for a setting
    that is not known here.
    """
    if unknown := sorted(name for name, v in others.items() if v is not None and name not in _SAYS_NOTHING):
        raise RuntimeError(f"{type(module).__name__} asks for attention with {', '.join(unknown)}, which is not known")
    if not module.is_causal:
        raise RuntimeError(f"{type(module).__name__} looks ahead (use_bidirectional_attention); it must be causal")
    attend = partial(_attend, module, scaling=scaling, dropout=dropout, softcap=softcap)
    if documents is None or len(documents) == 2:
        mask = _window(query, key, sliding_window) if attention_mask is None else attention_mask
        return attend(query, key, value, mask), None
    if attention_mask is not None or query.shape[2] != key.shape[2] or len(query) != 1:
        raise RuntimeError("packed documents take one row, no attention mask and no cache")
    lengths = documents.diff().tolist()
    parts = [
        attend(q, k, v, _window(q, k, sliding_window))
        for q, k, v in zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1), None


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> torch.Tensor:
    """Attend to what the mask allows, or causally without one: -> [B, T, heads, size]."""
    if softcap is None:
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, dropout=dropout)[0]
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = _causal(query, key)
    weights = F.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim=-1, dtype=torch.float32)
    weights = F.dropout(weights.to(query.dtype), dropout)
    return (weights @ value).transpose(1, 2).contiguous()


def _window(query: torch.Tensor, key: torch.Tensor, sliding_window: int | None) -> torch.Tensor | None:
    """What a document's tokens see if it is longer than the window: bool [T, T]; None: causality says it all."""
    if sliding_window is None or key.shape[2] <= sliding_window:
        return None
    return _causal(query, key).triu(1 - sliding_window)


def _causal(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    assert query.shape[2] in (1, key.shape[2])  # one new token sees all that is cached
    ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    return ones.tril(key.shape[2] - query.shape[2])


def _mask(*, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Build sdpa's mask for padded prompts and for decoding with a cache; none where `attend_per_document` knows it."""
    if attention_mask is None and kwargs["q_length"] == kwargs["kv_length"]:
        return None
    return sdpa_mask(attention_mask=attention_mask, **kwargs)


def install(language_model: PreTrainedModel) -> None:
    """Make a transformers language model attend per document."""
    AttentionInterface.register(PER_DOCUMENT, attend_per_document)
    AttentionMaskInterface.register(PER_DOCUMENT, _mask)
    language_model.set_attn_implementation(PER_DOCUMENT)
