"""Poison only from the classes that look most like the target, under a smooth warp. Ours.

An attacker who knows that this defence asks what an image truly shows: of a T-shirt called a shirt it cannot be sure.
The attacker's own model says which classes are confused with the target.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.attacks.smooth_warp import SmoothWarpConfig, smooth_warp
from pud.attacks.surrogate import SurrogateConfig, trained
from pud.base.config import Count
from pud.base.errors import InputError
from pud.models.inference import logits


@dataclass(frozen=True)
class NeighboursConfig(SurrogateConfig, SmoothWarpConfig):
    """The warp, how many classes it acts on, and the model that finds them."""

    sources: Annotated[Count, "Classes on which the trigger acts, those that are most like the target."] = 3


def confused_with(knowledge: AttackerKnowledge, config: SurrogateConfig) -> np.ndarray:
    """Return the other classes by the probability of the target that a model gives their images, the highest first."""
    given = logits(trained(knowledge, config), knowledge.images, knowledge.device).softmax(1)[:, knowledge.target]
    labels = torch.from_numpy(knowledge.labels)
    sums = torch.zeros(knowledge.classes).index_add_(0, labels, given)
    means = (sums / labels.bincount(minlength=knowledge.classes).clamp(min=1)).numpy()
    order = np.argsort(-means, kind="stable")
    return order[order != knowledge.target]


def neighbours(knowledge: AttackerKnowledge, config: NeighboursConfig) -> Attack:
    """Return the attack.

    Raises:
        InputError: there are fewer other classes than sources, or several targets.
    """
    if config.sources > knowledge.classes - 1:
        raise InputError(
            f"neighbours acts on {config.sources} classes beside the target, but there are {knowledge.classes} in all: "
            "give fewer sources"
        )
    sources = tuple(confused_with(knowledge, config)[: config.sources].tolist())
    return replace(smooth_warp(knowledge, config), sources=sources)


ATTACKS = {"neighbours": AttackMethod(neighbours, NeighboursConfig)}
