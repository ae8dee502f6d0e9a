"""I-BAU: unlearn a universal perturbation by implicit hypergradients (Zeng et al. 2022, arXiv 2110.03735)."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.config import Count, Part, Positive
from pud.defences.repair import CleanSet, RepairConfig, repair_defence
from pud.models.contract import Classifier

MAP_STEP = 0.1  # of the gradient step whose fixed point the perturbation is taken for
MAP_DECAY = 0.9  # keeps the series of the implicit gradient finite where that step does not contract


@dataclass(frozen=True)
class IBauConfig(RepairConfig):
    """The search for a universal perturbation, and the unlearning of it."""

    rounds: Annotated[Count, "Over the clean images."] = 20
    inner_steps: Annotated[Count, "Of ascent to the perturbation on each batch."] = 5
    radius: Annotated[Positive, "L2 radius of the perturbation, pixels in [0, 1]."] = 10.0
    fixed_point_steps: Annotated[Count, "Of the implicit gradient."] = 5
    portion: Annotated[
        Part, "Share of a batch that the perturbation unlearns at once, as in the authors' code; one image at least."
    ] = 0.01
    learning_rate: Annotated[Positive, "Of Adam."] = 3e-4


def i_bau(model: Classifier, clean: CleanSet, config: IBauConfig) -> Classifier:
    """Return a copy of the model on whose clean images no universal perturbation works as well as before.

    Rounds of: find the perturbation, bounded in L2, that most raises the loss on clean images; step along the gradient
    of the perturbed loss, with the response of the perturbation to the weights by a fixed-point iteration.
    """
    repaired = copy.deepcopy(model).requires_grad_(True).eval()
    optimiser = torch.optim.Adam(repaired.parameters(), config.learning_rate)
    weights = list(repaired.parameters())
    for _ in range(config.rounds):
        delta = torch.zeros(1, *clean.images.shape[1:], device=clean.device)
        for x, y in clean.steps(1):
            delta = ascend(repaired, x, y, delta, config)
            portion = torch.rand(len(x), 1, 1, 1, generator=clean.generator) < config.portion
            portion[0] = True
            gradients = hypergradients(repaired, weights, x, y, delta, portion.to(x), config.fixed_point_steps)
            optimiser.zero_grad()
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimiser.step()
    return repaired.eval()


def perturbed_loss(model: nn.Module, x: Tensor, y: Tensor, shift: Tensor) -> Tensor:
    """Return the cross-entropy of images (n, c, h, w) under a shift, (1, c, h, w) or one for each image."""
    return functional.cross_entropy(model((x + shift).clamp(0, 1)), y)


def ascend(model: nn.Module, x: Tensor, y: Tensor, delta: Tensor, config: IBauConfig) -> Tensor:
    """Return the perturbation (1, c, h, w) after steps of unit length up the loss, within the ball."""
    for _ in range(config.inner_steps):
        delta.requires_grad_(True)
        climb = torch.autograd.grad(perturbed_loss(model, x, y, delta), delta)[0]
        delta = within_ball(delta.detach() + climb / (climb.norm() + 1e-12), config.radius)
    return delta


def within_ball(delta: Tensor, radius: float) -> Tensor:
    """Return delta projected on the L2 ball."""
    return delta * min(1.0, radius / (float(delta.norm()) + 1e-12))


def hypergradients(
    model: nn.Module, weights: list[nn.Parameter], x: Tensor, y: Tensor, delta: Tensor, portion: Tensor, steps: int
) -> list[Tensor]:
    """Return the gradient of the perturbed loss for each weight, the perturbation's own response to it included.

    portion: (n, 1, 1, 1), 1 for the images that the outer loss perturbs, else 0. steps: of the fixed-point iteration.
    """
    delta = delta.detach().requires_grad_(True)
    outer = perturbed_loss(model, x, y, portion * delta)
    direct = torch.autograd.grad(outer, weights, retain_graph=True)
    vector = torch.autograd.grad(outer, delta, retain_graph=True)[0]
    slope = torch.autograd.grad(perturbed_loss(model, x, y, delta), delta, create_graph=True)[0]
    moved, series = delta + MAP_STEP * slope, vector
    for _ in range(steps):
        series = vector + MAP_DECAY * torch.autograd.grad(moved, delta, series, retain_graph=True)[0]
    indirect = torch.autograd.grad(moved, weights, series, allow_unused=True)
    return [one if other is None else one + other for one, other in zip(direct, indirect, strict=True)]


DEFENCES = {"i-bau": repair_defence("i-bau", IBauConfig, i_bau)}
