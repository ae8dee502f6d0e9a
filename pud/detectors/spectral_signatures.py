"""Spectral signatures (Tran et al. 2018, arXiv 1811.00636), as ART has them, from the infected model's features.

Suspicion is the length of a class's features along their leading singular direction. Of every class 1.5 times the
expected share of poison is accused, whether there is poison in it or not.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from pud.base.config import Share
from pud.detectors.art import Activations, art_filter
from pud.detectors.contract import Detection, Detector
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence


@dataclass(frozen=True)
class SpectralSignaturesConfig:
    """How much is accused."""

    expected_poison: Annotated[Share, "Share of each class; ART's default."] = 0.33


def detect(infected: InfectedEvidence, current: PurifiedEvidence | None, config: SpectralSignaturesConfig) -> Detection:
    """Return the verdict of ART's filter and its scores."""
    features, labels = infected.features, infected.labels
    activations = Activations(features, infected.logits.shape[1])
    make = art_filter("SpectralSignatureDefense")
    defence = make(activations, features, labels, expected_pp_poison=config.expected_poison)
    _, is_clean = defence.detect_poison()
    suspicion = np.zeros(len(labels))
    for label in np.unique(labels):
        members = labels == label
        suspicion[members] = defence.spectral_signature_scores(features[members])[:, 0]
    return Detection.of_accusations(suspicion, np.asarray(is_clean) == 0, infected)


DETECTORS = {"spectral_signatures": Detector("spectral_signatures", SpectralSignaturesConfig, detect)}
