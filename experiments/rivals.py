"""Rival defences that repair a model with a small clean data set, written small from their papers.

Each takes an infected model and what it is given, and returns a repaired copy in evaluation mode. ``RIVALS`` names the
two learning rates at which each is tried.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from pud.base.progress import track
from pud.data.images import pixels
from pud.evaluation.metrics import clean_accuracy
from pud.models.classifier import ConvNorm, ResNet, logits
from pud.models.training import batches

EPOCHS, BATCH = 100, 128
SAM_RADIUS = 2.0  # rho of FT-SAM on small images
BAU_ROUNDS, BAU_INNER_STEPS, BAU_RADIUS, BAU_FIXED_POINT = 20, 5, 10.0, 5
BAU_PORTION = 0.01  # of a batch that the perturbation unlearns at once, as in the authors' code
ANP_EPSILON, ANP_WEIGHT, ANP_STEPS, ANP_DROP = 0.4, 0.2, 2000, 0.05  # drop: of accuracy that pruning may cost


@dataclass(frozen=True)
class Given:
    """What a rival gets: clean uint8 images (n, c, h, w) and labels (n,), and how to use them."""

    images: np.ndarray
    labels: np.ndarray
    learning_rate: float
    generator: torch.Generator
    device: torch.device

    def steps(self, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of images in [0, 1] and labels."""
        targets = torch.from_numpy(self.labels)
        for index in track(batches(len(self.labels), BATCH, epochs, self.generator), "repair"):
            yield pixels(self.images[index.numpy()]).to(self.device), targets[index].to(self.device)


def _sgd(model: nn.Module, given: Given) -> tuple[torch.optim.SGD, CosineAnnealingLR]:
    """Return the optimiser of fine-tuning, its rate falling to zero by a cosine."""
    optimiser = torch.optim.SGD(model.parameters(), given.learning_rate, momentum=0.9, weight_decay=5e-4)
    return optimiser, CosineAnnealingLR(optimiser, EPOCHS * max(1, len(given.labels) // BATCH))


def fine_tune(model: ResNet, given: Given) -> ResNet:
    """Fine-tune on the clean images."""
    repaired = copy.deepcopy(model).requires_grad_(True).train()
    optimiser, schedule = _sgd(repaired, given)
    for x, y in given.steps(EPOCHS):
        optimiser.zero_grad()
        functional.cross_entropy(repaired(x), y).backward()
        optimiser.step()
        schedule.step()
    return repaired.eval()


def ft_sam(model: ResNet, given: Given) -> ResNet:
    """Fine-tune with adaptive sharpness-aware minimisation (Zhu et al. 2023, arXiv 2304.11823).

    Every step climbs to the worst weights in a ball whose axes are the weights' own sizes, and descends from there.
    """
    repaired = copy.deepcopy(model).requires_grad_(True).train()
    optimiser, schedule = _sgd(repaired, given)
    weights = list(repaired.parameters())
    for x, y in given.steps(EPOCHS):
        optimiser.zero_grad()
        functional.cross_entropy(repaired(x), y).backward()
        climbs = sam_climb(weights, SAM_RADIUS)
        with torch.no_grad():
            for weight, climb in zip(weights, climbs, strict=True):
                weight += climb
        optimiser.zero_grad()
        functional.cross_entropy(repaired(x), y).backward()
        with torch.no_grad():
            for weight, climb in zip(weights, climbs, strict=True):
                weight -= climb
        optimiser.step()
        schedule.step()
    return repaired.eval()


@torch.no_grad()
def sam_climb(weights: list[nn.Parameter], radius: float) -> list[Tensor]:
    """Return the steps e with |e / |w|| = radius that climb most, from the weights' gradients (ASAM's metric)."""
    scaled = [weight.abs() * weight.grad for weight in weights if weight.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in scaled])) + 1e-12
    return [radius * weight.abs() * part / norm for weight, part in zip(weights, scaled, strict=True)]


