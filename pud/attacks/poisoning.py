"""Plant a backdoor in a data set, and keep the ground truth that only evaluation may see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pud import attacks
from pud.attacks.contract import AttackerKnowledge, Trigger
from pud.attacks.ground_truth import GroundTruth
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels, to_uint8

ALL_TO_ONE, ALL_TO_ALL = "all-to-one", "all-to-all"


@dataclass(frozen=True)
class PoisonConfig:
    """Which backdoor is planted, and in how many images; how strong it is says the attack's own config."""

    attack: Annotated[str, "Name of an attack: see pud/attacks."] = "badnets"
    mapping: Annotated[str, "all-to-one leads to the target class, all-to-all to the class after the true one."] = (
        ALL_TO_ONE
    )
    poison_rate: Annotated[
        float, "Share of the images (clean-label attacks: of the target class); 0 leaves the data clean."
    ] = 0.1
    target_label: Annotated[int, "Number of the target class."] = 0
    train_size: Annotated[int, "Images drawn from the training set."] = 20_000


def stamp(images: np.ndarray, trigger: Trigger, *, batch: int = 500) -> np.ndarray:
    """Return uint8 images (n, c, h, w) with the trigger on them, rounded as a file would be."""
    parts = [to_uint8(trigger(pixels(images[i : i + batch]))) for i in range(0, len(images), batch)]
    return np.concatenate(parts) if parts else np.array(images)


def poison(
    train: LabelledImages,
    test: LabelledImages,
    config: PoisonConfig,
    strength: Any = None,
    *,
    generator: torch.Generator,
    device: torch.device | None = None,
) -> tuple[np.ndarray, np.ndarray, GroundTruth]:
    """Return poisoned training images (n, c, h, w), their given labels (n,) and the ground truth.

    Args:
        strength: the attack's own config, of the type that ``pud.attacks.attack_config`` gives; None: its defaults.

    Raises:
        InputError: an attack, mapping, rate, target class or size that cannot be.
    """
    method = attacks.ATTACKS.find(config.attack)
    classes = len(train.classes)
    if not 0 <= config.poison_rate < 1:
        raise InputError(f"poison rate {config.poison_rate} is not in [0, 1): give a fraction such as 0.1")
    if not 0 <= config.target_label < classes:
        raise InputError(f"target class {config.target_label} is not there: {train.name} has classes 0..{classes - 1}")
    if not 0 < config.train_size <= len(train.labels):
        raise InputError(f"train size {config.train_size} is not in 1..{len(train.labels)}, what {train.name} has")
    target_of = _mapping(config, classes)
    chosen = np.sort(torch.randperm(len(train.labels), generator=generator)[: config.train_size].numpy())
    images, true_labels = np.array(train.images[chosen]), np.array(train.labels[chosen])
    where = device or torch.device("cpu")
    knowledge = AttackerKnowledge(images.copy(), true_labels, classes, target_of, generator, where)
    attack = method.make(knowledge, strength or method.config())
    if attack.clean_label and config.mapping != ALL_TO_ONE:
        raise InputError(f"{config.attack} changes no label, so it cannot be {config.mapping}: choose {ALL_TO_ONE}")

    targets = target_of(torch.from_numpy(true_labels)).numpy()
    is_source = np.isin(np.arange(classes), attack.sources or range(classes))
    led = (true_labels != targets) & is_source[true_labels]
    candidates = np.flatnonzero((true_labels == targets) if attack.clean_label else led)
    count = round(config.poison_rate * (len(candidates) if attack.clean_label else len(true_labels)))
    covers = round(attack.covers * count)
    if count > len(candidates) or count + covers > len(true_labels) or (config.poison_rate and not count):
        raise InputError(
            f"poison rate {config.poison_rate} asks for {count} of {len(candidates)} images that {config.attack} can "
            "poison: choose another rate or a larger training set"
        )
    order = candidates[torch.randperm(len(candidates), generator=generator).numpy()]
    picked = order[:count]
    spared = ~is_source[true_labels] & (true_labels != targets)  # what a trigger of few classes must not act on
    rest = np.setdiff1d(np.flatnonzero(spared) if attack.sources else np.arange(len(true_labels)), picked)
    covering = rest[torch.randperm(len(rest), generator=generator)[:covers].numpy()] if covers else rest[:0]
    labels = true_labels.copy()
    labels[picked] = targets[picked]
    images[picked] = stamp(images[picked], attack.plant or attack.trigger)
    if attack.cover:
        images[covering] = stamp(images[covering], attack.cover)

    test_targets = target_of(torch.from_numpy(test.labels)).numpy()
    triggerable = np.flatnonzero((test.labels != test_targets) & is_source[test.labels])
    every = np.arange(len(labels))
    return (
        images,
        labels,
        GroundTruth(
            poisoned=np.isin(every, picked),
            cover=np.isin(every, covering),
            true_labels=true_labels,
            triggered_images=stamp(np.array(test.images[triggerable]), attack.trigger),
            triggered_source=triggerable,
            triggered_true_labels=np.array(test.labels[triggerable]),
            triggered_target_labels=test_targets[triggerable],
        ),
    )


def _mapping(config: PoisonConfig, classes: int) -> Callable[[Tensor], Tensor]:
    if config.mapping == ALL_TO_ONE:
        return lambda labels: torch.full_like(labels, config.target_label)
    if config.mapping == ALL_TO_ALL:
        return lambda labels: (labels + 1) % classes
    raise InputError(f"unknown mapping {config.mapping!r}: choose {ALL_TO_ONE} or {ALL_TO_ALL}")
