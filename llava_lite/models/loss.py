"""What a trainable returns: a sum and how many targets it is over, so that one optimiser step can be one exact mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

IGNORE = -100


@dataclass(frozen=True)
class Loss:
    """sum: scalar with gradient; count: scalar, the number of targets summed over."""

    sum: torch.Tensor
    count: torch.Tensor


def token_loss(logits: torch.Tensor, targets: torch.Tensor) -> Loss:
    """Cross entropy in fp32, summed over the targets that are not IGNORE.

    logits: [..., V]; targets: long [...], already shifted: targets[t] is what position t predicts.
    """
    logits, targets = logits.flatten(0, -2).float(), targets.flatten()
    total = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return Loss(total, (targets != IGNORE).sum())


def contrastive_loss(logits: torch.Tensor, positives: torch.Tensor) -> Loss:
    """Symmetric cross entropy where an image may have several true captions in the batch, and a caption several images.

    logits: [B, B], images by captions; positives: bool [B, B], each row and column with at least one. With the identity
    this is CLIP's loss (Radford et al., 2021); several positives share the target evenly (UniCL, Yang et al., 2022).
    """
    targets = positives.float()
    by_image = F.cross_entropy(logits, targets / targets.sum(1, keepdim=True), reduction="sum")
    by_caption = F.cross_entropy(logits.T, targets.T / targets.T.sum(1, keepdim=True), reduction="sum")
    return Loss((by_image + by_caption) / 2, logits.new_tensor(len(logits), dtype=torch.long))
