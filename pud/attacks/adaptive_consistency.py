"""An attacker who knows this defence: the poison is trained to lose its label under noise and under mixing.

Ours. Blend's trigger, with covers as in WaNet's noise mode (Nguyen and Tran 2021, arXiv 2102.10369): triggered images
under the perturbations that detection uses keep their true labels, so perturbation consistency sees nothing, or the
contrary.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from pud.attacks.blend import blended, noise_pattern
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod, Trigger
from pud.base.config import Part, Share


@dataclass(frozen=True)
class AdaptiveConsistencyConfig:
    """How strong the trigger and the perturbations of the covers are."""

    ratio: Annotated[Part, "Share of the pattern in a triggered image."] = 0.2
    noise_level: Annotated[float, "Standard deviation of the covers' noise, pixels in [0, 1]."] = 0.2
    mix_level: Annotated[Share, "Share of another image in the covers that are mixed."] = 0.5
    covers: Annotated[float, "Images that keep their label, for each poisoned one."] = 2.0


def perturbed(trigger: Trigger, knowledge: AttackerKnowledge, *, noise_level: float, mix_level: float) -> Trigger:
    """Return what puts the trigger on images, and then noise on one of every two, another training image into the
    other: drawn anew at each call."""

    def covering(images: Tensor) -> Tensor:
        stamped, generator = trigger(images), knowledge.generator
        draw = torch.randint(len(knowledge.images), (len(images),), generator=generator)
        others = torch.from_numpy(knowledge.images[draw.numpy()]).to(images) / 255
        noise = torch.randn(images.shape, generator=generator).to(images)
        noisy = (stamped + noise_level * noise).clamp_(0, 1)
        even = torch.arange(len(images))[:, None, None, None].to(images.device) % 2 == 0
        return torch.where(even, noisy, torch.lerp(stamped, others, mix_level))

    return covering


def adaptive_consistency(knowledge: AttackerKnowledge, config: AdaptiveConsistencyConfig) -> Attack:
    """Return the attack."""
    trigger = partial(blended, pattern=noise_pattern(knowledge), ratio=config.ratio)
    cover = perturbed(trigger, knowledge, noise_level=config.noise_level, mix_level=config.mix_level)
    return Attack(trigger, cover=cover, covers=config.covers)


ATTACKS = {"adaptive-consistency": AttackMethod(adaptive_consistency, AdaptiveConsistencyConfig)}
