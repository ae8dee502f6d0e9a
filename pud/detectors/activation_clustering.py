"""Activation clustering (Chen et al. 2018, arXiv 1811.03728), as ART has it, from the infected model's features.

The features of each class are reduced to a few components and clustered in two; the smaller cluster is accused where it
holds less than ART's share of the class. The suspicion is the verdict itself.
"""

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from pud.base.config import Count
from pud.detectors.art import Activations, art_filter
from pud.detectors.contract import Detection, Detector
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence


@dataclass(frozen=True)
class ActivationClusteringConfig:
    """How features are clustered."""

    dimensions: Annotated[Count, "Principal components that the features are reduced to."] = 10


def detect(
    infected: InfectedEvidence, current: PurifiedEvidence | None, config: ActivationClusteringConfig
) -> Detection:
    """Return the verdict of ART's filter, with its defaults."""
    classes = infected.logits.shape[1]
    state = np.random.get_state()
    np.random.seed(0)  # ART clusters with NumPy's global stream
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        activations = Activations(infected.features, classes)
        defence = art_filter("ActivationDefence")(activations, infected.features, np.eye(classes)[infected.labels])
        _, is_clean = defence.detect_poison(nb_clusters=2, nb_dims=config.dimensions, reduce="PCA")
    np.random.set_state(state)
    accused = np.asarray(is_clean) == 0
    return Detection.of_accusations(accused, accused, infected)


DETECTORS = {"activation_clustering": Detector("activation_clustering", ActivationClusteringConfig, detect)}
