"""Does a model know the images it is said to have learned from? If not: which flag mends it, found out by trying."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pud.data.images import LabelledImages
from pud.models.contract import Classifier


@dataclass(frozen=True)
class Sanity:
    """What a model says of some of its training images.

    Args:
        accuracy: share of them that it gives their label.
        chance: the share that always naming the commonest class would give.
        knowledge: Youden's J, the mean over the classes: 0 at chance however unequal the classes are, 1 all right.
        known: whether it knows them well enough for a verdict.
        remedy: one sentence with the setting that would mend it; empty where it knows them, or nothing tried helps.
    """

    accuracy: float
    chance: float
    knowledge: float
    known: bool
    remedy: str


def check_model(
    model: Classifier,
    split: LabelledImages,
    *,
    seed: int,
    device: torch.device,
    classes: Sequence[str] = (),
    bgr: bool = False,
) -> Sanity:
    """Say how well a model knows the training images in ``split``, and what would make it know them.

    classes, bgr: what was said of the model when it came (``ModelConfig``), so that the remedy is told in these terms.
    """
    raise NotImplementedError
