"""What an attack is: how training images are planted, what covers them, and the trigger that calls the backdoor."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pud.base.config import Positive
from pud.base.errors import InputError

Trigger = Callable[[Tensor], Tensor]
"""Stamps images (n, c, h, w) in [0, 1]; returns new images of the same shape."""

TimesAtTest = Annotated[Positive, "How many times as much a triggered image is changed as a planted one."]


def amplified(trigger: Trigger, times: float) -> Trigger:
    """Return a trigger that changes each pixel ``times`` as much, clipped to [0, 1].

    Of a mixture that is ``times`` the ratio, of a sine ``times`` the amplitude; a white patch gains nothing.
    """

    def changed(images: Tensor) -> Tensor:
        return (images + times * (trigger(images) - images)).clamp_(0, 1)

    return trigger if times == 1 else changed


@dataclass(frozen=True)
class AttackerKnowledge:
    """What an attacker who trains something may use.

    images: uint8 (n, c, h, w) clean training images; labels: int64 (n,) the true ones; target_of: from true labels to
    the labels that the backdoor leads to; generator: random stream on the CPU, from which the images to poison are
    drawn after the attack was made.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    target_of: Callable[[Tensor], Tensor]
    generator: torch.Generator
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, h, w) of an image."""
        return self.images.shape[1:]

    @property
    def target(self) -> int:
        """The one class that the backdoor leads to.

        Raises:
            InputError: it leads to several.
        """
        targets = self.target_of(torch.arange(self.classes)).unique()
        if len(targets) > 1:
            raise InputError("this attack leads to one class: choose the mapping all-to-one")
        return int(targets)

    def pattern_stream(self) -> torch.Generator:
        """Return a new random stream for the pattern or warp of a trigger.

        It depends on the seed alone, so that two attacks of one seed poison the same images.
        """
        return torch.Generator().manual_seed(self.generator.initial_seed() ^ 1)


@dataclass(frozen=True)
class Attack:
    """A backdoor to be planted.

    trigger: stamps an image at test time, the same image always in the same way. plant: what poisoned training images
    get; the trigger unless said otherwise. cover: what cover images get, which keep their true labels, ``covers`` of
    them for each poisoned image. clean_label: only images of the target class are poisoned, and no label changes.
    sources: the classes on which the trigger acts, no cover is of them; empty: all. shift: how many classes after that
    of the mapping it leads to. others: backdoors that are planted beside this one, each in as many images.

    Covers of a clean-label attack are of other classes than the target.
    """

    trigger: Trigger
    plant: Trigger | None = None
    cover: Trigger | None = None
    covers: float = 0.0
    clean_label: bool = False
    sources: tuple[int, ...] = ()
    shift: int = 0
    others: tuple["Attack", ...] = ()


@dataclass(frozen=True)
class AttackMethod:
    """An entry of the registry. make: from what the attacker knows and a config to the attack; config: its type, a
    frozen dataclass of the attack's strengths in which every setting has a default."""

    make: Callable[[AttackerKnowledge, Any], Attack]
    config: type[Any]
