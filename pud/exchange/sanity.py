"""Does a model know the images it is said to have learned from? If not: which flag mends it, found out by trying."""

import copy
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
import torch

from pud.base.device import random_stream
from pud.base.progress import track
from pud.data.batches import COLOURS
from pud.data.images import LabelledImages, pixels
from pud.detectors.pud import DetectConfig
from pud.evidence.disagreement import knowledge
from pud.models.contract import Classifier
from pud.models.inference import logits

IMAGES = 1000  # of which is said how well the model knows them, or as many of each class
PER_CLASS = 10
TRIED = 300  # of these, or as many of each class, for every try
TRIED_PER_CLASS = 3
WELL = 0.9  # knowledge from which nothing is tried
AT_CHANCE = 0.1  # knowledge below which a model has learned nothing of these images
KNOWN = DetectConfig.knowledge  # below this a model does not know its training images, on average
WORTH = 0.1  # of accuracy that a remedy must bring
PRICE = 0.02  # of accuracy that each change must be worth, where more than one thing would help
DIGITS = 4
# {whose: (mean, std)}, of pixels in [0, 1]
USUAL = {
    "none": ((0.0,), (1.0,)),
    "that of images from -1 to 1": ((0.5,), (0.5,)),
    "that of images from 0 to 255": ((0.0,), (1 / 255,)),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "MNIST's": ((0.1307,), (0.3081,)),
    "Fashion-MNIST's": ((0.2860,), (0.3530,)),
}


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

    @property
    def at_chance(self) -> bool:
        """Whether it has learned nothing of them, as far as it was tried."""
        return self.knowledge < AT_CHANCE


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, or one for all, of pixels in [0, 1]; ``whose`` they are."""

    whose: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class _Try:
    """What came of taking a model's inputs or outputs for others. counts: (k, k) images by output and label."""

    normalisation: Normalisation | None
    turned: bool
    counts: np.ndarray

    def accuracy(self, order: np.ndarray) -> float:
        """Return the share that gets its label, where output i stands for class ``order[i]``."""
        return float(self.counts[np.arange(len(order)), order].sum() / self.counts.sum())

    def best_order(self) -> np.ndarray:
        """Return the class that each output stands for most likely, (k,)."""
        return scipy.optimize.linear_sum_assignment(self.counts, maximize=True)[1]


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

    With what is said, it knows them well enough for a verdict, also those on which it was not found.
    classes, bgr: what was said of the model when it came (``ModelConfig``), so that the remedy is told in these terms.
    """
    images, labels = _some(split, max(IMAGES, PER_CLASS * len(split.classes)), seed)
    accuracy, knows = _known(logits(model, images, device).argmax(1).numpy(), labels, model.classes)
    remedy = ""
    if knows < WELL:
        found = _remedy(model, images, labels, accuracy, device)
        remedy = _told(*found, split.classes, classes or split.classes, bgr) if found else ""
    return Sanity(accuracy, float(np.bincount(labels).max() / len(labels)), knows, knows >= KNOWN, remedy)


def most_certain_normalisation(
    model: Classifier, images: np.ndarray, *, seed: int, device: torch.device
) -> tuple[Normalisation, float]:
    """Return the normalisation, of the usual ones and the data's own, by which a model is surest that images differ.

    With it comes how sure, in nats: the entropy of its mean prediction of some of the images (n, c, h, w), less the
    mean entropy of its predictions. It is log k where each class is predicted as often and without a doubt, and 0 where
    all images get one answer.
    """
    chosen = torch.randperm(len(images), generator=random_stream(seed, "sanity"))[:IMAGES].sort().values.numpy()
    some = np.array(images[chosen])
    found = []
    for one in track(list(_usual(some)), "find out how the model takes its images"):
        said = logits(_changed(model, one, turned=False), some, device).softmax(1)
        found.append((float(torch.special.entr(said.mean(0)).sum() - torch.special.entr(said).sum(1).mean()), one))
    score, best = max(found, key=lambda pair: pair[0])
    return best, score


def find_normalisation(
    model: Classifier, split: LabelledImages, *, seed: int, device: torch.device
) -> tuple[Normalisation, float]:
    """Return the normalisation, of the usual ones and the data's own, by which a model tells the images apart best.

    With it comes how well: the share that would get their label if the outputs stood for the classes in the best order.
    """
    k = len(split.classes)
    images, labels = _some(split, max(TRIED, TRIED_PER_CLASS * k), seed)
    found = [
        (one.accuracy(one.best_order()), one.normalisation)
        for one in _tries(model, images, labels, device, turns=(False,))
        if one.normalisation
    ]
    score, best = max(found, key=lambda pair: pair[0])
    return best, score


def normalise(model: Classifier, mean: Sequence[float], std: Sequence[float]) -> None:
    """Give a model another normaliser; c numbers each, or one for all channels."""
    for name, values in (("mean", mean), ("std", std)):
        column = torch.tensor(values, dtype=torch.float32, device=model.mean.device).view(1, -1, 1, 1)
        setattr(model, name, column.expand(1, model.input_shape[0], 1, 1).clone())


def _known(predicted: np.ndarray, labels: np.ndarray, classes: int) -> tuple[float, float]:
    """Return the share of images that get their label, and Youden's J, the mean over the classes that are there."""
    there = np.bincount(labels, minlength=classes) > 0
    return float((predicted == labels).mean()), float(knowledge(predicted, labels, classes)[there].mean())


