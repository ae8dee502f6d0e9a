"""ANP: prune the neurons that adversarial perturbation of neurons exposes (Wu and Wang 2021, arXiv 2110.14430).

As in the authors' code the perturbation starts anywhere in its range and then takes a step of that length. They report
all thresholds of the masks up to 0.9 and leave the choice to the reader; here the accuracy on the clean images chooses.
It does not fall evenly as channels go, since half of a group that cancels costs more than all of it: so the count goes
on past a dip. Masks that are equal, as many are at their learning rate of 0.2, go in the order in which they fell.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.config import Count, Part, Positive, Share
from pud.base.errors import InputError
from pud.defences.repair import LabelledBatches, RepairConfig, repair_defence
from pud.models.contract import Classifier
from pud.models.inference import logits

Shifts = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class AnpConfig(RepairConfig):
    """How the masks of the channels are learned, and how much is pruned by them."""

    epsilon: Annotated[
        Positive, "Relative change of a channel's scale and shift: where it starts at most, and its step from there."
    ] = 0.4
    clean_weight: Annotated[Share, "Weight of the loss without that change beside the one with it."] = 0.2
    steps: Annotated[Count, "At least, in whole epochs."] = 2000
    accuracy_drop: Annotated[Share, "What pruning may cost of the accuracy on the clean images."] = 0.05
    highest_mask: Annotated[Share, "Up to which a channel may be pruned."] = 0.9
    cuts: Annotated[Count, "Numbers of pruned channels that are tried, evenly spaced."] = 100
    learning_rate: Annotated[Positive, "Of the masks."] = 0.05
    momentum: Annotated[Part, "Of the masks."] = 0.9


def anp(model: Classifier, clean: LabelledBatches, config: AnpConfig) -> Classifier:
    """Return a copy of the model without the channels that matter to a backdoor.

    Every channel gets a mask in [0, 1], learned against the worst relative perturbation of its batch norm's scale and
    shift; the channels with the lowest masks are pruned, as many as the accuracy on the clean images allows.

    Raises:
        InputError: the network has no batch normalisation.
    """
    repaired = copy.deepcopy(model).requires_grad_(False)
    norms = {
        name: module
        for name, module in repaired.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.affine
    }
    if not norms:
        raise InputError("anp prunes channels of batch norms, and this network has none: choose another defence")
    masks, means = learn_masks(repaired, norms, clean, config)
    repaired.eval()
    least = accuracy(repaired, clean) - config.accuracy_drop
    numbers = np.linspace(0, int((masks <= config.highest_mask).sum()), config.cuts + 1).round().astype(int)
    order = np.lexsort((means.numpy(), masks.numpy()))
    prune(list(norms.values()), order, np.unique(numbers), lambda: accuracy(repaired, clean) >= least)
    return repaired.requires_grad_(True)


def learn_masks(
    model: nn.Module, norms: dict[str, nn.BatchNorm2d], clean: LabelledBatches, config: AnpConfig
) -> tuple[Tensor, Tensor]:
    """Return the masks in [0, 1] of all batch norms' channels (channels,) and their means over all steps, on the CPU.

    The model's parameters and statistics stay.
    """
    model.train()  # batch statistics absorb what shrinks a whole layer
    momenta = [norm.momentum for norm in norms.values()]
    for norm in norms.values():
        norm.momentum = 0.0  # the running statistics stay
    masks = [torch.ones_like(norm.weight).requires_grad_(True) for norm in norms.values()]
    total = torch.zeros_like(torch.cat(masks))
    optimiser = torch.optim.SGD(masks, config.learning_rate, momentum=config.momentum)

    def masked_loss(x: Tensor, y: Tensor, shifts: Shifts) -> Tensor:
        values = {}
        for (name, norm), mask, (scale, shift) in zip(norms.items(), masks, shifts, strict=True):
            values[f"{name}.weight"] = (mask + scale) * norm.weight
            values[f"{name}.bias"] = (1 + shift) * norm.bias
        return functional.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    unmoved = pairs([torch.zeros_like(mask) for mask in masks for _ in ("scale", "shift")])
    epochs = -(-config.steps // clean.steps_per_epoch)
    for x, y in clean.steps(epochs):
        start = [anywhere(mask, config.epsilon, clean.generator) for mask in masks for _ in ("scale", "shift")]
        slopes = torch.autograd.grad(masked_loss(x, y, pairs(start)), start)
        worst = pairs([at.detach() + config.epsilon * slope.sign() for at, slope in zip(start, slopes, strict=True)])
        loss = config.clean_weight * masked_loss(x, y, unmoved) + (1 - config.clean_weight) * masked_loss(x, y, worst)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for mask in masks:
                mask.clamp_(0, 1)
            total += torch.cat(masks)
    for norm, momentum in zip(norms.values(), momenta, strict=True):
        norm.momentum = momentum
    return torch.cat(masks).detach().cpu(), total.cpu() / (epochs * clean.steps_per_epoch)


def anywhere(like: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Return a leaf of the shape and device of a tensor, uniform between -most and most."""
    drawn = torch.rand(like.shape, generator=generator).mul_(2 * most).sub_(most)
    return drawn.to(like.device).requires_grad_(True)


def pairs(tensors: list[Tensor]) -> Shifts:
    """Return tensors two by two."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def accuracy(model: nn.Module, clean: LabelledBatches) -> float:
    """Return the accuracy on the clean images, in [0, 1]."""
    predicted = logits(model, clean.images, clean.device).argmax(1)
    return float((predicted == torch.from_numpy(clean.labels)).float().mean())


@torch.no_grad()
def prune(norms: list[nn.BatchNorm2d], order: np.ndarray, numbers: np.ndarray, is_allowed: Callable[[], bool]) -> None:
    """Set the scales of channels to zero, in this order over all layers; the shifts stay.

    As many as the largest of the rising ``numbers`` at which that is allowed; none where it never is.
    """
    whole = torch.cat([norm.weight for norm in norms])

    def leave_out(count: int) -> None:
        scales = whole.clone()
        scales[order[:count]] = 0
        for norm, own in zip(norms, scales.split([norm.num_features for norm in norms]), strict=True):
            norm.weight.copy_(own)

    most = 0
    for count in numbers:
        leave_out(count)
        if is_allowed():
            most = count
    leave_out(most)


DEFENCES = {"anp": repair_defence("anp", AnpConfig, anp)}
