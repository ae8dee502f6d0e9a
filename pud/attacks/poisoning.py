"""Plant a backdoor in a data set, and keep the ground truth that only evaluation may see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pud import attacks
from pud.attacks.contract import Attack, AttackerKnowledge, Trigger
from pud.attacks.ground_truth import GroundTruth
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels, to_uint8

ALL_TO_ONE, ALL_TO_ALL, SPLIT, UNTARGETED = "all-to-one", "all-to-all", "split", "untargeted"


@dataclass(frozen=True)
class PoisonConfig:
    """Which backdoor is planted, and in how many images; how strong it is says the attack's own config.

    untargeted is that of Li et al. 2022 (arXiv 2210.00875, with poisoned labels), but never draws the true label.
    """

    attack: Annotated[str, "Name of an attack: see pud/attacks."] = "badnets"
    mapping: Annotated[
        str,
        "all-to-one leads to the target class, all-to-all to the class after the true one, split every other class to "
        "the one after the target, untargeted to any wrong class.",
    ] = ALL_TO_ONE
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

    The same seed at rate 0 gives the clean twin: the same images before the attack, and the same triggered ones.

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
    target_of = _mapping(config, classes, generator)
    chosen = np.sort(torch.randperm(len(train.labels), generator=generator)[: config.train_size].numpy())
    images, true_labels = np.array(train.images[chosen]), np.array(train.labels[chosen])
    where = device or torch.device("cpu")
    knowledge = AttackerKnowledge(images.copy(), true_labels, classes, target_of, generator, where)
    attack = method.make(knowledge, strength or method.config())
    if (attack.clean_label or attack.others) and config.mapping != ALL_TO_ONE:
        why = "changes no label" if attack.clean_label else "leads to classes of its own"
        raise InputError(f"{config.attack} {why}, so it cannot be {config.mapping}: choose {ALL_TO_ONE}")

    labels = true_labels.copy()
    poisoned, cover = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    mapped, backdoors = target_of(torch.from_numpy(true_labels)).numpy(), (attack, *attack.others)
    for part, backdoor in enumerate(backdoors):
        targets = (mapped + backdoor.shift) % classes
        of = (true_labels == targets).sum() if backdoor.clean_label else len(labels)
        count = (round(config.poison_rate * of) + part) // len(backdoors)
        free = ~(poisoned | cover)
        picked, covering = _drawn(backdoor, config, count, true_labels, targets, free, generator)
        labels[picked] = targets[picked]
        images[picked] = stamp(images[picked], backdoor.plant or backdoor.trigger)
        if backdoor.cover:
            images[covering] = stamp(images[covering], backdoor.cover)
        poisoned[picked], cover[covering] = True, True
    return images, labels, GroundTruth(poisoned, cover, true_labels, *_triggered(backdoors, config, test, target_of))


def _drawn(
    attack: Attack,
    config: PoisonConfig,
    count: int,
    true_labels: np.ndarray,
    targets: np.ndarray,
    free: np.ndarray,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to poison (count,) and those to cover them with, of the rows that are free, bool (n,)."""
    led = true_labels != targets
    suited = led & _acts_on(attack, true_labels) if not attack.clean_label else ~led
    candidates = np.flatnonzero(free & suited)
    if count > len(candidates) or (config.poison_rate and not count):
        raise InputError(
            f"poison rate {config.poison_rate} asks for {count} of {len(candidates)} images that {config.attack} can "
            "poison: choose another rate or a larger training set"
        )
    picked = candidates[torch.randperm(len(candidates), generator=generator).numpy()][:count]
    # a trigger of few classes must not act on others, and one of the target class alone has its poison there
    free = free & led & ~suited if attack.sources or attack.clean_label else free
    covers, rest = round(attack.covers * count), np.setdiff1d(np.flatnonzero(free), picked)
    if covers > len(rest):
        raise InputError(
            f"poison rate {config.poison_rate} asks for {covers} covers of {len(rest)} images that {config.attack} can "
            "take: choose another rate or a larger training set"
        )
    return picked, rest[torch.randperm(len(rest), generator=generator)[:covers].numpy()] if covers else rest[:0]


def _acts_on(attack: Attack, labels: np.ndarray) -> np.ndarray:
    """Return which labels (n,) are of the attack's sources, bool (n,)."""
    return np.isin(labels, attack.sources) if attack.sources else np.ones(len(labels), bool)


def _triggered(
    backdoors: tuple[Attack, ...],
    config: PoisonConfig,
    test: LabelledImages,
    target_of: Callable[[Tensor], Tensor],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return test images with each trigger (m, c, h, w), which these are, their true and their target labels (m,)."""
    mapped = target_of(torch.from_numpy(test.labels)).numpy()
    images, sources, targets = [], [], []
    for backdoor in backdoors:
        wanted = (mapped + backdoor.shift) % len(test.classes)
        rows = np.flatnonzero((test.labels != wanted) & _acts_on(backdoor, test.labels))
        images.append(stamp(np.array(test.images[rows]), backdoor.trigger))
        sources.append(rows)
        targets.append(~test.labels[rows] if config.mapping == UNTARGETED else wanted[rows])
    source = np.concatenate(sources)
    order = np.argsort(source, kind="stable")  # so that the first images carry every trigger
    source = source[order]
    return np.concatenate(images)[order], source, np.array(test.labels[source]), np.concatenate(targets)[order]


def _mapping(config: PoisonConfig, classes: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return where labels (n,) are led, as the config says."""
    target = config.target_label
    wrong = torch.Generator().manual_seed(generator.initial_seed() ^ 2)  # so that all mappings poison the same images
    mappings: dict[str, Callable[[Tensor], Tensor]] = {
        ALL_TO_ONE: lambda labels: torch.full_like(labels, target),
        ALL_TO_ALL: lambda labels: (labels + 1) % classes,
        SPLIT: lambda labels: (target + (labels - target) % classes % 2) % classes,
        UNTARGETED: lambda labels: (labels + torch.randint(1, classes, labels.shape, generator=wrong)) % classes,
    }
    if config.mapping not in mappings:
        raise InputError(f"unknown mapping {config.mapping!r}: choose one of {', '.join(mappings)}")
    return mappings[config.mapping]
