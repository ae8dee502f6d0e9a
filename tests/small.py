"""A classifier that is small enough to be trained in a test."""

from functools import partial

from pud.models.architectures.resnet import ResNet
from pud.models.contract import Classifier

SMALL = partial(ResNet, widths=(8, 16), blocks=(1, 1), small_stride=2)


def small_classifier(seed: int = 0) -> Classifier:
    """Return a classifier of images (n, 1, 28, 28) in ten classes, in training mode."""
    return Classifier(SMALL, (1, 28, 28), 10, [0.286], [0.353], seed=seed, name="small")
