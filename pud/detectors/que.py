"""SPECTRE's QUE score of one class's features, with the clean statistics taken from anchors (arXiv 2104.11315).

The original (Hayase et al. 2021) takes the majority of a class for clean. Here *anchors* are held to be clean: a share
of the class that some cue points to. Everything is worked out from second moments (d, d), which cost one pass over the
features (m, d) of a class, not one for each choice of anchors.
"""

from dataclasses import dataclass

import numpy as np
import scipy

RANK_TOLERANCE = 1e-6  # singular values below this share of the largest are none


@dataclass(frozen=True)
class ClassFeatures:
    """One class's features less their mean, float64 (m, d), and their scatter (d, d), the sum of outer products."""

    centred: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "ClassFeatures":
        """Return those of features (m, d)."""
        centred = features - features.mean(0, dtype=np.float64)
        return cls(centred, centred.T @ centred)


def que_form(second_moment: np.ndarray, alpha: float) -> np.ndarray:
    """Return the matrix Q / tr Q (d, d) of QUE scores x' Q x / tr Q, Q = expm(alpha (S - I) / (|S| - 1)).

    S is the second moment of whitened points; the exponential is that of the matrix (Hayase et al. 2021, equation 2).
    """
    values, vectors = np.linalg.eigh(second_moment)
    excess = values[-1] - 1
    # without a direction that is wider than the clean ones, every direction counts the same
    weights = np.exp(alpha * (values - values[-1]) / excess) if excess > 1e-6 else np.ones(len(values))
    return (vectors * (weights / weights.sum())) @ vectors.T


def leading_directions(
    points: ClassFeatures, anchors: np.ndarray, images_per_dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the anchors (d,) and the leading directions (d, r) of the features about it.

    r is a power of 2, at least 2: as many as there are anchors for, and as the features, and the anchors, extend in.
    """
    d, own = points.centred.shape[1], points.centred[anchors]
    mean = own.mean(0)
    most = min(d, max(2, len(own) // images_per_dimension))
    about = points.scatter + len(points.centred) * np.outer(mean, mean)
    values, vectors = scipy.linalg.eigh(about, subset_by_index=(d - most, d - 1))
    own = own - mean
    within = own.T @ own if len(own) > d else own @ own.T
    size = len(within)
    spread = scipy.linalg.eigh(within, eigvals_only=True, subset_by_index=(max(0, size - most), size - 1))
    rank = min(
        (values > RANK_TOLERANCE**2 * values[-1]).sum(), (spread > RANK_TOLERANCE**2 * max(spread[-1], 1e-24)).sum()
    )
    count = min(d, 2 ** int(np.log2(max(2, rank))))
    return mean, vectors[:, ::-1][:, :count]


def anchored_que_scores(
    points: ClassFeatures, anchors: np.ndarray, alpha: float, images_per_dimension: int
) -> np.ndarray:
    """Return QUE scores (m,) of one class's features, whitened by the anchors (bool, (m,)), their median at 1.

    As in SPECTRE the features are projected on the leading singular directions, and of the numbers of directions
    2, 4, 8, ..., as far as there are anchors for them, the one with the largest mean score is taken.
    """
    mean, directions = leading_directions(points, anchors, images_per_dimension)
    projected = points.centred @ directions - mean @ directions
    moment = projected.T @ projected / len(projected)
    covariance = np.atleast_2d(np.cov(projected[anchors], rowvar=False))
    best, largest = np.zeros((0, 0)), -np.inf
    for power in range(1, 1 + max(1, int(np.log2(directions.shape[1])))):
        part = np.s_[: 2**power, : 2**power]
        form = anchored_form(moment[part], covariance[part], alpha)
        if (score := float((form * moment[part]).sum())) > largest:  # the mean score of all points
            best, largest = form, score
    chosen = projected[:, : len(best)]
    scores = ((chosen @ best) * chosen).sum(1)
    return scores / max(np.median(scores[anchors]), np.finfo(np.float64).tiny)


def anchored_form(moment: np.ndarray, covariance: np.ndarray, alpha: float) -> np.ndarray:
    """Return the matrix A (p, p) of QUE scores x' A x of points with this second moment, whitened by a covariance."""
    tiny = max(1e-6 * np.trace(covariance) / len(covariance), 1e-12)
    lower = np.linalg.cholesky(covariance + tiny * np.eye(len(covariance)))
    whitening = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
    return whitening.T @ que_form(whitening @ moment @ whitening.T, alpha) @ whitening


def refined_que_scores(
    points: ClassFeatures,
    cue: np.ndarray,
    fraction: float,
    alpha: float,
    images_per_dimension: int,
    refinements: int,
) -> np.ndarray:
    """Return anchored QUE scores (m,) of one class with a cue (m,) that is higher for poison.

    The anchors are first the ``fraction`` with the lowest cue (all, where the cue says nothing), then those that rank
    lowest in the cue and in the last scores together: poison that had slipped in leaves.
    """
    order = scipy.stats.rankdata(cue)
    for _ in range(max(1, refinements)):
        anchors = order <= np.quantile(order, fraction)
        scores = anchored_que_scores(points, anchors, alpha, images_per_dimension)
        order = scipy.stats.rankdata(cue) + scipy.stats.rankdata(scores)
    return scores
