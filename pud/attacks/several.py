"""Several backdoors at once, each with a trigger and a target class of its own (Li et al. 2024, arXiv 2401.15295).

Their parallel attack. A patch, a blended pattern, a sine and a warp, as strong as their own files have them; the first
leads to the target class, each further one to the class after the one before.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from pud.attacks.badnets import BadNetsConfig, badnets
from pud.attacks.blend import BlendConfig, blend
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.attacks.sig import SigConfig, sig_changed
from pud.attacks.smooth_warp import SmoothWarpConfig, smooth_warp
from pud.base.config import Range
from pud.base.errors import InputError


@dataclass(frozen=True)
class SeveralConfig:
    """How many."""

    triggers: Annotated[int, Range(2, 4, "from 2 to 4"), "The first so many of patch, pattern, sine and warp."] = 2


def several(knowledge: AttackerKnowledge, config: SeveralConfig) -> Attack:
    """Return the attack: the first backdoor, and the others beside it.

    Raises:
        InputError: there are fewer classes than triggers.
    """
    if config.triggers > knowledge.classes:
        raise InputError(
            f"several has {config.triggers} triggers, each for a class of its own, but there are {knowledge.classes} "
            "classes: give fewer triggers"
        )
    every = (
        badnets(knowledge, BadNetsConfig()),
        blend(knowledge, BlendConfig()),
        sig_changed(knowledge, SigConfig()),
        smooth_warp(knowledge, SmoothWarpConfig()),
    )
    first, *others = (replace(one, shift=shift) for shift, one in enumerate(every[: config.triggers]))
    return replace(first, others=tuple(others))


ATTACKS = {"several": AttackMethod(several, SeveralConfig)}
