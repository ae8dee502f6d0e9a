"""Backdoor triggers: callables that stamp images (n, c, h, w) in [0, 1] and return new images of the same shape.

Each trigger is a frozen dataclass of its settings; ``make_trigger`` is the registry. Add a trigger by adding a class
and a line in ``TRIGGERS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pud.errors import InputError

Trigger = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BadNets:
    """White square in the lower right corner (Gu et al. 2017, arXiv 1708.06733)."""

    size: int = 3

    def __call__(self, images: Tensor) -> Tensor:
        stamped = images.clone()
        stamped[..., -self.size :, -self.size :] = 1.0
        return stamped


@dataclass(frozen=True)
class Blend:
    """Fixed uniform-noise pattern mixed into the whole image (Chen et al. 2017, arXiv 1712.05526)."""

    ratio: float = 0.2
    pattern_seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.pattern_seed)
        pattern = torch.rand(images.shape[1:], generator=generator).to(images)
        return (1 - self.ratio) * images + self.ratio * pattern


TRIGGERS: dict[str, Callable[[], Trigger]] = {"badnets": BadNets, "blend": Blend}


def make_trigger(name: str) -> Trigger:
    """Return the trigger called ``name`` with its standard settings."""
    if name not in TRIGGERS:
        raise InputError(f"unknown trigger {name!r}: choose one of {', '.join(sorted(TRIGGERS))}")
    return TRIGGERS[name]()
