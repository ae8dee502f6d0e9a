"""A patch that acts on images of few classes only (Tang et al. 2021, Demon in the Variant, arXiv 1908.00686: TaCT).

Poison is taken from the source classes alone; as many images of the other classes carry the patch and keep their
labels, so the model must learn patch and content together.
"""

import torch

from pud.attacks.badnets import white_square
from pud.attacks.contract import Attack, Victim

SOURCES = 3


def source_specific(victim: Victim) -> Attack:
    """Return the attack; its sources are the classes after the target."""
    target = int(victim.target_of(torch.zeros(1, dtype=torch.int64)))
    sources = tuple((target + step) % victim.classes for step in range(1, SOURCES + 1))
    return Attack(white_square, cover=white_square, covers=1.0, sources=sources)
