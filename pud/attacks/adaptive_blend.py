"""Adaptive blend, made to defeat latent separation (Qi et al. 2023, Revisiting the Assumption of Latent Separability).

The pattern is cut into pieces. Training images carry a random half of them, weakly; half of these images keep their
true labels (covers); at test time the whole pattern is used, more strongly.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from pud.attacks.blend import noise_pattern
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.base.config import Count, Part


@dataclass(frozen=True)
class AdaptiveBlendConfig:
    """How the pattern is cut, and how strong it is."""

    pieces: Annotated[Count, "Pieces of the pattern along a side."] = 4
    shown: Annotated[Part, "Share of the pieces that a training image carries."] = 0.5
    train_ratio: Annotated[Part, "Share of the pattern in training images."] = 0.15
    test_ratio: Annotated[Part, "Share of the pattern in triggered images."] = 0.2
    covers: Annotated[float, "Images that keep their label, for each poisoned one."] = 1.0


def mixed(images: Tensor, pattern: Tensor, ratio: Tensor | float) -> Tensor:
    """Return images (n, c, h, w) with the pattern, (c, h, w), mixed in by ``ratio``, a number or (n, 1, h, w)."""
    return images + ratio * (pattern.to(images) - images)


def adaptive_blend(knowledge: AttackerKnowledge, config: AdaptiveBlendConfig) -> Attack:
    """Return the attack."""
    pattern = noise_pattern(knowledge)
    pieces = config.pieces**2

    def in_pieces(images: Tensor) -> Tensor:
        order = torch.rand(len(images), pieces, generator=knowledge.generator).argsort(1)
        shown = (order < config.shown * pieces).float().view(-1, 1, config.pieces, config.pieces)
        mask = functional.interpolate(shown, images.shape[-2:], mode="nearest").to(images)
        return mixed(images, pattern, config.train_ratio * mask)

    def whole(images: Tensor) -> Tensor:
        return mixed(images, pattern, config.test_ratio)

    return Attack(whole, plant=in_pieces, cover=in_pieces, covers=config.covers)


ATTACKS = {"adaptive-blend": AttackMethod(adaptive_blend, AdaptiveBlendConfig)}
