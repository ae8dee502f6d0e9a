"""Why a model may not know its own training images: a wrong normalisation or order of classes, found out by trying."""

import copy

import numpy as np
import scipy
import torch

from pud.data.images import pixels
from pud.models.contract import Classifier
from pud.models.inference import logits

TRIED_IMAGES = 1000
# {whose: (mean, std)}, of pixels in [0, 1]
USUAL = {
    "none": ([0.0], [1.0]),
    "that of images from -1 to 1": ([0.5], [0.5]),
    "that of images from 0 to 255": ([0.0], [1 / 255]),
    "ImageNet's": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "CIFAR-10's": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "MNIST's": ([0.1307], [0.3081]),
    "Fashion-MNIST's": ([0.2860], [0.3530]),
}


def hint(
    model: Classifier, images: np.ndarray, labels: np.ndarray, *, generator: torch.Generator, device: torch.device
) -> str | None:
    """Return what would make a model know uint8 images (n, c, h, w) with labels (n,), None where nothing tried does.

    What is said takes away at least half of the images that do not get their label.
    """
    chosen = torch.randperm(len(labels), generator=generator)[:TRIED_IMAGES].numpy()
    images, labels = np.array(images[chosen]), labels[chosen]
    as_it_is = logits(model, images, device).argmax(1).numpy()
    counts = np.zeros((model.head.out_features,) * 2)
    np.add.at(counts, (as_it_is, labels), 1)
    rows, order = scipy.optimize.linear_sum_assignment(counts, maximize=True)
    found = [(counts[rows, order].sum() / len(labels), f"the classes were in the order {order.tolist()}: reorder them")]
    sample, channels = pixels(images), images.shape[1]
    own = (sample.mean((0, 2, 3)).tolist(), sample.std((0, 2, 3)).clamp(min=1e-3).tolist())
    trial = copy.deepcopy(model)
    for whose, (mean, std) in {"the data's own": own, **USUAL}.items():
        if len(mean) in (1, channels):
            shape = (1, channels, 1, 1)
            trial.mean.copy_(torch.tensor(mean).view(1, -1, 1, 1).expand(shape))
            trial.std.copy_(torch.tensor(std).view(1, -1, 1, 1).expand(shape))
            accuracy = (logits(trial, images, device).argmax(1).numpy() == labels).mean()
            values = f"mean {[round(value, 4) for value in mean]} and std {[round(value, 4) for value in std]}"
            found.append((accuracy, f"the normalisation were {whose}: correct it in the model, {values}"))
    accuracy, remedy = max(found)
    if accuracy < (1 + (as_it_is == labels).mean()) / 2:
        return None
    return f"the model would give {100 * accuracy:.0f} % of its training images their label if {remedy}"
