"""Our detection after the last round with one of its parts taken away, on the evidence of rounds that had them all."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pud.detectors.contract import Detection
from pud.detectors.pud import DetectConfig, detect
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence

CONFIG = DetectConfig()
E = TypeVar("E", InfectedEvidence, PurifiedEvidence)


def without_que(infected: InfectedEvidence, current: PurifiedEvidence) -> Detection:
    """Mahalanobis distance in the place of QUE."""
    return detect(infected, current, replace(CONFIG, alpha=0.0))


def without_cues(infected: InfectedEvidence, current: PurifiedEvidence) -> Detection:
    """No label survives perturbation better than another."""
    nothing = np.zeros(len(infected.labels), np.float32)
    return detect(replace(infected, noise_survival=nothing, mix_survival=nothing), current, CONFIG)


def without_heldout(infected: InfectedEvidence, current: PurifiedEvidence) -> Detection:
    """No held-out classifier says what an image shows, and no discriminator learned from that."""
    return detect(_unscored(replace(infected, heldout=np.zeros_like(infected.heldout))), current, CONFIG)


def without_contradictions(infected: InfectedEvidence, current: PurifiedEvidence) -> Detection:
    """No discriminator learned from what the purified model contradicts."""
    return detect(infected, _unscored(current), CONFIG)


def _unscored(evidence: E) -> E:
    nothing, none = np.zeros_like(evidence.trigger_score), np.zeros_like(evidence.scored)
    return replace(evidence, trigger_score=nothing, scored=none)


DETECTOR_ABLATIONS: dict[str, Callable[[InfectedEvidence, PurifiedEvidence], Detection]] = {
    "pud, without QUE": without_que,
    "pud, without perturbation cues": without_cues,
    "pud, without witnesses": without_heldout,  # results/*.json were measured under this name
    "pud, without contradictions": without_contradictions,
}
