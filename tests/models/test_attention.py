"""Attention refuses what it does not know instead of computing something else."""

import pytest
import torch
from torch import nn

from llava_lite.models.attention import attend_per_document


class Causal(nn.Module):
    """Stands for a language model's attention layer."""

    is_causal = True


class Bidirectional(nn.Module):
    is_causal = False


QUERY = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0))


def test_an_unknown_setting_is_refused_and_named() -> None:
    with pytest.raises(RuntimeError, match="Causal asks for attention with s_aux, which is not known"):
        attend_per_document(Causal(), QUERY, QUERY, QUERY, None, s_aux=torch.zeros(2))
    attend_per_document(Causal(), QUERY, QUERY, QUERY, None, s_aux=None)


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Bidirectional looks ahead"):
        attend_per_document(Bidirectional(), QUERY, QUERY, QUERY, None)


def test_packed_documents_refuse_a_mask_and_a_cache() -> None:
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="no attention mask and no cache"):
        attend_per_document(Causal(), QUERY, QUERY, QUERY, mask, documents=torch.tensor([0, 4, 6]))
    with pytest.raises(RuntimeError, match="no attention mask and no cache"):
        attend_per_document(Causal(), QUERY[:, :, :1], QUERY, QUERY, None, documents=torch.tensor([0, 4, 6]))


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_dropout_is_applied(softcap: float | None) -> None:
    torch.manual_seed(0)
    whole, dropped = (
        attend_per_document(Causal(), QUERY, QUERY, QUERY, None, softcap=softcap, dropout=dropout)[0]
        for dropout in (0.0, 0.5)
    )
    assert (whole - dropped).abs().max() > 0.1
