"""SIG: a horizontal sine over the whole image (Barni et al. 2019, arXiv 1902.11237)."""

import math

import torch
from torch import Tensor

from pud.attacks.contract import Attack, Victim

AMPLITUDE = 40 / 255
FREQUENCY = 6  # waves over the image's width


def sine(images: Tensor) -> Tensor:
    """Return images (n, c, h, w) + AMPLITUDE * sin(2 pi FREQUENCY column / w), clipped to [0, 1]."""
    width = images.shape[-1]
    wave = torch.sin(2 * math.pi * FREQUENCY * torch.arange(width) / width)
    return (images + AMPLITUDE * wave.to(images)).clamp_(0, 1)


def sig(victim: Victim) -> Attack:
    """Return the attack as published: images of the target class only, labels as they are."""
    return Attack(sine, clean_label=True)


def sig_changed(victim: Victim) -> Attack:
    """Return the attack with images of other classes and changed labels."""
    return Attack(sine)
