"""ANP: prune the neurons that adversarial perturbation of neurons exposes (Wu and Wang 2021, arXiv 2110.14430)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

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

    epsilon: Annotated[Positive, "Largest relative change of a channel's scale and shift."] = 0.4
    clean_weight: Annotated[Share, "Weight of the loss without that change beside the one with it."] = 0.2
    steps: Annotated[Count, "At least, in whole epochs."] = 2000
    accuracy_drop: Annotated[Share, "What pruning may cost of the accuracy on the clean images."] = 0.05
    learning_rate: Annotated[Positive, "Of the masks."] = 0.05
    momentum: Annotated[Part, "Of the masks."] = 0.9


def anp(model: Classifier, clean: LabelledBatches, config: AnpConfig) -> Classifier:
    """Return a copy of the model without the channels that matter to a backdoor.

    Every channel gets a mask in [0, 1], learned against the worst relative perturbation of its batch norm's scale and
    shift; the channels with the lowest masks are pruned one by one, as many as the accuracy on the clean images allows.

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
    masks = learn_masks(repaired, norms, clean, config)
    repaired.eval()
    least = accuracy(repaired, clean) - config.accuracy_drop
    prune(list(norms.values()), masks, lambda: accuracy(repaired, clean) >= least)
    return repaired.requires_grad_(True)


def learn_masks(
    model: nn.Module, norms: dict[str, nn.BatchNorm2d], clean: LabelledBatches, config: AnpConfig
) -> list[Tensor]:
    """Return a mask (channels,) in [0, 1] for each batch norm; the model's parameters and statistics stay."""
    model.train()  # batch statistics absorb what shrinks a whole layer
    momenta = [norm.momentum for norm in norms.values()]
    for norm in norms.values():
        norm.momentum = 0.0  # the running statistics stay
    masks = [torch.ones_like(norm.weight).requires_grad_(True) for norm in norms.values()]
    optimiser = torch.optim.SGD(masks, config.learning_rate, momentum=config.momentum)

    def masked_loss(x: Tensor, y: Tensor, shifts: Shifts) -> Tensor:
        values = {}
        for (name, norm), mask, (scale, shift) in zip(norms.items(), masks, shifts, strict=True):
            values[f"{name}.weight"] = (mask + scale) * norm.weight
            values[f"{name}.bias"] = (1 + shift) * norm.bias
        return functional.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    unmoved = pairs([torch.zeros_like(mask) for mask in masks for _ in ("scale", "shift")])
    for x, y in clean.steps(-(-config.steps // clean.steps_per_epoch)):
        start = [torch.zeros_like(mask).requires_grad_(True) for mask in masks for _ in ("scale", "shift")]
        slopes = torch.autograd.grad(masked_loss(x, y, pairs(start)), start)
        worst = pairs([config.epsilon * slope.sign() for slope in slopes])
        loss = config.clean_weight * masked_loss(x, y, unmoved) + (1 - config.clean_weight) * masked_loss(x, y, worst)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for mask in masks:
                mask.clamp_(0, 1)
    for norm, momentum in zip(norms.values(), momenta, strict=True):
        norm.momentum = momentum
    return [mask.detach() for mask in masks]


def pairs(tensors: list[Tensor]) -> Shifts:
    """Return tensors two by two."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def accuracy(model: nn.Module, clean: LabelledBatches) -> float:
    """Return the accuracy on the clean images, in [0, 1]."""
    predicted = logits(model, clean.images, clean.device).argmax(1)
    return float((predicted == torch.from_numpy(clean.labels)).float().mean())


@torch.no_grad()
def prune(norms: list[nn.BatchNorm2d], masks: list[Tensor], is_allowed: Callable[[], bool]) -> None:
    """Set the scales of channels to zero, the lowest mask first, until one is not allowed; the shifts stay."""
    channels = [(norm, channel) for norm in norms for channel in range(norm.num_features)]
    for index in torch.cat(masks).argsort(stable=True).tolist():
        norm, channel = channels[index]
        scale = norm.weight[channel].clone()
        norm.weight[channel] = 0
        if not is_allowed():
            norm.weight[channel] = scale
            return


DEFENCES = {"anp": repair_defence("anp", AnpConfig, anp)}
