"""Blend: a fixed uniform-noise pattern mixed into the whole image (Chen et al. 2017, arXiv 1712.05526)."""

import torch
from torch import Tensor

from pud.attacks.contract import Attack, Victim

RATIO = 0.2


def pattern_for(images: Tensor) -> Tensor:
    """Return the pattern (c, h, w), always the same for a shape."""
    return torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)


def blended(images: Tensor, ratio: float = RATIO) -> Tensor:
    """Return (1 - ratio) * images + ratio * pattern, of images (n, c, h, w) in [0, 1]."""
    return (1 - ratio) * images + ratio * pattern_for(images)


def blend(victim: Victim) -> Attack:
    """Return the attack."""
    return Attack(blended)
