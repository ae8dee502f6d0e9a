"""Adaptive patch and k-way, made to defeat latent separation at a rate of 0.3 % (Qi et al. 2023, Revisiting the
Assumption of Latent Separability, ICLR).

There are several small patches. A training image carries one of them; some such images keep their true labels
(covers); at test time several are there at once. Opacities, numbers and covers are those of the authors' code; their
patches are pictures, ours cut out of noise that is drawn from the seed.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from pud.attacks.adaptive_blend import mixed
from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.base.config import Count, Part
from pud.base.errors import InputError

CORNERS = 4


@dataclass(frozen=True)
class AdaptivePatchConfig:
    """One patch a corner, faint in training."""

    size: Annotated[Count, "Side of a patch in pixels."] = 5
    opacities: Annotated[tuple[Part, ...], "Of each patch in training images; at most four."] = (0.5, 0.2, 0.5, 0.3)
    at_test: Annotated[Count, "Patches of a triggered image, those that are least faint in training."] = 2
    test_opacity: Annotated[Part, "Of each of them."] = 1.0
    covers: Annotated[float, "Images that keep their label, for each poisoned one."] = 2.0


@dataclass(frozen=True)
class KWayConfig:
    """Patches of few pixels, anywhere, as strong in training as at test time."""

    ways: Annotated[Count, "Patches, of which a training image carries one (the paper's k)."] = 4
    size: Annotated[Count, "Side of a patch in pixels."] = 1
    covers: Annotated[float, "Images that keep their label, for each poisoned one."] = 1.0


def one_or_all(pattern: Tensor, train: Tensor, test: Tensor, covers: float, generator: torch.Generator) -> Attack:
    """Return the attack in which each training image carries one of k patches, each one as many images.

    pattern: (c, h, w), what patches are cut out of; train: (k, 1, h, w), the opacity of each; test: (1, h, w).
    """

    def one(images: Tensor) -> Tensor:
        which = torch.randperm(len(images), generator=generator) % len(train)
        return mixed(images, pattern, train[which].to(images))

    def together(images: Tensor) -> Tensor:
        return mixed(images, pattern, test.to(images))

    return Attack(together, plant=one, cover=one, covers=covers)


def adaptive_patch(knowledge: AttackerKnowledge, config: AdaptivePatchConfig) -> Attack:
    """Return the attack.

    Raises:
        InputError: there are more patches than corners, or they are too large to lie side by side.
    """
    height, width = knowledge.shape[-2:]
    count, size = len(config.opacities), config.size
    if count > CORNERS or 2 * size > min(height, width):
        raise InputError(
            f"adaptive-patch puts {count} patches of {size} pixels into corners of {height} x {width}: give at most "
            f"{CORNERS} opacities and a smaller size"
        )
    pattern = torch.rand(knowledge.shape, generator=knowledge.pattern_stream())
    masks = torch.zeros(count, 1, height, width)
    ends = (slice(-size, None), slice(size))
    for index in range(count):
        masks[index, :, ends[index % 2], ends[index // 2]] = 1
    opacities = torch.tensor(config.opacities)
    strongest = opacities.argsort(descending=True, stable=True)[: config.at_test]
    train, test = opacities.view(-1, 1, 1, 1) * masks, config.test_opacity * masks[strongest].sum(0)
    return one_or_all(pattern, train, test, config.covers, knowledge.generator)


def k_way(knowledge: AttackerKnowledge, config: KWayConfig) -> Attack:
    """Return the attack.

    Raises:
        InputError: so many patches of this size have no room.
    """
    height, width = knowledge.shape[-2:]
    rows, columns = height // config.size, width // config.size
    if config.ways > rows * columns:
        raise InputError(
            f"k-way has no room for {config.ways} patches of {config.size} pixels in {height} x {width}: give fewer or "
            "smaller ones"
        )
    stream = knowledge.pattern_stream()
    pattern = torch.rand(knowledge.shape, generator=stream)
    masks = torch.zeros(config.ways, 1, height, width)
    for mask, place in zip(masks, torch.randperm(rows * columns, generator=stream).tolist(), strict=False):
        top, left = place // columns * config.size, place % columns * config.size
        mask[:, top : top + config.size, left : left + config.size] = 1
    return one_or_all(pattern, masks, masks.sum(0), config.covers, knowledge.generator)


ATTACKS = {
    "adaptive-patch": AttackMethod(adaptive_patch, AdaptivePatchConfig),
    "k-way": AttackMethod(k_way, KWayConfig),
}
