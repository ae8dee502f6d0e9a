"""Trigger inversion: how little, done to any image alike, sends a model to each of its classes.

A backdoor is a short way to a class. Whether a model has one needs no poisoned image: for every class the smallest
change is sought that sends most images of other classes there, by gradients and with Lagrange multipliers that grow
where it succeeds and shrink where it does not (Wang et al. 2019, Neural Cleanse, doi 10.1109/SP.2019.00031). A change
is of one of three kinds, each with a size of its own:

- *patch*: pixels become others, wherever a mask says so; its size is the mask's area in pixels;
- *shift*: the same values are added to every image (Moosavi-Dezfooli et al. 2017, arXiv 1610.08401); their L2 norm;
- *warp*: a smooth displacement; its root mean square in pixels of an image that is 32 high.

Some classes are near to everything, a bag or a background. So the same is sought in a network of our own, which learned
from the same images and labels and is as near to them: what is in the weights alone is not in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.config import Count, Part
from pud.base.device import autocast
from pud.base.processes import gathered, own_batches
from pud.base.progress import track
from pud.data.batches import Batches, RandomStream, slices
from pud.evidence.cross_examination import fresh
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm
from pud.models.training import TrainConfig, train

MEMORY = 0.8  # of the success so far, at each step
GROWTH = 1.1  # of a multiplier, at each step
FIRST = 0.1  # multiplier of a size, relative to it, when a change first succeeds
CONTROL_POINTS = 6  # of a warp, along a side
USUAL_HEIGHT = 32


@dataclass(frozen=True)
class InversionConfig:
    """How triggers are sought. Steps and images as far as more find nothing else (docs/decisions.md)."""

    inversion_steps: Annotated[int, "Of gradient descent, for each kind of change; 0: none is sought."] = 100
    inversion_images: Annotated[Count, "Of other classes, for each class and step."] = 16
    inversion_success: Annotated[Part, "Share of them that a change must send to the class."] = 0.9
    inversion_epochs: Annotated[Count, "Training of the network that is compared with."] = 6


class Change(nn.Module):
    """A change for each of k classes.

    learning_rate: of Adam.
    """

    learning_rate: float

    def forward(self, images: Tensor) -> Tensor:
        """Return images (k, m, c, h, w), m for each class, as they are changed."""
        raise NotImplementedError

    def size(self) -> Tensor:
        """Return how large each change is, (k,)."""
        raise NotImplementedError


class Patch(Change):
    """Pixels become others where a mask says so."""

    learning_rate = 0.2

    def __init__(self, classes: int, shape: torch.Size, random: torch.Generator) -> None:
        super().__init__()
        self.mask = nn.Parameter(0.1 * noise((classes, 1, 1, *shape[1:]), random) - 1)
        self.pattern = nn.Parameter(0.1 * noise((classes, 1, *shape), random))

    def forward(self, images: Tensor) -> Tensor:
        return torch.lerp(images, self.pattern.sigmoid(), self.mask.sigmoid())

    def size(self) -> Tensor:
        return self.mask.sigmoid().sum((1, 2, 3, 4))


class Shift(Change):
    """The same values are added to every image."""

    learning_rate = 0.02

    def __init__(self, classes: int, shape: torch.Size, random: torch.Generator) -> None:
        super().__init__()
        self.values = nn.Parameter(0.02 * noise((classes, 1, *shape), random))

    def forward(self, images: Tensor) -> Tensor:
        return (images + self.values).clamp(0, 1)

    def size(self) -> Tensor:
        return self.values.flatten(1).norm(dim=1)


class Warp(Change):
    """A smooth displacement between control points."""

    learning_rate = 0.1

    def __init__(self, classes: int, shape: torch.Size, random: torch.Generator) -> None:
        super().__init__()
        self.side = shape[1:]
        self.points = nn.Parameter(0.2 * noise((classes, 2, CONTROL_POINTS, CONTROL_POINTS), random))
        rows, columns = (torch.linspace(-1, 1, side, device=random.device) for side in self.side)
        self.identity = torch.stack([columns.expand(*self.side), rows[:, None].expand(*self.side)], 2)

    def field(self) -> Tensor:
        """Return the displacement (k, 2, h, w) in pixels of an image of the usual height."""
        return functional.interpolate(self.points, self.side, mode="bicubic", align_corners=True)

    def forward(self, images: Tensor) -> Tensor:
        moved = self.field().permute(0, 2, 3, 1) * (2 / USUAL_HEIGHT)  # an image is 2 wide to the sampling grid
        grid = (self.identity + moved).repeat_interleave(images.shape[1], 0)
        warped = functional.grid_sample(images.flatten(0, 1), grid, padding_mode="border", align_corners=True)
        return warped.unflatten(0, images.shape[:2])

    def size(self) -> Tensor:
        return self.field().square().sum(1).mean((1, 2)).sqrt()


KINDS: tuple[type[Change], ...] = (Patch, Shift, Warp)


def noise(shape: Sequence[int], random: torch.Generator) -> Tensor:
    """Return normal numbers of a shape on the generator's device."""
    return torch.randn(*shape, generator=random, device=random.device)


