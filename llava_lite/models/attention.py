"""How the documents of a packed row keep apart: each attends to itself alone, and no mask is ever built.

    row       [ a a a a | b b | c c c c c ]      one row, several documents
    positions   0 1 2 3   0 1   0 1 2 3 4        restart with each document

transformers knows packed rows by restarting positions, but builds a dense T x T mask for them. Here each document goes
through scaled-dot-product attention on its own, which costs the sum of squares instead of the square of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PER_DOCUMENT = "llava_lite_per_document"


def document_lengths(position_ids: torch.Tensor) -> list[int]:
    """Lengths of the documents of a packed row; position_ids: long [1, T], zero where a document starts."""
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    return [b - a for a, b in zip(starts, [*starts[1:], position_ids.shape[1]], strict=True)]


def attend_per_document(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    documents: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query, key, value: [B, heads, T, size] -> [B, T, heads, size].

    documents: their lengths in order, for one packed row; None: every row is one document (generation, padded rows).
    """
    if documents is None or len(documents) == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is not None or query.shape[2] != key.shape[2] or len(query) != 1:
        raise RuntimeError("packed documents take one row, no attention mask and no cache")
    parts = [
        sdpa_attention_forward(module, q, k, v, None, **kwargs)[0]
        for q, k, v in zip(*(x.split(list(documents), dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1), None


def _mask(*, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Build sdpa's mask for padded prompts and for decoding with a cache; none where causality says it all."""
    if attention_mask is None and kwargs["q_length"] == kwargs["kv_length"]:
        return None
    return sdpa_mask(attention_mask=attention_mask, **kwargs)


def install(language_model: PreTrainedModel) -> None:
    """Make a transformers language model attend per document."""
    AttentionInterface.register(PER_DOCUMENT, attend_per_document)
    AttentionMaskInterface.register(PER_DOCUMENT, _mask)
    language_model.set_attn_implementation(PER_DOCUMENT)
