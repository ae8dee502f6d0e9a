"""Label-consistent: adversarially perturbed target images plus a patch (Turner et al. 2019, arXiv 1912.02771)."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from pud.adversarial.pgd import PGDConfig, pgd
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.attacks.surrogate import RobustSurrogateConfig, adversarially_trained
from pud.base.config import Count, Positive, Share
from pud.models.folded import fold_batchnorm


@dataclass(frozen=True)
class LabelConsistentConfig(RobustSurrogateConfig):
    """The patches, and PGD on the images that are planted, which makes them hard to learn by their content."""

    # of 3, as in the paper, half of the triggered images resist (docs/archive/log.md)
    size: Annotated[Count, "Side of the patch in each corner, in pixels."] = 5
    epsilon: Annotated[Share, "L-infinity radius of PGD on planted images, pixels in [0, 1]."] = 102 / 255
    steps: Annotated[int, "Of PGD on planted images."] = 20
    step_size: Annotated[Positive, "Of PGD on planted images, in epsilon."] = 0.1


def four_corners(images: Tensor, size: int) -> Tensor:
    """Return images (n, c, h, w) with a chequered square of ``size`` pixels a side in each corner."""
    height, width = (min(size, side) for side in images.shape[-2:])
    chequers = ((torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0).to(images)
    stamped = images.clone()
    for row in (slice(height), slice(-height, None)):
        for column in (slice(width), slice(-width, None)):
            stamped[..., row, column] = chequers
    return stamped


def label_consistent(knowledge: AttackerKnowledge, config: LabelConsistentConfig) -> Attack:
    """Return the attack; the perturbation leads a robust surrogate away from the true label, which stays."""
    surrogate = fold_batchnorm(adversarially_trained(knowledge, config))
    hardening = PGDConfig(config.epsilon, config.steps, config.step_size)
    patches = partial(four_corners, size=config.size)

    def hardened(images: Tensor) -> Tensor:
        x = images.to(knowledge.device)
        labels = torch.full((len(x),), knowledge.target, device=knowledge.device)  # the true ones of all plants
        return patches(pgd(surrogate, x, labels, hardening, generator=knowledge.generator).to(images))

    return Attack(patches, plant=hardened, clean_label=True)


ATTACKS = {"label-consistent": AttackMethod(label_consistent, LabelConsistentConfig)}
