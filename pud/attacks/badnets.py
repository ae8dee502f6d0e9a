"""BadNets: a white square in the lower right corner (Gu et al. 2017, arXiv 1708.06733)."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from torch import Tensor

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.base.config import Count


@dataclass(frozen=True)
class BadNetsConfig:
    """How large the square is."""

    size: Annotated[Count, "Side of the square in pixels."] = 3


def white_square(images: Tensor, size: int) -> Tensor:
    """Return images (n, c, h, w) with a square of ``size`` pixels a side."""
    stamped = images.clone()
    stamped[..., -size:, -size:] = 1.0
    return stamped


def badnets(knowledge: AttackerKnowledge, config: BadNetsConfig) -> Attack:
    """Return the attack."""
    return Attack(partial(white_square, size=config.size))


ATTACKS = {"badnets": AttackMethod(badnets, BadNetsConfig)}
