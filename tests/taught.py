"""A network that knows pictures within a second: its last layer is solved for, on features of random weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from pud.data.images import LabelledImages, pixels
from pud.models.contract import Classifier
from pud.models.make import make_model

EASY = (1, 5, 8, 9)  # of Fashion-MNIST: trousers, sandals, bags, ankle boots
NAMES = ("trouser", "sandal", "bag", "boot")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def easy_split(split: LabelledImages, channels: int = 3, side: int = 14) -> LabelledImages:
    """Return four classes that anything tells apart, in colours that are other ones with red and blue turned."""
    rows = np.flatnonzero(np.isin(split.labels, EASY))
    grey = split.images[rows][:, :, :: 28 // side, :: 28 // side]
    images = np.concatenate([grey, grey // 2, 255 - grey], 1) if channels == 3 else grey
    labels = np.searchsorted(EASY, split.labels[rows])
    return LabelledImages(np.ascontiguousarray(images), labels, NAMES, "easy", "images", "labels")


@torch.no_grad()
def taught(
    architecture: str,
    split: LabelledImages,
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    n: int = 300,
) -> Classifier:
    """Return a classifier in evaluation mode that knows the first n images; its normaliser is ImageNet's, or this."""
    channels = split.images.shape[1]
    model = make_model(architecture, split.images.shape[1:], len(split.classes), mean[:channels], std[:channels]).eval()
    images, labels = split.images[:n], split.labels[:n]
    features = model.features(pixels(images))
    ones = torch.cat([features, torch.ones(len(features), 1)], 1)
    target = 10 * functional.one_hot(torch.from_numpy(labels), len(split.classes)).float() - 5
    ridge = 1e-5 * ones.square().mean() * torch.eye(ones.shape[1])
    solved = torch.linalg.solve(ones.T @ ones / len(ones) + ridge, ones.T @ target / len(ones))
    model.head.weight.copy_(solved[:-1].T)
    model.head.bias.copy_(solved[-1])
    return model
