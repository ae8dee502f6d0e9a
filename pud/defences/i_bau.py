"""I-BAU: unlearn a universal perturbation by implicit hypergradients (Zeng et al. 2022, arXiv 2110.03735).

As in the authors' code pixels may leave [0, 1], the ascent flees from what the model says, whatever the label is, and
the implicit gradient is that of the first batch. Their notebook ends the ascent with a projection on the ball, their
script leaves it out: here it stays, as in the paper, since steps of their size end far outside. What differs: they have
5,000 clean images, so a round goes over the fewer ones here until it has as many steps; batches are drawn anew in every
epoch; one image at least is perturbed.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.config import Count, Part, Positive
from pud.defences.repair import LabelledBatches, RepairConfig, repair_defence
from pud.models.contract import Classifier

MAP_STEP = 0.1  # of the gradient step whose fixed point the perturbation is taken for


@dataclass(frozen=True)
class IBauConfig(RepairConfig):
    """The search for a universal perturbation, and the unlearning of it."""

    rounds: Annotated[Count, "Of a search and an unlearning."] = 5
    steps: Annotated[Count, "Of the search, and of the unlearning, in a round: at least, in whole epochs."] = 50
    ascent_rate: Annotated[Positive, "Learning rate of the search, pixels in [0, 1]."] = 10.0
    penalty: Annotated[float, "Of the perturbation's squared length, beside the loss that the search raises."] = 0.001
    radius: Annotated[Positive, "L2 radius that the perturbation is brought to after the search."] = 10.0
    fixed_point_steps: Annotated[Count, "Of the implicit gradient."] = 5
    portion: Annotated[Part, "Share of a batch that the perturbation is unlearned on; one image at least."] = 0.01
    learning_rate: Annotated[Positive, "Of Adam."] = 1e-3


def i_bau(model: Classifier, clean: LabelledBatches, config: IBauConfig) -> Classifier:
    """Return a copy of the model on whose clean images no universal perturbation works as well as before.

    Rounds of: find the perturbation that most raises the loss on clean images; step along the gradient of the perturbed
    loss, with the response of the perturbation to the weights by a fixed-point iteration.
    """
    repaired = copy.deepcopy(model).requires_grad_(True).eval()
    optimiser = torch.optim.Adam(repaired.parameters(), config.learning_rate)
    weights = list(repaired.parameters())
    epochs = -(-config.steps // clean.steps_per_epoch)
    first: tuple[Tensor, Tensor] | None = None
    for _ in range(config.rounds):
        found = search(repaired, (x for x, _ in clean.steps(epochs)), config)
        for x, y in clean.steps(epochs):
            first = first or (x, y)
            delta = found.clone().requires_grad_(True)
            loss = search_loss(repaired, *first, delta, config.penalty)
            moved = delta - MAP_STEP * torch.autograd.grad(loss, delta, create_graph=True)[0]
            marked = torch.zeros(len(x), 1, 1, 1)
            marked[torch.randperm(len(x), generator=clean.generator)[: max(1, int(config.portion * len(x)))]] = 1
            outer = functional.cross_entropy(repaired(x + marked.to(x) * delta), y)
            gradients = hypergradients(weights, delta, outer, moved, config.fixed_point_steps)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimiser.step()
    return repaired.eval()


def search(model: Classifier, batches: Iterable[Tensor], config: IBauConfig) -> Tensor:
    """Return the perturbation (1, c, h, w) after a step on each batch of images (n, c, h, w), brought into the ball."""
    delta = torch.zeros(1, *model.input_shape, device=model.mean.device)
    for x in batches:
        with torch.no_grad():
            said = model(x).argmax(1)
        delta.requires_grad_(True)
        slope = torch.autograd.grad(search_loss(model, x, said, delta, config.penalty), delta)[0]
        delta = delta.detach() - config.ascent_rate * slope
    return within_ball(delta, config.radius)


def search_loss(model: nn.Module, x: Tensor, y: Tensor, delta: Tensor, penalty: float) -> Tensor:
    """Return what the search lowers: the penalty less the cross-entropy of images (n, c, h, w) with delta on them."""
    return penalty * delta.square().sum() - functional.cross_entropy(model(x + delta), y)


def within_ball(delta: Tensor, radius: float) -> Tensor:
    """Return delta projected on the L2 ball."""
    return delta * min(1.0, radius / (float(delta.norm()) + 1e-12))


def hypergradients(
    weights: list[nn.Parameter], delta: Tensor, outer: Tensor, moved: Tensor, steps: int
) -> list[Tensor]:
    """Return the gradient of the loss ``outer`` for each weight, the response of delta to the weight included.

    moved: delta after one more step of its search, as a function of delta and the weights; delta is taken for its fixed
    point. steps: terms of the series of the implicit gradient.
    """
    direct = torch.autograd.grad(outer, weights, retain_graph=True)
    vector = torch.autograd.grad(outer, delta)[0]
    series = torch.zeros_like(vector)
    for _ in range(steps):
        series = vector + torch.autograd.grad(moved, delta, series, retain_graph=True)[0]
    indirect = torch.autograd.grad(moved, weights, series, allow_unused=True)
    return [one if other is None else one + other for one, other in zip(direct, indirect, strict=True)]


DEFENCES = {"i-bau": repair_defence("i-bau", IBauConfig, i_bau)}
