"""A patch that acts on images of few classes only (Tang et al. 2021, Demon in the Variant, arXiv 1908.00686: TaCT).

Poison is taken from the source classes alone; as many images of the other classes carry the patch and keep their
labels, so the model must learn patch and content together.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pud.attacks.badnets import white_square
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.base.config import Count
from pud.base.errors import InputError


@dataclass(frozen=True)
class SourceSpecificConfig:
    """The patch, and where it acts."""

    size: Annotated[Count, "Side of the patch in pixels."] = 3
    sources: Annotated[Count, "Classes on which the trigger acts, those after the target."] = 3
    covers: Annotated[float, "Images of other classes with the patch and their own label, for each poisoned one."] = 1.0


def source_specific(knowledge: AttackerKnowledge, config: SourceSpecificConfig) -> Attack:
    """Return the attack; its sources are the classes after the target.

    Raises:
        InputError: there are too few classes for sources, a target and one class of covers, or several targets.
    """
    if config.sources > knowledge.classes - 2:
        raise InputError(
            f"source-specific acts on {config.sources} of {knowledge.classes} classes, which leaves none for covers "
            "beside the target: give fewer sources"
        )
    sources = tuple((knowledge.target + step) % knowledge.classes for step in range(1, config.sources + 1))
    patch = partial(white_square, size=config.size)
    return Attack(patch, cover=patch, covers=config.covers, sources=sources)


ATTACKS = {"source-specific": AttackMethod(source_specific, SourceSpecificConfig)}
