"""Which training images a round trains on, under which label, and which it unlearns."""

import numpy as np

from pud.defences.contract import Selection, State
from pud.detectors.contract import CLEAN, POISONED, Detection


def shows_another_class(detection: Detection, labels: np.ndarray) -> np.ndarray:
    """Return bool (n,): accused images that show, as far as is known, another class than their label (n,) says.

    They are of use under the label that they show; what else is accused is of none.
    """
    return (detection.verdict == POISONED) & (detection.inferred_label >= 0) & (detection.inferred_label != labels)


def select(detection: Detection, labels: np.ndarray, state: State, keep: float, relabel: bool) -> Selection:
    """Return what the next round does with each image, given labels (n,).

    keep: share of each class's clean verdicts, the least suspicious first. relabel: train accused images under the
    label that detection inferred, and unlearn none of which it inferred any. An image that was accused in an earlier
    round and no longer is, is neither trained on nor unlearned.
    """
    accused, inferred = detection.verdict == POISONED, (detection.inferred_label >= 0) & relabel
    relabelled = shows_another_class(detection, labels) & relabel
    ever_accused = state.accused | accused
    trusted = (detection.verdict == CLEAN) & ~ever_accused
    return Selection(
        labels=np.where(relabelled, detection.inferred_label, labels),
        clean=relabelled | least_suspicious(labels, detection.suspicion, trusted, keep),
        accused=ever_accused,
        unlearned=detection.may_unlearn & ~inferred,
        relabelled=relabelled,
    )


def select_without_detection(labels: np.ndarray, state: State, keep: float) -> Selection:
    """Return the selection of a data set that is held to be clean: a share of each class but what was ever accused."""
    none = np.zeros(len(labels), bool)
    clean = least_suspicious(labels, np.zeros(len(labels)), ~state.accused, keep)
    return Selection(labels, clean, state.accused, unlearned=none, relabelled=none)


def least_suspicious(labels: np.ndarray, suspicion: np.ndarray, eligible: np.ndarray, keep: float) -> np.ndarray:
    """Return a mask (n,): of each class the ``keep`` least suspicious share of its eligible images."""
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels[eligible]):
        members = np.flatnonzero(eligible & (labels == label))
        mask[members[np.argsort(suspicion[members], kind="stable")][: int(np.ceil(keep * len(members)))]] = True
    return mask
