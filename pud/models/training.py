"""Plain training of a classifier: what makes the infected model."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.captured import CapturedStep
from pud.base.config import Count, Part, Positive
from pud.base.device import autocast, seeded
from pud.base.processes import add_up, own, shared_norms
from pud.base.progress import say, track
from pud.data.batches import BatchConfig, Batches, RandomStream
from pud.models.make import check_architecture

FEW_STEPS = 4


@dataclass(frozen=True)
class TrainConfig(BatchConfig):
    """SGD with Nesterov momentum under a one-cycle learning rate."""

    architecture: Annotated[str, "A network by name: see pud/models/architectures."] = "resnet8"
    epochs: Annotated[Count, "Over the whole training set."] = 6
    learning_rate: Annotated[Positive, "Highest of the one-cycle schedule."] = 0.1
    momentum: Annotated[Part, "Of SGD."] = 0.9
    weight_decay: Annotated[float, "Of SGD."] = 5e-4
    sam_radius: Annotated[
        float, "Of the ball of weights from whose worst SGD descends (sharpness-aware minimisation); 0: plain SGD."
    ] = 0.0

    def __post_init__(self) -> None:
        check_architecture(self.architecture)


def sgd(
    model: nn.Module, learning_rate: float, momentum: float, weight_decay: float, device: torch.device
) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; on a GPU its learning rate is a tensor there, so that it can be captured."""
    rate = torch.tensor(learning_rate, device=device) if device.type == "cuda" else learning_rate
    return torch.optim.SGD(
        model.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay, nesterov=True, fused=True
    )


@contextmanager
def worst_nearby(model: nn.Module, radius: float, *, relative: bool = False) -> Iterator[None]:
    """Let the weights be where their gradients say that the loss is worst in a ball, then where they were.

    The climb of sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412). Meanwhile batch norms, which are in
    training mode, do not remember what they see. relative: the ball's axes are the sizes of the weights (Kwon et al.
    2021, arXiv 2102.11600), else they are equal.
    """
    weights = [weight for weight in model.parameters() if weight.grad is not None]

    def in_metric(step: Tensor, weight: Tensor) -> Tensor:
        return weight.abs() * step if relative else step

    before = [weight.detach().clone() for weight in weights]
    momenta = {norm: norm.momentum for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)}
    with torch.no_grad():
        climbs = [in_metric(weight.grad, weight) for weight in weights if weight.grad is not None]
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(climb) for climb in climbs]))
        for weight, climb in zip(weights, climbs, strict=True):
            weight.add_(radius / (length + 1e-12) * in_metric(climb, weight))
    for each in momenta:
        each.momentum = 0.0
    yield
    with torch.no_grad():
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    for each, momentum in momenta.items():
        each.momentum = momentum


def set_rate(optimiser: torch.optim.SGD, learning_rate: float) -> None:
    """Set the learning rate, without waiting for a GPU where it lies on one."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def one_cycle(highest: float, steps: int) -> list[float]:
    """Return the learning rate of every step: up from a 25th in 30 % of the steps, down to nearly nothing in the rest.

    Both along a cosine (Smith and Topin 2019, arXiv 1708.07120; torch's OneCycleLR, whose momentum stays here).
    """
    low, last = highest / 25, highest / 25e4
    top = 0.3 * steps - 1

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    return [
        between(low, highest, step / top) if step <= top else between(highest, last, (step - top) / (steps - 1 - top))
        for step in range(steps)
    ]


def train(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    config: TrainConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    rows: np.ndarray | None = None,
    disturb: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> None:
    """Train ``model`` in place on uint8 images (n, c, h, w) with labels (n,), or on these rows of them.

    ``disturb`` changes a batch of images in [0, 1] on the device before the model sees it, after augmentation.
    """
    rows = np.arange(len(labels)) if rows is None else rows
    order = [rows[index.numpy()] for index in batches(len(rows), config.batch_size, config.epochs, generator)]
    pictures, random = Batches(images, device, resident_gib=config.resident_gib), RandomStream(generator, device)
    augment = config.augmentation(images.shape[1])
    optimiser = sgd(model, config.learning_rate, config.momentum, config.weight_decay, device)
    rates = one_cycle(config.learning_rate, len(order))
    targets = torch.from_numpy(labels).to(device)

    def find_gradients(x: Tensor, target: Tensor) -> None:
        with autocast(device):
            output = model(x)
        loss = functional.cross_entropy(output.float(), target, reduction="sum") / len(order[0])
        optimiser.zero_grad()
        loss.backward()
        add_up(parameter.grad for parameter in model.parameters())

    def step(x: Tensor, target: Tensor) -> None:
        find_gradients(x, target)
        if config.sam_radius:
            with worst_nearby(model, config.sam_radius):
                find_gradients(x, target)
        optimiser.step()

    model.train()
    learn = CapturedStep(step, device)
    with shared_norms(model), seeded(generator, device):
        for index, x in enumerate(track(pictures.stream(order), "train", total=len(order))):
            numbers = random.at(index)
            x = augment(x, numbers) if augment else x
            x = disturb(x, numbers) if disturb else x
            set_rate(optimiser, rates[index])
            learn(own(x), own(targets[torch.from_numpy(order[index]).to(device)]))
    model.eval()


def warn_of_few_steps(n: int, batch_size: int) -> None:
    """Tell the person who chose a batch size that it leaves too few steps in an epoch of n images to learn much."""
    if (steps := n // min(batch_size, n)) < FEW_STEPS:
        say(f"batches of {batch_size} leave {steps} step(s) in an epoch of {n} images: give a smaller batch_size")


def batches(n: int, batch_size: int, epochs: int, generator: torch.Generator) -> list[Tensor]:
    """Return the indices of every step: each epoch a new order, cut into equal batches, the short last one left out."""
    size = min(batch_size, n)
    return [
        batch
        for _ in range(epochs)
        for batch in torch.randperm(n, generator=generator).split(size)
        if len(batch) == size
    ]
