"""Which classes stand out among all: an empirical null, and a false discovery rate."""

import math

import numpy as np
import scipy

MEDIAN_OF_HALF_NORMAL = 0.6745  # in standard deviations


def usual(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the variance of values (k,) of the classes of which nothing makes any large.

    By the median, and by what lies below it: what is looked for only raises a value, in less than half of the classes.
    """
    middle = float(np.median(values))
    return middle, float(np.median(np.abs(values[values <= middle] - middle)) / MEDIAN_OF_HALF_NORMAL) ** 2


def above(difference: float, variance: float) -> float:
    """Return the chance of a difference as large without a cause."""
    return float(scipy.stats.norm.sf(difference / math.sqrt(variance)))


def discoveries(chances: dict[int, float], rate: float) -> set[int]:
    """Return the classes that are no chance, given that of each where there is nothing, at a false discovery rate.

    Benjamini and Hochberg 1995.
    """
    adjusted = scipy.stats.false_discovery_control(list(chances.values())) if chances else []
    return {label for label, chance in zip(chances, adjusted, strict=True) if chance <= rate}
