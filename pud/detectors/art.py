"""What the Adversarial Robustness Toolbox's filters ask for, given from evidence; imported when it is needed only."""

import importlib
from typing import Any

import numpy as np

from pud.base.errors import InputError


class Activations:
    """A classifier as ART's filters see it: its number of classes and the features (n, d) of its training images."""

    layer_names = ("features",)

    def __init__(self, features: np.ndarray, classes: int) -> None:
        self.features, self.nb_classes = features, classes

    def get_activations(self, x: np.ndarray, layer: int, batch_size: int) -> np.ndarray:
        """Return the features, whatever is asked."""
        return self.features


def art_filter(name: str) -> Any:
    """Return a class of ``art.defences.detector.poison``.

    Raises:
        InputError: ART is not installed.
    """
    try:
        return getattr(importlib.import_module("art.defences.detector.poison"), name)
    except ImportError as error:
        raise InputError(
            "this detector is the Adversarial Robustness Toolbox's, which is not installed: "
            "pip install adversarial-robustness-toolbox"
        ) from error
