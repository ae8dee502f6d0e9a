"""What an image shows, whatever its label says: evidence against triggers of every kind that change labels.

Ours, beyond the paper. A trigger that survives perturbation gives itself away by surviving; a fragile one, or one whose
maker knows of that, does not. But an image that was taken from another class still shows what it is. So the classes are
split in two, at random, until every two were apart, and a small classifier is trained on the images of each half. A
classifier that never saw a label, a *witness*, cannot know the trigger that leads to it: its predictions for the images
of the other half are *held-out predictions*. It learns until its accuracy on images that it did not learn from rises no
more, and one that is no better than chance is not heard.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from pud.base.config import Count, Range, Share
from pud.evidence.scenes import parts
from pud.evidence.separation import fisher_direction
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.make import make_model
from pud.models.training import TrainConfig, train

SMALL = "resnet8"
FOLDS = 4
LEAST = -8.0  # log probability below which one is as unlikely as another


@dataclass(frozen=True)
class CrossExaminationConfig:
    """How held-out classifiers are trained. Among few classes, a few neighbours are most of them."""

    splits: Annotated[int, Range(0, 16, "from 0 to 16"), "How often the classes are halved, at least; 0: never."] = 4
    minimum_classes: Annotated[int, "Below this many nothing is held out."] = 8
    heldout_epochs: Annotated[tuple[Count, ...], "Training of a witness: each goes on only if the last one helped."] = (
        2,
        2,
        4,
    )
    heldout_check: Annotated[Count, "Images, at most a tenth, by which its accuracy is known."] = 1000
    heldout_mix_level: Annotated[Share, "How strongly another image shines through its images."] = 0.25
    heldout_noise_level: Annotated[float, "How noisy its images are, pixels in [0, 1]."] = 0.1


@dataclass(frozen=True)
class Witness:
    """What a classifier says that knows some classes alone.

    known: bool (k,). log_probabilities: float16 (n, known classes), of every image.
    """

    known: np.ndarray
    log_probabilities: np.ndarray


def fresh(model: Classifier, generator: torch.Generator) -> Classifier:
    """Return an untrained small network for the images and classes of a model, on its device, whatever its own kind is.

    Dozens are trained on parts of the data, so that a large one would take long and know its images by heart; and
    nobody's factory draws its weights.
    """
    seed = int(torch.randint(2**31, (1,), generator=generator))
    mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
    return make_model(SMALL, model.input_shape, model.classes, mean, std, seed=seed).to(model.mean.device)


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
) -> list[Witness]:
    """Return what witnesses say of uint8 images (n, c, h, w) with labels (n,).

    None with too few classes.
    """
    classes, witnesses = model.classes, list[Witness]()
    if not config.splits or classes < config.minimum_classes:
        return witnesses
    for half in halvings(classes, config.splits, generator).numpy():
        for known in (half, ~half):
            rows = np.flatnonzero(known[labels])
            if len(rows) in (0, len(labels)):
                continue
            witness = fresh(model, generator)
            if taught(witness, images, labels, rows, known, config, generator=generator, device=device):
                said = logits(witness, images, device)[:, known].log_softmax(1)
                witnesses.append(Witness(known, said.clamp(min=LEAST).numpy().astype(np.float16)))
    return witnesses


def taught(
    witness: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    known: np.ndarray,
    config: CrossExaminationConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> bool:
    """Train a witness in place on these rows for as long as it helps, and tell whether it knows anything.

    Both by its accuracy on some of the rows, from which it does not learn.
    """
    order = rows[torch.randperm(len(rows), generator=generator).numpy()]
    aside, learned = np.split(order, [min(config.heldout_check, len(rows) // 10)])
    if not len(aside):
        return False
    shown, accuracy = labels[aside], 0.0
    for epochs in config.heldout_epochs:
        train(
            witness,
            images,
            labels,
            TrainConfig(epochs=epochs),
            generator=generator,
            device=device,
            rows=np.sort(learned),
            disturb=lambda x, random: disturb(x, config, random),
        )
        said = np.flatnonzero(known)[logits(witness, images, device, rows=aside)[:, known].argmax(1).numpy()]
        before, accuracy = accuracy, float((said == shown).mean())
        if not exceeds(accuracy, before, len(aside)):
            break
    return exceeds(accuracy, float(np.bincount(shown).max() / len(aside)), len(aside))


def exceeds(share: float, other: float, count: int) -> bool:
    """Tell whether a share of so many images exceeds another by more than two standard errors of the difference."""
    return share - other > 2 * math.sqrt((share * (1 - share) + other * (1 - other)) / count)


def heldout_predictions(witnesses: Sequence[Witness], labels: np.ndarray, classes: int) -> np.ndarray:
    """Return held-out predictions, float32 (n, k): the mean probability of each class by witnesses that knew it and not
    the image's given label. Zero for the given label, and everywhere without witnesses."""
    total, counted = np.zeros((len(labels), classes), np.float32), np.zeros((len(labels), classes), np.float32)
    for witness in witnesses:
        outside = np.flatnonzero(~witness.known[labels])
        where = np.ix_(outside, np.flatnonzero(witness.known))
        total[where] += np.exp(witness.log_probabilities[outside], dtype=np.float32)
        counted[where] += 1
    return total / np.maximum(counted, 1)


def content_odds(witnesses: Sequence[Witness], labels: np.ndarray, scene: np.ndarray, classes: int) -> np.ndarray:
    """Return how much each image looks like each class to witnesses that never saw that class, float32 (n, k).

    For a class, log odds up to a constant, along Fisher's direction in what these witnesses say of it, learned on other
    scenes (n,) than it is told of. A class without images, or without witnesses that do not know it, has zeros.
    """
    odds = np.zeros((len(labels), classes), np.float32)
    fold = parts(scene, labels, FOLDS)
    for label in range(classes):
        heard = [witness for witness in witnesses if not witness.known[label]]
        members = labels == label
        if not heard or members.sum() < 2 * FOLDS:
            continue
        said, counted = np.zeros((len(labels), classes)), np.zeros(classes)
        for witness in heard:
            said[:, witness.known] += witness.log_probabilities
            counted += witness.known
        said = said[:, counted > 0] / counted[counted > 0]
        for one in range(FOLDS):
            inside, outside = fold == one, fold != one
            if members[outside].any():
                odds[inside, label] = said[inside] @ fisher_direction(said[outside], members[outside])
    return odds
