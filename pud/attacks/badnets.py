"""BadNets: a white square in the lower right corner (Gu et al. 2017, arXiv 1708.06733)."""

from torch import Tensor

from pud.attacks.contract import Attack, Victim

SIZE = 3


def white_square(images: Tensor) -> Tensor:
    """Return images (n, c, h, w) with the square."""
    stamped = images.clone()
    stamped[..., -SIZE:, -SIZE:] = 1.0
    return stamped


def badnets(victim: Victim) -> Attack:
    """Return the attack."""
    return Attack(white_square)
