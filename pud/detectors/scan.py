"""SCAn (Tang et al. 2021, arXiv 1908.00686): classes whose features are two groups rather than one.

A class is accused where its likelihood ratio of two groups against one is anomalous among the classes (median absolute
deviation above e^2). The original takes the variation within classes, and which group is the clean one, from a small
clean set. Nobody has one in the pipeline: the variation is that of all training images about their class's mean, poison
among them, and the poison is the group that is the farther from the class's median, which holds where it is the
minority.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy

from pud.base.config import Count, Positive
from pud.detectors.contract import Detection, Detector
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence

RIDGE, E_SQUARED = 1e-3, math.exp(2)


@dataclass(frozen=True)
class ScanConfig:
    """How classes are split and accused."""

    refinements: Annotated[Count, "How often the two groups are chosen anew."] = 5
    limit: Annotated[Positive, "Of a class's statistic among those of all classes; the original's e^2."] = E_SQUARED


def two_groups(features: np.ndarray, precision: np.ndarray, refinements: int) -> tuple[np.ndarray, float]:
    """Split features (n, d) in two by linear discrimination under a shared covariance (SCAn, section 4).

    Returns the upper group (bool, (n,)) and twice the log likelihood ratio against one group.
    """
    centred = features - features.mean(0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    along = features @ direction
    upper = along > np.median(along)
    for _ in range(refinements):
        if upper.all() or not upper.any():
            break
        difference = features[upper].mean(0) - features[~upper].mean(0)
        along = features @ (precision @ difference)
        upper = along > (along[upper].mean() + along[~upper].mean()) / 2
    if upper.all() or not upper.any():
        return np.zeros(len(features), bool), 0.0

    def scatter(group: np.ndarray) -> float:
        about = group - group.mean(0)
        return float(((about @ precision) * about).sum())

    return upper, scatter(features) - scatter(features[upper]) - scatter(features[~upper])


def detect(infected: InfectedEvidence, current: PurifiedEvidence | None, config: ScanConfig) -> Detection:
    """Return which classes are two groups, and the farther group of each."""
    features, labels, classes = infected.features.astype(np.float64), infected.labels, infected.logits.shape[1]
    within = np.zeros((features.shape[1],) * 2)
    for label in np.unique(labels):
        centred = features[labels == label] - features[labels == label].mean(0)
        within += centred.T @ centred / len(labels)
    precision = np.linalg.inv(within + RIDGE * np.eye(len(within)))
    statistic, far = np.zeros(classes), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        own = features[members]
        upper, ratio = two_groups(own, precision, config.refinements)
        statistic[label] = ratio / np.sqrt(len(members))
        if upper.any():
            centre = np.median(own, axis=0)
            away = [np.linalg.norm(own[group].mean(0) - centre) for group in (upper, ~upper)]
            far[members] = upper if away[0] > away[1] else ~upper
    deviation = scipy.stats.median_abs_deviation(statistic, scale="normal") + 1e-12
    anomaly = (statistic - np.median(statistic)) / deviation
    suspicion = anomaly[labels] * np.where(far, 1.0, 0.5)
    return Detection.of_accusations(suspicion, far & (anomaly[labels] > config.limit), infected)


DETECTORS = {"scan": Detector("scan", ScanConfig, detect)}
