"""Plain training of a classifier: what makes the infected model."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.config import Count, Part, Positive
from pud.base.device import autocast
from pud.base.progress import say, track
from pud.data.images import pixels
from pud.models.classifier import check_architecture

FEW_STEPS = 4


@dataclass(frozen=True)
class TrainConfig:
    """SGD with Nesterov momentum under a one-cycle learning rate; epochs over the whole training set."""

    architecture: str = "resnet8"
    epochs: Count = 6
    learning_rate: Positive = 0.1
    momentum: Part = 0.9
    weight_decay: float = 5e-4
    batch_size: Count = 128

    def __post_init__(self) -> None:
        check_architecture(self.architecture)


def train(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    config: TrainConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Train ``model`` in place on uint8 images (n, c, h, w) with labels (n,).

    ``augment`` changes a batch of images in [0, 1] before the model sees it.
    """
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
    )
    order = batches(len(labels), config.batch_size, config.epochs, generator)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=len(order))
    targets = torch.from_numpy(labels)
    model.train()
    for index in track(order, "train"):
        chosen = index.numpy()
        x = pixels(images[chosen])
        x = (augment(x) if augment else x).to(device)
        with autocast(device):
            output = model(x)
        loss = functional.cross_entropy(output.float(), targets[index].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
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
