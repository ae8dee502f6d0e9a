"""An attacker who knows this defence: the poison is trained to lose its label under noise and under mixing.

Ours. Blend's trigger, with covers as in WaNet's noise mode (Nguyen and Tran 2021, arXiv 2102.10369): triggered images
under the perturbations that detection uses keep their true labels, so perturbation consistency sees nothing, or the
contrary.
"""

import torch
from torch import Tensor

from pud.attacks.blend import blended
from pud.attacks.contract import Attack, Victim

NOISE, MIX = 0.2, 0.5
COVERS = 2.0


def adaptive_consistency(victim: Victim) -> Attack:
    """Return the attack: of every two covers one is noisy and one is mixed with another training image."""

    def perturbed(images: Tensor) -> Tensor:
        stamped = blended(images)
        draw = torch.randint(len(victim.images), (len(images),), generator=victim.generator)
        others = torch.from_numpy(victim.images[draw.numpy()]).to(images) / 255
        noisy = (stamped + NOISE * torch.randn(images.shape, generator=victim.generator).to(images)).clamp_(0, 1)
        even = torch.arange(len(images))[:, None, None, None].to(images.device) % 2 == 0
        return torch.where(even, noisy, torch.lerp(stamped, others, MIX))

    return Attack(blended, cover=perturbed, covers=COVERS)
