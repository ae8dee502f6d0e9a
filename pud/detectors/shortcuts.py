"""Which classes a model has a short way to: one small change, the same on every image, that leads there.

By the smallest changes that lead to each class in the given model and in a network of our own that learned from the
same images (``pud/evidence/inversion.py``). Two things make a change too small for an honest class:

- it is much smaller than those to the other classes, as where the data or the weights have a trigger;
- it is smaller than our own network's by much more than for the other classes, as where the weights alone have one.
  That sees weaker triggers: some honest classes are near to everything, in both networks alike.

Both are told by the classes themselves, together with what honest ones gave, for each kind of change.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy

from pud.base.config import Count, Part
from pud.evidence.chances import discoveries, usual


@dataclass(frozen=True)
class ShortcutConfig:
    """When a change is too small. The nulls are of honest models of development data (docs/decisions.md)."""

    shortcut_null: Annotated[float, "Deviation of the logarithm of a change's size, class to class."] = 0.4
    shortcut_null_of_two: Annotated[float, "The same, of the given model's size relative to our own network's."] = 0.25
    shortcut_null_classes: Annotated[Count, "How many classes of the model these count for."] = 10
    shortcut_discoveries: Annotated[Part, "False discovery rate."] = 0.05


def shortcuts(changes: np.ndarray, config: ShortcutConfig) -> list[int]:
    """Return the classes that the given model has a short way to.

    Args:
        changes: (2, kinds, k), natural logarithms of sizes, in the given model and in our own.
    """
    if not changes.shape[2]:
        return []
    given, own = changes.astype(np.float64)
    found = [chances(-sizes, config.shortcut_null, config.shortcut_null_classes) for sizes in given]
    found += [chances(one, config.shortcut_null_of_two, config.shortcut_null_classes) for one in own - given]
    least = np.minimum(1, len(found) * np.min(found, axis=0))
    return sorted(discoveries(dict(enumerate(least)), config.shortcut_discoveries))


def chances(values: np.ndarray, deviation: float, classes: int) -> np.ndarray:
    """Return the chance, (k,), of each value (k,) being as large in an honest class.

    By Student's t. deviation: of honest ones, which counts for so many classes.
    """
    middle, found = usual(values)
    variance = (classes * deviation**2 + len(values) * found) / (classes + len(values))
    variance *= 1 + np.pi / 2 / len(values)  # as the median is not known either
    return scipy.stats.t.sf((values - middle) / np.sqrt(variance), classes)
