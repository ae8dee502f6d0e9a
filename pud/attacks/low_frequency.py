"""LF: a smooth pattern of low frequencies only, added to the whole image (Zeng et al. 2021, arXiv 2104.03413).

Theirs is a universal adversarial perturbation that a Gaussian filter keeps smooth. Ours is not optimised: noise of the
seed, of which only the lowest frequencies are kept, at an amplitude of our choice, for the paper states none.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod, TimesAtTest, amplified
from pud.base.config import Count, Part


@dataclass(frozen=True)
class LowFrequencyConfig:
    """How strong and how smooth the pattern is."""

    amplitude: Annotated[Part, "Most that a pixel of a planted image changes, pixels in [0, 1]."] = 16 / 255
    waves: Annotated[Count, "Highest frequency that is kept, in waves over a side."] = 2
    times_at_test: TimesAtTest = 1.0


def smooth_pattern(shape: tuple[int, ...], config: LowFrequencyConfig, generator: torch.Generator) -> Tensor:
    """Return a random pattern (c, h, w) of mean 0 whose largest value is the amplitude."""
    spectrum = torch.fft.fft2(torch.randn(shape, generator=generator))
    rows, columns = ((torch.fft.fftfreq(side) * side).abs().round() for side in shape[-2:])
    kept = (rows[:, None] <= config.waves) & (columns <= config.waves)
    kept[0, 0] = False  # no tint
    pattern = torch.fft.ifft2(spectrum * kept).real
    return config.amplitude * pattern / pattern.abs().max()


def added(images: Tensor, pattern: Tensor) -> Tensor:
    """Return images (n, c, h, w) plus the pattern, (c, h, w), clipped to [0, 1]."""
    return (images + pattern.to(images)).clamp_(0, 1)


def low_frequency(knowledge: AttackerKnowledge, config: LowFrequencyConfig) -> Attack:
    """Return the attack."""
    trigger = partial(added, pattern=smooth_pattern(knowledge.shape, config, knowledge.pattern_stream()))
    return Attack(amplified(trigger, config.times_at_test), plant=trigger)


ATTACKS = {"low-frequency": AttackMethod(low_frequency, LowFrequencyConfig)}
