"""Label-consistent: adversarially perturbed target images plus a patch (Turner et al. 2019, arXiv 1912.02771)."""

import torch
from torch import Tensor

from pud.adversarial.pgd import PGDConfig, pgd
from pud.attacks.contract import Attack, Victim
from pud.attacks.surrogate import adversarially_trained
from pud.models.classifier import frozen

SIZE = 5  # with 3, as in the paper, half of the triggered images resist (docs/log.md)
HARDENING = PGDConfig(epsilon=102 / 255, steps=20, step_size=0.1)


def four_corners(images: Tensor) -> Tensor:
    """Return images (n, c, h, w) with a chequered square in each corner."""
    rows = torch.arange(SIZE)
    chequers = ((rows[:, None] + rows) % 2 == 0).to(images)
    stamped = images.clone()
    for row in (slice(SIZE), slice(-SIZE, None)):
        for column in (slice(SIZE), slice(-SIZE, None)):
            stamped[..., row, column] = chequers
    return stamped


def label_consistent(victim: Victim) -> Attack:
    """Return the attack; the perturbation leads a robust surrogate away from the true label, which stays."""
    surrogate = frozen(adversarially_trained(victim))
    given = victim.target_of(torch.zeros(1, dtype=torch.long))  # one target class, which is the true one of all plants

    def hardened(images: Tensor) -> Tensor:
        x = images.to(victim.device)
        labels = given.to(victim.device).expand(len(x))
        return four_corners(pgd(surrogate, x, labels, HARDENING, generator=victim.generator).to(images))

    return Attack(four_corners, plant=hardened, clean_label=True)
