"""The ground truth of a poisoned data set. No module that defends imports this one; a test proves it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroundTruth:
    """What only evaluation may see.

    Of the training set: poisoned: bool (n,); cover: bool (n,), changed images that keep their true label (they hide the
    poison and do no harm); true_labels: int64 (n,). triggered_images: uint8 (m, c, h, w), every test image that is not
    of its target class, nor of one on which the trigger does not act, stamped, once for each trigger;
    triggered_source: int64 (m,), which test image each one was; triggered_true_labels, triggered_target_labels: int64
    (m,), the latter ~label, which is negative, where the attacker wants any label but this one.
    """

    poisoned: np.ndarray
    cover: np.ndarray
    true_labels: np.ndarray
    triggered_images: np.ndarray
    triggered_source: np.ndarray
    triggered_true_labels: np.ndarray
    triggered_target_labels: np.ndarray