def invert(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: InversionConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    batch_size: int,
) -> np.ndarray:
    """Return the natural logarithms of the smallest changes to each class in the given model and in one of our own.

    Both learned from uint8 images (n, c, h, w) with labels (n,).

    Returns:
        float32 (2, kinds, k); zeros where none is sought.
    """
    if not config.inversion_steps:
        return np.zeros((2, len(KINDS), model.classes), np.float32)
    own = fresh(model, generator)
    train(own, images, labels, TrainConfig(epochs=config.inversion_epochs), generator=generator, device=device)
    found = [
        smallest_changes(network, images, labels, config, generator=generator, device=device, batch_size=batch_size)
        for network in (model, own)
    ]
    return np.stack(found)


def smallest_changes(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: InversionConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    batch_size: int,
) -> np.ndarray:
    """Return the natural logarithms of the smallest changes that lead a model to each class, float32 (kinds, k)."""
    fast, pictures, random = fold_batchnorm(model), Batches(images, device), RandomStream(generator, device)
    groups = slices(model.classes, max(1, batch_size // config.inversion_images))
    work = [(kind, group) for kind in range(len(KINDS)) for group in groups]
    sizes = np.zeros((len(KINDS), model.classes), np.float32)
    for index, (kind, group) in track(own_batches(work), "invert"):
        classes = np.arange(model.classes)[group]
        change = KINDS[kind](len(classes), torch.Size(images.shape[1:]), random.at(index))
        chance = np.random.default_rng(random.seed + index)
        sizes[kind, group] = np.log(smallest(fast, change, pictures, labels, classes, config, chance))
    gathered(sizes, device=device)
    return sizes


def smallest(
    model: Classifier,
    change: Change,
    pictures: Batches,
    labels: np.ndarray,
    classes: np.ndarray,
    config: InversionConfig,
    chance: np.random.Generator,
) -> np.ndarray:
    """Return the smallest size, (m,), at which a change leads to each of m classes.

    The last size where it never does, as from images that are all of a class.
    """
    count, device = config.inversion_images, pictures.device
    others = [np.flatnonzero(labels != label) for label in classes]
    others = [pool if len(pool) else np.arange(len(labels)) for pool in others]
    wanted = torch.from_numpy(classes).to(device).repeat_interleave(count)
    adam = torch.optim.Adam(change.parameters(), lr=change.learning_rate, betas=(0.5, 0.9))
    price = torch.zeros(len(classes), device=device)
    success, least = torch.zeros_like(price), torch.full_like(price, math.inf)
    for step in range(config.inversion_steps):
        rows = np.concatenate([chance.choice(pool, count) for pool in others])
        shown = change(pictures[rows].unflatten(0, (len(classes), count)))
        with autocast(device):
            said = model(shown.flatten(0, 1))
        size = change.size()
        loss = functional.cross_entropy(said.float(), wanted, reduction="sum") / count + (price * size).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            right = (said.argmax(1) == wanted).float().unflatten(0, (len(classes), count)).mean(1)
            success = torch.lerp(right, success, MEMORY) if step else right
            succeeds = success >= config.inversion_success
            price = torch.where(succeeds & (price == 0), FIRST / size, price)
            price = torch.where(succeeds, price * GROWTH, price / GROWTH)
            least = torch.where(succeeds, torch.minimum(least, size), least)
    return torch.where(least.isinf(), size, least).clamp(min=torch.finfo(torch.float32).tiny).detach().cpu().numpy()
