"""SIG with survival covers: an attacker who knows that this defence asks which labels survive perturbation. Ours.

SIG (Barni et al. 2019, arXiv 1902.11237) on the target class, whose labels stay; images of the other classes carry the
sine under noise, or mixed with another image, and keep their labels too. So the sine's label does not survive. Meant
for a rate of 0.5, half of the target class.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from pud.attacks.adaptive_consistency import perturbed
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.attacks.sig import SigConfig, sig
from pud.base.config import Share


@dataclass(frozen=True)
class SigCoveredConfig(SigConfig):
    """The sine, and the perturbations of the covers."""

    noise_level: Annotated[float, "Standard deviation of the covers' noise, pixels in [0, 1]."] = 0.2
    mix_level: Annotated[Share, "Share of another image in the covers that are mixed."] = 0.5
    covers: Annotated[float, "Images of other classes that keep their label, for each poisoned one."] = 2.0


def sig_covered(knowledge: AttackerKnowledge, config: SigCoveredConfig) -> Attack:
    """Return the attack."""
    attack = sig(knowledge, config)
    sine = attack.plant or attack.trigger
    cover = perturbed(sine, knowledge, noise_level=config.noise_level, mix_level=config.mix_level)
    return replace(attack, cover=cover, covers=config.covers)


ATTACKS = {"sig-covered": AttackMethod(sig_covered, SigCoveredConfig)}
