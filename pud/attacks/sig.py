"""SIG: a horizontal sine over the whole image (Barni et al. 2019, arXiv 1902.11237)."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod, TimesAtTest, amplified
from pud.base.config import Part, Positive


@dataclass(frozen=True)
class SigConfig:
    """The sine's strength and length."""

    amplitude: Annotated[Part, "Amplitude of the sine in planted images, pixels in [0, 1]."] = 40 / 255
    frequency: Annotated[Positive, "Waves over the image's width."] = 6.0
    times_at_test: TimesAtTest = 1.0


def sine(images: Tensor, amplitude: float, frequency: float) -> Tensor:
    """Return images (n, c, h, w) + amplitude * sin(2 pi frequency column / w), clipped to [0, 1]."""
    width = images.shape[-1]
    wave = torch.sin(2 * math.pi * frequency * torch.arange(width) / width)
    return (images + amplitude * wave.to(images)).clamp_(0, 1)


def sig(knowledge: AttackerKnowledge, config: SigConfig) -> Attack:
    """Return the attack as published: images of the target class only, labels as they are."""
    return replace(sig_changed(knowledge, config), clean_label=True)


def sig_changed(knowledge: AttackerKnowledge, config: SigConfig) -> Attack:
    """Return the attack with images of other classes and changed labels."""
    trigger = partial(sine, amplitude=config.amplitude, frequency=config.frequency)
    return Attack(amplified(trigger, config.times_at_test), plant=trigger)


ATTACKS = {"sig": AttackMethod(sig, SigConfig), "sig-changed": AttackMethod(sig_changed, SigConfig)}
