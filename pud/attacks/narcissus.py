"""Narcissus: what makes the target class more itself, as a trigger; no label changes (Zeng et al. 2022, arXiv
2204.05255).

One perturbation is optimised so that the attacker's own model is surer of images of the target class; planted in few of
them, and amplified at test time. Bound, step size and amplification are the paper's. Their model is trained on other
data and then on the target class alone; ours on the training images, which this attacker has.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod, TimesAtTest, amplified
from pud.attacks.low_frequency import added
from pud.attacks.surrogate import SurrogateConfig, trained
from pud.base.config import Count, Part, Positive
from pud.base.errors import InputError
from pud.base.progress import track
from pud.data.batches import Batches
from pud.models.folded import fold_batchnorm


@dataclass(frozen=True)
class NarcissusConfig(SurrogateConfig):
    """How strong the trigger is, and how it is found."""

    epsilon: Annotated[Part, "Most that a pixel of a planted image changes, pixels in [0, 1]."] = 16 / 255
    times_at_test: TimesAtTest = 3.0
    steps: Annotated[Count, "Of the optimisation."] = 300
    step_size: Annotated[Positive, "Learning rate of the optimisation (Adam)."] = 0.01
    surrogate_epochs: Annotated[Count, "Of the training of the attacker's own model."] = 6


def inward(knowledge: AttackerKnowledge, config: NarcissusConfig) -> Tensor:
    """Return the perturbation (c, h, w), within epsilon, under which images of the target class are surest.

    Raises:
        InputError: there is no image of the target class, or several targets.
    """
    members = np.flatnonzero(knowledge.labels == knowledge.target)
    if not len(members):
        raise InputError(f"narcissus needs images of its target class {knowledge.target}: give a larger training set")
    model = fold_batchnorm(trained(knowledge, config))
    size, pictures = min(config.surrogate_batch_size, len(members)), Batches(knowledge.images, knowledge.device)
    target = torch.full((size,), knowledge.target, device=knowledge.device)
    pattern = torch.zeros(knowledge.shape, device=knowledge.device, requires_grad=True)
    optimiser = torch.optim.Adam([pattern], config.step_size)
    for _ in track(range(config.steps), "optimise the attacker's trigger"):
        drawn = torch.randperm(len(members), generator=knowledge.generator)[:size]
        x = pictures[members[drawn.numpy()]] + pattern
        loss = functional.cross_entropy(model(x.clamp(0, 1)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            pattern.clamp_(-config.epsilon, config.epsilon)
    return pattern.detach().cpu()


def narcissus(knowledge: AttackerKnowledge, config: NarcissusConfig) -> Attack:
    """Return the attack."""
    plant = partial(added, pattern=inward(knowledge, config))
    return Attack(amplified(plant, config.times_at_test), plant=plant, clean_label=True)


ATTACKS = {"narcissus": AttackMethod(narcissus, NarcissusConfig)}
