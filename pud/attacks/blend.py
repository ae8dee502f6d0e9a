"""Blend: one pattern of uniform noise mixed into the whole image (Chen et al. 2017, arXiv 1712.05526)."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod, TimesAtTest, amplified
from pud.base.config import Part


@dataclass(frozen=True)
class BlendConfig:
    """How strong the pattern is."""

    ratio: Annotated[Part, "Share of the pattern in a planted image."] = 0.2  # of the paper 0.1 too
    times_at_test: TimesAtTest = 1.0


def noise_pattern(knowledge: AttackerKnowledge) -> Tensor:
    """Return the pattern, (c, h, w) in [0, 1], of the seed."""
    return torch.rand(knowledge.shape, generator=knowledge.pattern_stream())


def blended(images: Tensor, pattern: Tensor, ratio: float) -> Tensor:
    """Return (1 - ratio) * images + ratio * pattern; images (n, c, h, w) and pattern (c, h, w) in [0, 1]."""
    return (1 - ratio) * images + ratio * pattern.to(images)


def blend(knowledge: AttackerKnowledge, config: BlendConfig) -> Attack:
    """Return the attack."""
    trigger = partial(blended, pattern=noise_pattern(knowledge), ratio=config.ratio)
    return Attack(amplified(trigger, config.times_at_test), plant=trigger)


ATTACKS = {"blend": AttackMethod(blend, BlendConfig)}
