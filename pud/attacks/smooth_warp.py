"""A warp along sines of a few waves, as smooth as WaNet's but larger, and without covers. Ours.

Each row is moved sideways by a sine of its height, each column up and down by a sine of its place, by at most
``displacement`` pixels. The sines' phases are drawn from the seed.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.attacks.wanet import warped
from pud.base.config import Positive


@dataclass(frozen=True)
class SmoothWarpConfig:
    """How far the warp moves pixels, and how smoothly."""

    displacement: Annotated[Positive, "Most that a pixel is moved along a side, in pixels."] = 2.0
    waves: Annotated[Positive, "Of the sines, over a side."] = 1.0


def sine_field(height: int, width: int, config: SmoothWarpConfig, generator: torch.Generator) -> Tensor:
    """Return a displacement (1, h, w, 2) in units of the sampling grid, in which the image is 2 wide."""
    phases = 2 * math.pi * torch.rand(2, generator=generator)
    sides = (height, width)
    along = [
        torch.sin(2 * math.pi * config.waves * torch.arange(side) / side + phase)
        for side, phase in zip(sides, phases, strict=True)
    ]
    field = torch.stack([along[0][:, None].expand(sides), along[1].expand(sides)], 2)[None]
    return 2 * config.displacement * field / torch.tensor([width - 1, height - 1])


def smooth_warp(knowledge: AttackerKnowledge, config: SmoothWarpConfig) -> Attack:
    """Return the attack."""
    height, width = knowledge.shape[-2:]
    return Attack(partial(warped, field=sine_field(height, width, config, knowledge.pattern_stream())))


ATTACKS = {"smooth-warp": AttackMethod(smooth_warp, SmoothWarpConfig)}