def i_bau(model: ResNet, given: Given) -> ResNet:
    """Unlearn a universal perturbation by implicit hypergradients (Zeng et al. 2022, arXiv 2110.03735).

    Rounds of: find the perturbation, bounded in L2, that most raises the loss on clean images; step along the gradient
    of the perturbed loss, with the response of the perturbation to the weights by a fixed-point iteration.
    """
    repaired = copy.deepcopy(model).requires_grad_(True).eval()
    optimiser = torch.optim.Adam(repaired.parameters(), given.learning_rate)
    weights = list(repaired.parameters())

    def loss_of(x: Tensor, y: Tensor, shift: Tensor) -> Tensor:
        return functional.cross_entropy(repaired((x + shift).clamp(0, 1)), y)

    for _ in range(BAU_ROUNDS):
        delta = torch.zeros(1, *given.images.shape[1:], device=given.device)
        for x, y in given.steps(1):
            for _ in range(BAU_INNER_STEPS):
                delta.requires_grad_(True)
                climb = torch.autograd.grad(loss_of(x, y, delta), delta)[0]
                delta = within_ball(delta.detach() + climb / (climb.norm() + 1e-12), BAU_RADIUS)
            delta.requires_grad_(True)
            portion = torch.rand(len(x), 1, 1, 1, generator=given.generator) < BAU_PORTION
            portion[0] = True
            outer = loss_of(x, y, portion.to(x) * delta)
            direct = torch.autograd.grad(outer, weights, retain_graph=True)
            vector = torch.autograd.grad(outer, delta, retain_graph=True)[0]
            inner = (
                delta + 0.1 * torch.autograd.grad(loss_of(x, y, delta), delta, create_graph=True)[0]
            )  # one inner step's map
            series = vector
            for _ in range(BAU_FIXED_POINT):
                series = vector + torch.autograd.grad(inner, delta, series, retain_graph=True)[0] * 0.9
            indirect = torch.autograd.grad(inner, weights, series, allow_unused=True)
            optimiser.zero_grad()
            for weight, one, other in zip(weights, direct, indirect, strict=True):
                weight.grad = one if other is None else one + other
            optimiser.step()
            delta = delta.detach()
    return repaired.eval()


def within_ball(delta: Tensor, radius: float) -> Tensor:
    """Return delta projected on the L2 ball."""
    return delta * min(1.0, radius / (float(delta.norm()) + 1e-12))


def anp(model: ResNet, given: Given) -> ResNet:
    """Prune the neurons that adversarial perturbation of neurons exposes (Wu and Wang 2021, arXiv 2110.14430).

    Every channel gets a mask in [0, 1], learned against the worst relative perturbation of its batch norm's scale and
    shift; the channels with the lowest masks are pruned one by one, as many as the accuracy on the given images allows.
    """
    repaired = copy.deepcopy(model).requires_grad_(False).train()  # batch statistics absorb what shrinks a whole layer
    norms = [module.norm for module in repaired.modules() if isinstance(module, ConvNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the running statistics stay
    original = [(norm.weight.detach().clone(), norm.bias.detach().clone()) for norm in norms]
    masks = [torch.ones_like(norm.weight).requires_grad_(True) for norm in norms]
    optimiser = torch.optim.SGD(masks, given.learning_rate, momentum=0.9)

    def masked_loss(x: Tensor, y: Tensor, shifts: list[tuple[Tensor, Tensor]]) -> Tensor:
        values = {}
        names = {id(norm): name for name, norm in repaired.named_modules()}
        for norm, mask, (weight, bias), (scale, shift) in zip(norms, masks, original, shifts, strict=True):
            values[names[id(norm)] + ".weight"] = (mask + scale) * weight
            values[names[id(norm)] + ".bias"] = (1 + shift) * bias
        return functional.cross_entropy(torch.func.functional_call(repaired, values, (x,)), y)

    zero = [(torch.zeros_like(mask), torch.zeros_like(mask)) for mask in masks]
    epochs = -(-ANP_STEPS // max(1, len(given.labels) // BATCH))
    for x, y in given.steps(epochs):
        worst = [tuple(torch.zeros_like(mask).requires_grad_(True) for _ in range(2)) for mask in masks]
        flat = [shift for pair in worst for shift in pair]
        slopes = torch.autograd.grad(masked_loss(x, y, worst), flat)
        moved = [ANP_EPSILON * slope.sign() for slope in slopes]
        pairs = list(zip(moved[::2], moved[1::2], strict=True))
        loss = ANP_WEIGHT * masked_loss(x, y, zero) + (1 - ANP_WEIGHT) * masked_loss(x, y, pairs)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for mask in masks:
                mask.clamp_(0, 1)
    repaired.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    least = accuracy(repaired, given) - ANP_DROP
    prune(norms, masks, lambda: accuracy(repaired, given) >= least)
    return repaired.requires_grad_(True)


def accuracy(model: ResNet, given: Given) -> float:
    """Return the accuracy on the given images."""
    return clean_accuracy(logits(model, given.images, given.device), torch.from_numpy(given.labels))


@torch.no_grad()
def prune(norms: list[nn.BatchNorm2d], masks: list[Tensor], is_allowed: Callable[[], bool]) -> None:
    """Set the scales of channels to zero, the lowest mask first, until one is not allowed; the shifts stay."""
    channels = [(norm, channel) for norm in norms for channel in range(norm.num_features)]
    for index in torch.cat([mask.detach() for mask in masks]).argsort(stable=True).tolist():
        norm, channel = channels[index]
        scale = norm.weight[channel].clone()
        norm.weight[channel] = 0
        if not is_allowed():
            norm.weight[channel] = scale
            return


Rival = Callable[[ResNet, Given], ResNet]
RIVALS: dict[str, tuple[Rival, tuple[float, float]]] = {
    "fine-tuning": (fine_tune, (0.01, 0.05)),
    "FT-SAM": (ft_sam, (0.01, 0.05)),
    "I-BAU": (i_bau, (3e-4, 1e-3)),
    "ANP": (anp, (0.05, 0.2)),
}
