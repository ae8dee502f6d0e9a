"""What every detector of poisoned training images takes and returns: ours and the rivals keep to it alike."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pud.evidence.contract import InfectedEvidence, PurifiedEvidence

BACKDOOR, NONE_FOUND, CANNOT_BE_JUDGED = "backdoor", "none found", "cannot be judged"  # what is said of a data set
NOTHING_KNOWN = 0.5  # confidence in what is said of a data set, or of a class
CLEAN, UNSURE, POISONED = "clean", "unsure", "poisoned"  # and of an image


@dataclass(frozen=True)
class Detection:
    """What a detector says of n training images of k classes.

    suspicion: float64 (n,), the higher the likelier poisoned, comparable within a class. posterior: float64 (n,), the
    probability of being poisoned. verdict: str (n,), clean, unsure or poisoned; the poisoned images are the accused.
    inferred_label: int64 (n,), the class that an accused image truly shows, which is its given label where that is
    right; -1 where it is not known. may_unlearn: bool (n,), accused images whose given label a model may be made to
    forget without harm to clean images. target_labels: the classes that the backdoor leads to. separation: float64
    (k,), how far the accused of a class lie from the rest of it, in a measure of the detector's own; 0 where it says
    nothing. confidence: in [0, 1], that what is said of the classes is true, 0.5 where nothing is known. unjudged: why,
    of each class that cannot be judged. shortcuts: the target labels that no accused image leads to, but one small
    change to every image does.
    """

    suspicion: np.ndarray
    posterior: np.ndarray
    verdict: np.ndarray
    inferred_label: np.ndarray
    may_unlearn: np.ndarray
    target_labels: list[int]
    separation: np.ndarray
    confidence: float
    unjudged: dict[int, str] = field(default_factory=dict)
    shortcuts: list[int] = field(default_factory=list)

    @classmethod
    def of_accusations(cls, suspicion: np.ndarray, accused: np.ndarray, evidence: InfectedEvidence) -> "Detection":
        """Return what a detector says that knows no more than a suspicion (n,) and whom it accuses, bool (n,).

        Every class with an accused image is a target, and nobody knows how sure that is.
        """
        classes, nothing = evidence.logits.shape[1], np.full(len(accused), -1, np.int64)
        return cls(
            suspicion=suspicion.astype(np.float64),
            posterior=accused.astype(np.float64),
            verdict=np.where(accused, POISONED, CLEAN),
            inferred_label=nothing,
            may_unlearn=accused,
            target_labels=np.unique(evidence.labels[accused]).tolist(),
            separation=np.zeros(classes),
            confidence=0.5,
        )

    @property
    def conclusion(self) -> str:
        """What is said of the data set: BACKDOOR, NONE_FOUND, or CANNOT_BE_JUDGED where a class was left out."""
        return BACKDOOR if self.target_labels else CANNOT_BE_JUDGED if self.unjudged else NONE_FOUND


@dataclass(frozen=True)
class Detector:
    """An entry of the registry.

    config: frozen dataclass of its settings. detect: the detection from the evidence of the infected model, the
    evidence of the model purified so far (None before the first round) and a config.
    """

    name: str
    config: type
    detect: Callable[[InfectedEvidence, PurifiedEvidence | None, Any], Detection]
