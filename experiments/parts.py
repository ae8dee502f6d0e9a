"""Our detection after the last round with one of its parts taken away, on the evidence of rounds that had them all."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pud.detectors.pud import DetectConfig, Detection, detect
from pud.evidence.contract import Evidence

CONFIG = DetectConfig()


def without_que(infected: Evidence, current: Evidence) -> Detection:
    """Mahalanobis distance in the place of QUE."""
    return detect(infected, current, replace(CONFIG, alpha=0.0))


def without_cues(infected: Evidence, current: Evidence) -> Detection:
    """No label survives perturbation better than another."""
    nothing = np.zeros(len(infected.labels), np.float32)
    return detect(replace(infected, noise_survival=nothing, mix_survival=nothing), current, CONFIG)


def without_witnesses(infected: Evidence, current: Evidence) -> Detection:
    """Nobody but the models says what an image shows, and no judge learned from that."""
    return detect(_unjudged(replace(infected, votes=np.zeros_like(infected.votes))), current, CONFIG)


def without_contradictions(infected: Evidence, current: Evidence) -> Detection:
    """No judge learned from what the purified model contradicts."""
    return detect(infected, _unjudged(current), CONFIG)


def _unjudged(evidence: Evidence) -> Evidence:
    return replace(evidence, trigger_score=np.full_like(evidence.trigger_score, np.nan))


PARTS: dict[str, Callable[[Evidence, Evidence], Detection]] = {
    "pud, without QUE": without_que,
    "pud, without perturbation cues": without_cues,
    "pud, without witnesses": without_witnesses,
    "pud, without contradictions": without_contradictions,
}
