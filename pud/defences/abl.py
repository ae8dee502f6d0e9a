"""ABL: isolate what is learned first, unlearn it at the end (Li et al. 2021, arXiv 2110.11571).

It needs neither a detection nor clean images: a round takes every image under its given label and starts from scratch,
so that one round is all of it. Poison is learned faster than content. So a network is trained with its loss held at a
floor, where the images that it fits best are isolated; then on all others; at last, by gradient ascent, it unlearns
those that were isolated. The floor is local gradient ascent of a batch's mean loss L, sign(L - gamma) L, and flooding,
|L - gamma| + gamma, alike: both have the same gradient.

Settings are those of the authors' code, but that unlearning counts steps, of which a small isolated set has few in an
epoch. Weaker augmentation than theirs (no cutout) is that of all training here.
"""

import dataclasses
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pud.base.config import Count, Part, Positive, from_mapping
from pud.base.device import autocast, seeded
from pud.data.batches import BatchConfig
from pud.defences.contract import Defence, Selection, SelectionRule, State
from pud.defences.repair import LabelledBatches
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import set_rate, warn_of_few_steps


@dataclass(frozen=True)
class AblConfig(BatchConfig):
    """SGD with Nesterov momentum in three parts."""

    isolation_epochs: Annotated[Count, "Before images are isolated, over all, not augmented."] = 10
    floor: Annotated[Positive, "Of the loss until then (the paper's gamma)."] = 0.5
    isolated: Annotated[Part, "Share of all images that is isolated, those of the lowest loss."] = 0.01
    epochs: Annotated[Count, "Over the other images; the learning rate falls to a tenth after two thirds."] = 60
    learning_rate: Annotated[Positive, "Until it falls."] = 0.1
    unlearning_steps: Annotated[Count, "On isolated images: at least, in whole epochs."] = 20
    unlearning_rate: Annotated[Positive, "Learning rate of the unlearning."] = 5e-4
    momentum: Annotated[Part, "Of SGD."] = 0.9
    weight_decay: Annotated[float, "Of SGD."] = 1e-4


def run(
    state: State,
    images: np.ndarray,
    selection: Selection,
    config: AblConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> None:
    """Train a network of the student's kind from scratch on all images, whatever was selected."""
    warn_of_few_steps(len(images), config.batch_size)
    model = state.student.rebuild(int(torch.randint(2**31, (1,), generator=generator)))
    optimiser = torch.optim.SGD(
        model.parameters(), momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )

    def part(rows: np.ndarray, *, augmented: bool) -> LabelledBatches:
        how = config if augmented else dataclasses.replace(config, crop=0.0, flip=False)
        return LabelledBatches(images[rows], selection.labels[rows], how, generator, device)

    def learn(lessons: LabelledBatches, rates: list[float], aim: Callable[[Tensor], Tensor]) -> None:
        """Take a learning rate for each epoch; lower what ``aim`` makes of a batch's mean loss."""
        model.train()
        for step, (x, y) in enumerate(lessons.steps(len(rates), "abl")):
            set_rate(optimiser, rates[step // lessons.steps_per_epoch])
            with autocast(device):
                output = model(x)
            optimiser.zero_grad()
            aim(functional.cross_entropy(output.float(), y)).backward()
            optimiser.step()
        model.eval()

    with seeded(generator, device):
        everything = np.arange(len(images))
        learn(
            part(everything, augmented=False),
            [config.learning_rate] * config.isolation_epochs,
            lambda loss: (loss - config.floor).abs(),
        )
        isolated = lowest_losses(model, images, selection.labels, config.isolated, device)
        high = config.epochs * 2 // 3
        rates = [config.learning_rate] * high + [config.learning_rate / 10] * (config.epochs - high)
        learn(part(np.setdiff1d(everything, isolated), augmented=True), rates, operator.pos)
        unlearned = part(isolated, augmented=False)
        epochs = -(-config.unlearning_steps // unlearned.steps_per_epoch)
        learn(unlearned, [config.unlearning_rate] * epochs, operator.neg)
    state.replace_model(model)


def lowest_losses(
    model: Classifier, images: np.ndarray, labels: np.ndarray, share: float, device: torch.device
) -> np.ndarray:
    """Return the rows of this share of images (n, c, h, w), one at least, of which the labels (n,) surprise least.

    At least one image is not among them.
    """
    losses = functional.cross_entropy(logits(model, images, device), torch.from_numpy(labels), reduction="none")
    return np.argsort(losses.numpy(), kind="stable")[: max(1, min(int(share * len(labels)), len(labels) - 1))]


DEFENCES = {
    "abl": Defence(
        "abl",
        configure=partial(from_mapping, AblConfig),
        ask=lambda config, round_index: SelectionRule(keep=1.0, relabel=False),
        run=run,
    )
}