def _some(split: LabelledImages, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = torch.randperm(len(split.labels), generator=random_stream(seed, "sanity"))[:n].numpy()
    return np.array(split.images[chosen]), split.labels[chosen]


def _usual(images: np.ndarray) -> Iterator[Normalisation]:
    """Yield the data's own normalisation, and the usual ones of as many channels."""
    sample, channels = pixels(images), images.shape[1]
    own = sample.mean((0, 2, 3)).tolist(), sample.std((0, 2, 3)).clamp(min=1e-3).tolist()
    for whose, (mean, std) in {"the data's own": own, **USUAL}.items():
        if len(mean) in (1, channels):
            yield Normalisation(whose, *(tuple(round(v, DIGITS + 2) for v in (*one,)) for one in (mean, std)))


def _tries(
    model: Classifier, images: np.ndarray, labels: np.ndarray, device: torch.device, turns: Sequence[bool]
) -> Iterator[_Try]:
    """Try a model as it is and with every other normalisation, and all of it with the channels turned, if asked."""
    options = [(one, turned) for turned in turns for one in (None, *_usual(images))]
    for one, turned in track(options, "find out how the model takes its images"):
        counts = np.zeros((model.classes,) * 2)
        given = logits(_changed(model, one, turned), _shown(images, turned), device).argmax(1).numpy()
        np.add.at(counts, (given, labels), 1)
        yield _Try(one, turned, counts)


def _changed(model: Classifier, normalisation: Normalisation | None, turned: bool) -> Classifier:
    """Return a copy with another normaliser; with turned channels, for images that are turned too.

    So the network takes blue first, after a normaliser whose numbers are red first.
    """
    trial = copy.deepcopy(model)
    if normalisation:
        normalise(trial, normalisation.mean, normalisation.std)
    if turned:
        trial.mean, trial.std = trial.mean.flip(1), trial.std.flip(1)
    return trial


def _shown(images: np.ndarray, turned: bool) -> np.ndarray:
    return np.ascontiguousarray(images[:, ::-1]) if turned else images


def _remedy(
    model: Classifier, images: np.ndarray, labels: np.ndarray, accuracy: float, device: torch.device
) -> tuple[Normalisation | None, bool, np.ndarray, float] | None:
    """Return what would make a model know images: normalisation, turned channels, order of classes, accuracy."""
    k = model.classes
    n, as_it_is = min(max(TRIED, TRIED_PER_CLASS * k), len(labels) // 2), np.arange(k)
    turns = (False, True) if images.shape[1] == COLOURS else (False,)
    found: list[tuple[float, _Try, np.ndarray]] = []
    for one in _tries(model, images[:n], labels[:n], device, turns):
        changes = (one.normalisation is not None) + one.turned
        for order in (as_it_is, one.best_order()):
            reordered = not np.array_equal(order, as_it_is)
            found.append((one.accuracy(order) - PRICE * (changes + reordered), one, order))
    _, best, order = max(found, key=lambda entry: entry[0])
    if best.normalisation is None and not best.turned and np.array_equal(order, as_it_is):
        return None
    trial = _changed(model, best.normalisation, best.turned)
    predicted = order[logits(trial, _shown(images[n:], best.turned), device).argmax(1).numpy()]
    share, knows = _known(predicted, labels[n:], k)
    return (best.normalisation, best.turned, order, share) if knows >= KNOWN and share >= accuracy + WORTH else None


def flags(one: Normalisation) -> str:
    """Return the flags that say a normalisation."""
    return " ".join(
        f"--{name} {','.join(f'{value:.{DIGITS}g}' for value in values)}"
        for name, values in (("mean", one.mean), ("std", one.std))
    )


def _told(
    normalisation: Normalisation | None,
    turned: bool,
    order: np.ndarray,
    share: float,
    names: Sequence[str],
    classes: Sequence[str],
    bgr: bool,
) -> str:
    """Return a remedy in words. names: the classes of the data; classes: as was said of the outputs in the file."""
    if_, give = [], []
    if normalisation:
        if_.append(f"the normalisation were {normalisation.whose}")
        give.append(flags(normalisation))
    if turned:
        if_.append(f"it took {'red' if bgr else 'blue'} first")
        give.append("no --bgr" if bgr else "--bgr")
    if not np.array_equal(order, np.arange(len(order))):
        if_.append("its outputs stood for the classes in another order")
        right = [names[order[list(names).index(name)]] for name in classes]
        give.append(f"--classes {shlex.quote(','.join(right))}")
    return (
        f"the model would give {100 * share:.0f} % of its training images their label if {' and '.join(if_)}: give "
        f"{' '.join(give)} (in a model folder: correct model.json)"
    )
