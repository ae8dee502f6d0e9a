"""SPECTRE (Hayase et al. 2021, arXiv 2104.11315): QUE scores of a class's features, whitened by a robust covariance.

The authors' code is told the target class and how many of its images are poisoned. Here nobody is told. The class is
that whose features have the largest mean score, which is some class of clean data too. How much of it is poisoned is a
guess in the settings, as for spectral signatures: a third, since half, which is 1.5 times as much, is the most that can
go while the rest can be thought clean. Where more is poison, as in attacks that fill their class, the rest is not;
where less is, most of the accused are clean.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from pud.base.config import Count, Part, Positive
from pud.detectors.contract import Detection, Detector
from pud.detectors.que import RANK_TOLERANCE, ClassFeatures, anchored_form
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence

TRIES = 10  # numbers of directions, evenly spaced in their roots
FEWEST = 4  # images of a class that is looked at
ROBUST_SHARE = 2.0  # of the expected poison: the most that the robust estimate leaves out
TAU, C, SHIFT = 0.1, 10.0, 3.0  # of the robust estimate: its failure probability and the authors' constants


@dataclass(frozen=True)
class SpectreConfig:
    """How much is accused, and how images are scored."""

    expected_poison: Annotated[Part, "Share of the target class, a guess."] = 0.33
    removed: Annotated[Positive, "Times as much is accused; the original's."] = 1.5
    alpha: Annotated[Positive, "Of the QUE score: how much the widest directions count above others."] = 4.0
    dimensions: Annotated[Count, "Most principal components that are tried."] = 100


def detect(infected: InfectedEvidence, current: PurifiedEvidence | None, config: SpectreConfig) -> Detection:
    """Return the highest scores of the class whose mean score is the largest."""
    labels, suspicion = infected.labels, np.zeros(len(infected.labels))
    accused, largest = np.zeros(len(labels), bool), -np.inf
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < FEWEST:
            continue
        suspicion[members], mean = que_scores(infected.features[members], config)
        if mean > largest:
            largest, accused = mean, np.zeros(len(labels), bool)
            accused[members[highest(suspicion[members], config)]] = True
    return Detection.of_accusations(suspicion, accused, infected)


def highest(scores: np.ndarray, config: SpectreConfig) -> np.ndarray:
    """Return the indices of as many of the highest scores (m,) as are accused; two at least stay."""
    count = min(len(scores) - 2, round(config.removed * config.expected_poison * len(scores)))
    return np.argsort(-scores, kind="stable")[:count]


def que_scores(features: np.ndarray, config: SpectreConfig) -> tuple[np.ndarray, float]:
    """Return QUE scores (m,) of one class's features (m, d), their median at 1, and the mean score by which it ranks.

    Of several numbers of principal components that one is taken after whose accusations the mean score of all, whitened
    by those that are left, is largest.
    """
    points = ClassFeatures.of(features)
    values, vectors = np.linalg.eigh(points.scatter)
    most = min(config.dimensions, int((values > max(RANK_TOLERANCE**2 * values[-1], 1e-24)).sum()))
    projected = points.centred @ vectors[:, ::-1][:, :most]
    moment = projected.T @ projected / len(projected)
    best, largest = np.zeros(len(features)), -np.inf
    for count in np.unique((np.linspace(1, np.sqrt(most), TRIES) ** 2).round().astype(int)) if most else []:
        part = projected[:, :count]
        kept = robust_members(part, config.expected_poison)
        form = anchored_form(moment[:count, :count], covariance(part[kept]), config.alpha)
        scores = ((part @ form) * part).sum(1)
        rest = np.delete(projected, highest(scores, config), axis=0)
        mean = float((anchored_form(moment, covariance(rest), config.alpha) * moment).sum())
        if mean > largest:
            best, largest = scores / max(np.median(scores), np.finfo(np.float64).tiny), mean
    return best, largest


def covariance(points: np.ndarray) -> np.ndarray:
    """Return the covariance (d, d) of points (m, d)."""
    return np.atleast_2d(np.cov(points, rowvar=False, bias=True))


def robust_members(points: np.ndarray, poison: float) -> np.ndarray:
    """Return bool (m,): points (m, d) of mean zero by which to estimate the covariance of all but a share of poison.

    The filter of Diakonikolas et al. 2017 (arXiv 1703.00893), with the constants of SPECTRE's code: while some
    quadratic form of the whitened points varies more than a normal distribution's can, the points where it is farthest
    from its median go; at most twice the expected poison.
    """
    kept, may_go = np.ones(len(points), bool), round(ROBUST_SHARE * poison * len(points))
    while points.shape[1] > 1 and (left := min(may_go, len(points) - 2) - (~kept).sum()) > 0:
        own = points[kept]
        values, vectors = np.linalg.eigh(own.T @ own / len(own))
        white = own @ vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1]))
        distance = (white**2).sum(1)
        limit = C * white.shape[1] * np.log(len(own) / TAU)
        if (distance < limit).all():
            variance, form = widest_form(white)
            if variance <= 1 + C * poison * np.log(1 / poison) ** 2:
                break
            value = ((white @ form) * white).sum(1)
            distance = np.abs(value - np.median(value)) / np.sqrt(2)
            beyond = distance[distance - SHIFT > C * np.log(1 / poison)]
            limit = (beyond.min() if len(beyond) else distance.max()) - SHIFT
            if limit <= 0:
                break
        far = np.argsort(-distance, kind="stable")[: min(left, (distance > limit).sum())]
        kept[np.flatnonzero(kept)[far]] = False
    return kept


def widest_form(white: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the largest variance of x'Vx over points x, white (m, d), and the V (d, d) of length 1 that has it."""
    d = white.shape[1]

    def times(flat: np.ndarray) -> np.ndarray:
        form = flat.reshape(d, d)
        value = ((white @ form) * white).sum(1)
        return (white.T @ (white * value[:, None]) / len(white) - np.trace(form) * np.eye(d)).ravel()

    start = np.random.default_rng(0).normal(size=(d, d))
    operator = LinearOperator((d * d, d * d), matvec=times, dtype=np.float64)
    variance, forms = eigsh(operator, k=1, which="LA", v0=(start + start.T).ravel(), tol=1e-3)
    form = forms[:, 0].reshape(d, d)
    return float(variance[0]), (form + form.T) / 2


DETECTORS = {"spectre": Detector("spectre", SpectreConfig, detect)}
