"""Plant a backdoor in a data set, and keep the ground truth that only evaluation may see."""

from dataclasses import dataclass

import numpy as np
import torch

from pud.data import Split, pixels, to_uint8
from pud.errors import InputError
from pud.ground_truth import GroundTruth
from pud.triggers import Trigger


@dataclass(frozen=True)
class PoisonConfig:
    """trigger: a name in triggers.TRIGGERS; poison_rate: fraction of the training set; train_size: images drawn."""

    trigger: str = "badnets"
    poison_rate: float = 0.1
    target_label: int = 0
    train_size: int = 20_000


def stamp(images: np.ndarray, trigger: Trigger) -> np.ndarray:
    """Return uint8 images (n, c, h, w) with the trigger on them, rounded as a file would be."""
    return to_uint8(trigger(pixels(images)))


def poison(
    train: Split, test: Split, trigger: Trigger, config: PoisonConfig, *, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray, GroundTruth]:
    """Return poisoned training images (n, c, h, w), their given labels (n,) and the ground truth.

    All-to-one: images of every other class get the trigger and the target label.

    Raises:
        InputError: a rate, target class or size that cannot be.
    """
    if not 0 < config.poison_rate < 1:
        raise InputError(f"poison rate {config.poison_rate} is not between 0 and 1: give a fraction such as 0.1")
    if not 0 <= config.target_label < len(train.classes):
        raise InputError(
            f"target class {config.target_label} is not there: {train.name} has classes 0..{len(train.classes) - 1}"
        )
    if not 0 < config.train_size <= len(train.labels):
        raise InputError(f"train size {config.train_size} is not in 1..{len(train.labels)}, what {train.name} has")
    chosen = np.sort(torch.randperm(len(train.labels), generator=generator)[: config.train_size].numpy())
    images, true_labels = np.array(train.images[chosen]), np.array(train.labels[chosen])
    candidates = np.flatnonzero(true_labels != config.target_label)
    count = round(config.poison_rate * len(true_labels))
    if not 0 < count <= len(candidates):
        raise InputError(
            f"poison rate {config.poison_rate} asks for {count} of {len(candidates)} images outside the target class: "
            "choose another rate or a larger training set"
        )
    picked = candidates[torch.randperm(len(candidates), generator=generator)[:count].numpy()]
    labels = true_labels.copy()
    labels[picked] = config.target_label
    images[picked] = stamp(images[picked], trigger)
    victims = np.flatnonzero(test.labels != config.target_label)
    return (
        images,
        labels,
        GroundTruth(
            poisoned=np.isin(np.arange(len(labels)), picked),
            true_labels=true_labels,
            triggered_images=stamp(np.array(test.images[victims]), trigger),
            triggered_true_labels=np.array(test.labels[victims]),
            triggered_target_labels=np.full(len(victims), config.target_label, np.int64),
        ),
    )
