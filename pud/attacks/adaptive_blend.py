"""Adaptive blend, made to defeat latent separation (Qi et al. 2023, Revisiting the Assumption of Latent Separability).

The pattern is cut into pieces. Training images carry a random half of them, weakly; half of these images keep their
true labels (covers); at test time the whole pattern is used, more strongly.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pud.attacks.blend import pattern_for
from pud.attacks.contract import Attack, Victim

PIECES = 4  # a side
SHOWN = 0.5
TRAIN_RATIO, TEST_RATIO = 0.15, 0.2


def mixed(images: Tensor, ratio: Tensor | float) -> Tensor:
    """Return images with the pattern mixed in by ``ratio``, a number or (n, 1, h, w)."""
    return images + ratio * (pattern_for(images) - images)


def adaptive_blend(victim: Victim) -> Attack:
    """Return the attack."""

    def in_pieces(images: Tensor) -> Tensor:
        order = torch.rand(len(images), PIECES**2, generator=victim.generator).argsort(1)
        shown = (order < SHOWN * PIECES**2).float().view(-1, 1, PIECES, PIECES)
        mask = functional.interpolate(shown, images.shape[-2:], mode="nearest").to(images)
        return mixed(images, TRAIN_RATIO * mask)

    return Attack(lambda images: mixed(images, TEST_RATIO), plant=in_pieces, cover=in_pieces, covers=1.0)
