"""FT-SAM: fine-tuning with adaptive sharpness-aware minimisation (Zhu et al. 2023, arXiv 2304.11823)."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.config import Positive
from pud.defences.fine_tuning import FineTuningConfig, optimiser_of
from pud.defences.repair import CleanSet, repair_defence
from pud.models.contract import Classifier


@dataclass(frozen=True)
class FtSamConfig(FineTuningConfig):
    """Fine-tuning's settings, and the ball."""

    radius: Annotated[
        Positive, "Of the ball of weights that is searched for the worst (the paper's rho), for small images."
    ] = 2.0


def ft_sam(model: Classifier, clean: CleanSet, config: FtSamConfig) -> Classifier:
    """Return a copy of the model, fine-tuned on the clean images.

    Every step climbs to the worst weights in a ball whose axes are the weights' own sizes, and descends from there.
    """
    repaired = copy.deepcopy(model).requires_grad_(True).train()
    optimiser, schedule = optimiser_of(repaired, clean, config)
    weights = list(repaired.parameters())
    for x, y in clean.steps(config.epochs):
        optimiser.zero_grad()
        functional.cross_entropy(repaired(x), y).backward()
        climbs = sam_climb(weights, config.radius)
        with torch.no_grad():
            for weight, climb in zip(weights, climbs, strict=True):
                weight.add_(climb)
        optimiser.zero_grad()
        functional.cross_entropy(repaired(x), y).backward()
        with torch.no_grad():
            for weight, climb in zip(weights, climbs, strict=True):
                weight.sub_(climb)
        optimiser.step()
        schedule.step()
    return repaired.eval()


@torch.no_grad()
def sam_climb(weights: list[nn.Parameter], radius: float) -> list[Tensor]:
    """Return the steps e with |e / |w|| = radius that climb most, from the weights' gradients (ASAM's metric)."""
    scaled = [weight.abs() * weight.grad for weight in weights if weight.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in scaled])) + 1e-12
    return [radius * weight.abs() * part / norm for weight, part in zip(weights, scaled, strict=True)]


DEFENCES = {"ft-sam": repair_defence("ft-sam", FtSamConfig, ft_sam)}
