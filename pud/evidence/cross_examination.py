"""What an image shows, whatever its label says: evidence against triggers of every kind that change labels.

Ours, beyond the paper. A trigger that survives perturbation gives itself away by surviving; a fragile one, or one whose
maker knows of that, does not. But an image that was taken from another class still shows what it is. So the classes are
split in two, at random, until every two were apart, and a small classifier is trained on the images of each half. A
classifier that never saw a label cannot know the trigger that leads to it: its predictions for the images of the other
half are *held-out predictions*.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from pud.base.config import Count, Range, Share
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train


@dataclass(frozen=True)
class CrossExaminationConfig:
    """How held-out classifiers are trained. Among few classes, a few neighbours are most of them."""

    splits: Annotated[int, Range(0, 16, "from 0 to 16"), "How often the classes are halved, at least; 0: never."] = 4
    minimum_classes: Annotated[int, "Below this many nothing is held out."] = 8
    heldout_epochs: Annotated[Count, "Training of the classifier of one half."] = 2
    heldout_mix_level: Annotated[Share, "How strongly another image shines through its images."] = 0.5
    heldout_noise_level: Annotated[float, "How noisy its images are, pixels in [0, 1]."] = 0.3


def fresh(model: Classifier, generator: torch.Generator) -> Classifier:
    """Return an untrained model of the same kind."""
    return model.rebuild(int(torch.randint(2**31, (1,), generator=generator)))


def disturb(images: Tensor, config: CrossExaminationConfig, generator: torch.Generator) -> Tensor:
    """Return images (n, c, h, w) with another one shining through and noise, each as strong as chance wants.

    Whatever a trigger does to an image, a classifier that learned under disturbance still sees what the image shows.
    ``generator`` lives on their device.
    """
    strength = torch.rand(2, len(images), 1, 1, 1, generator=generator, device=images.device)
    others = images[torch.randperm(len(images), generator=generator, device=images.device)]
    mixed = images + config.heldout_mix_level * strength[0] * (others - images)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (mixed + config.heldout_noise_level * strength[1] * noise).clamp_(0, 1)


def halvings(classes: int, least: int, generator: torch.Generator) -> Tensor:
    """Return random halvings of the classes, bool (splits, classes), which part every pair of classes at least once.

    A halving is a digit of the classes' codes, which are all different; with each code its complement is another
    class's, so that the halves are equal. There are as many as the codes need, and no fewer than ``least``.
    """
    digits = max(least, (classes - 1).bit_length())
    codes = torch.randperm(2 ** (digits - 1), generator=generator)[: (classes + 1) // 2]
    codes = torch.cat([codes, 2**digits - 1 - codes])[torch.randperm(len(codes) * 2, generator=generator)[:classes]]
    return (codes >> torch.arange(digits)[:, None]) % 2 == 1


def cross_examine(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: CrossExaminationConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> np.ndarray:
    """Return held-out predictions of uint8 images (n, c, h, w) with labels (n,), float32 (n, k).

    The mean probability of each class by classifiers, of the kind of ``model``, that were trained without the image's
    given label. Zero for the given label, and everywhere with too few classes.
    """
    classes = model.head.out_features
    total, counted = np.zeros((len(labels), classes), np.float32), np.zeros((len(labels), classes), np.float32)
    if not config.splits or classes < config.minimum_classes:
        return total
    plain = TrainConfig(epochs=config.heldout_epochs)
    for half in halvings(classes, config.splits, generator).numpy():
        for known in (np.flatnonzero(half), np.flatnonzero(~half)):
            inside, outside = np.flatnonzero(np.isin(labels, known)), np.flatnonzero(~np.isin(labels, known))
            if not len(inside) or not len(outside):
                continue
            heldout = fresh(model, generator)
            train(
                heldout,
                images,
                labels,
                plain,
                generator=generator,
                device=device,
                rows=inside,
                disturb=lambda x, random: disturb(x, config, random),
            )
            said = logits(heldout, images, device, rows=outside)[:, known].softmax(1).numpy()
            total[np.ix_(outside, known)] += said
            counted[np.ix_(outside, known)] += 1
    return total / np.maximum(counted, 1)
