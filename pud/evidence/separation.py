"""How far two groups of images lie apart: along a score, by a mixture of two Gaussians, and in features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

VISIBLY_APART = 2.0  # Ashman's D from which two modes are (Ashman, Bird and Zepf 1994)
TWO_POPULATIONS = 6.0  # Ashman's D in features: those of clean classes reach 5.6 (docs/decisions.md)
STARTS, STEPS, TOLERANCE, LEAST_VARIANCE = 3, 100, 1e-3, 1e-6  # of a mixture; the last three as scikit-learn has them
LLOYD_STEPS, LLOYD_TOLERANCE = 300, 1e-4  # of the k-means that it starts from, in variances; scikit-learn's too


def ashmans_d(means: Sequence[float], variances: Sequence[float]) -> float:
    """Return sqrt(2) (m1 - m0) / sqrt(v0 + v1) of a lower and an upper population (Ashman et al. 1994)."""
    return float(np.sqrt(2) * (means[1] - means[0]) / np.sqrt(variances[0] + variances[1]))


@dataclass(frozen=True)
class TwoGaussians:
    """A mixture of two Gaussians, the lower first; each array (2,)."""

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, posterior: np.ndarray) -> "TwoGaussians":
        """Return the mixture that is likeliest for values (n,) given the posterior of each Gaussian (2, n)."""
        counts = posterior.sum(1) + 10 * np.finfo(np.float64).eps
        means = posterior @ values / counts
        variances = (posterior * (values - means[:, None]) ** 2).sum(1) / counts + LEAST_VARIANCE
        return cls(counts / counts.sum(), means, variances)

    def log_densities(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted log densities of values (n,) under each Gaussian, (2, n)."""
        squares = (values - self.means[:, None]) ** 2 / self.variances[:, None]
        return np.log(self.weights)[:, None] - 0.5 * (np.log(2 * np.pi * self.variances)[:, None] + squares)

    def posterior(self, values: np.ndarray) -> np.ndarray:
        """Return the posterior (n,) of the Gaussian with the higher mean."""
        low, high = self.log_densities(values)[np.argsort(self.means)]
        return scipy.special.expit(high - low)


def nearer_to_the_second(values: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return which of two means of values (n,) is the nearer, bool (n,), by k-means from a random start."""
    from sklearn.cluster import kmeans_plusplus  # a second

    centred = values - values.mean()
    centres = kmeans_plusplus(centred[:, None], 2, random_state=random)[0][:, 0]
    second = np.zeros(len(values), bool)
    for _ in range(LLOYD_STEPS):
        before, second = second, (centred > centres.mean()) == (centres[1] > centres[0])
        if second.all() or not second.any():
            break
        old, centres = centres, np.array([centred[~second].mean(), centred[second].mean()])
        if np.array_equal(second, before):
            break
        if ((centres - old) ** 2).sum() <= LLOYD_TOLERANCE * centred.var():
            return (centred > centres.mean()) == (centres[1] > centres[0])
    return second


def fit_two_gaussians(values: np.ndarray) -> TwoGaussians:
    """Fit a mixture to values (n,) by expectation maximisation, the likeliest of a few starts from k-means.

    What scikit-learn's GaussianMixture(2, n_init=3, random_state=0) finds, without its overhead of many dimensions.
    """
    random, best, best_likelihood = np.random.RandomState(0), None, -np.inf
    for _ in range(STARTS):
        second = nearer_to_the_second(values, random)
        mixture, likelihood = TwoGaussians.of(values, np.stack([~second, second]).astype(np.float64)), -np.inf
        for _ in range(STEPS):
            densities = mixture.log_densities(values)
            before, total = likelihood, np.logaddexp(*densities)
            likelihood = total.mean()
            mixture = TwoGaussians.of(values, np.exp(densities - total))
            if abs(likelihood - before) < TOLERANCE:
                break
        if best is None or likelihood > best_likelihood:
            best, best_likelihood = mixture, likelihood
    assert best is not None
    return best


def two_modes(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Fit two Gaussians to values (n,): return Ashman's D, the threshold between them, posterior (n,) of the upper one.

    From ``VISIBLY_APART`` on these are two modes to the eye.
    """
    values = values.astype(np.float64)
    mixture = fit_two_gaussians(values)
    order = np.argsort(mixture.means)
    low, high = mixture.means[order]
    grid = np.linspace(low, high, 1001)
    threshold = float(grid[np.argmax(mixture.posterior(grid) >= 0.5)])
    posterior = mixture.posterior(values)
    posterior[values < low] = 0.0  # a wide upper mode must not claim the far end of the lower one
    posterior[values > high] = np.maximum(posterior[values > high], 1 - 1e-6)
    return ashmans_d((low, high), mixture.variances[order].tolist()), threshold, posterior


def posterior_of_ratios(ratios: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the threshold between two populations, and the posterior (n,) of the one that log likelihood ratios (n,)
    speak for.

    At the share of it that is likeliest, by expectation maximisation (Saerens, Latinne and Decaestecker 2002).
    """
    share, before, least = 0.5, 0.0, 1 / (len(ratios) + 2)
    while abs(share - before) > TOLERANCE / len(ratios):
        before, odds = share, scipy.special.logit(share)
        share = float(np.clip(scipy.special.expit(ratios + odds).mean(), least, 1 - least))
    return -odds, scipy.special.expit(ratios + odds)


def shrunk_covariance(features: np.ndarray) -> np.ndarray:
    """Return the covariance (d, d) of features (n, d), shrunk to that of uncorrelated ones of the same variances.

    By as much as is best for its squared error (Ledoit and Wolf 2004), with every feature at a variance of 1.
    """
    centred = features - features.mean(0)
    scale = np.sqrt((centred**2).mean(0))
    scale[scale <= 10 * np.finfo(np.float64).eps * np.abs(features).max(0)] = 1.0  # a feature that does not vary
    centred /= scale
    n, d = centred.shape
    covariance = centred.T @ centred / n
    mean, square = np.trace(covariance) / d, (covariance**2).sum()
    error = (((centred**2).sum(1) ** 2).mean() - square) / n
    distance = square - d * mean**2
    shrinkage = min(error, distance) / distance if min(error, distance) != 0 else 0.0
    covariance *= 1 - shrinkage
    covariance.flat[:: d + 1] += shrinkage * mean
    return covariance * scale[:, None] * scale


def whitened(features: np.ndarray) -> np.ndarray:
    """Return features (n, d) about their mean, (n, r), in coordinates where their shrunk covariance is the identity."""
    centred = features - features.mean(0, dtype=np.float64)
    values, vectors = scipy.linalg.eigh(shrunk_covariance(centred))
    extends = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return centred @ (vectors[:, extends] / np.sqrt(values[extends]))


def two_populations(points: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the log odds (n,) that a point is of the second of two Gaussians of one covariance, to which ``second``,
    bool (n,), leads.

    By expectation maximisation. Of points (n, d) that are white, as ``whitened`` returns them, Fisher's direction is
    the difference of the means, and along it two variances that are held to be equal remain.
    """
    odds = np.where(second, 1, -1) * scipy.special.logit(0.95)
    for _ in range(STEPS):
        posterior = scipy.special.expit(odds)
        weights = np.stack([1 - posterior, posterior])
        counts = weights.sum(1)
        if counts.min() < 2:
            break
        along = points @ ((posterior - posterior.mean()) @ points)
        low, high = means = weights @ along / counts
        variance = (weights * (along - means[:, None]) ** 2).sum() / len(along) + np.finfo(np.float64).tiny
        odds = (high - low) / variance * (along - (high + low) / 2) + np.log(counts[1] / counts[0])
        if np.abs(scipy.special.expit(odds) - posterior).sum() < TOLERANCE:
            break
    return odds


def fisher_direction(features: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the direction (d,) that best tells a group, ``upper`` (bool, (n,)), from the rest of features (n, d)."""
    groups = features[~upper], features[upper]
    within = sum(len(group) / len(features) * shrunk_covariance(group) for group in groups)
    difference = groups[1].mean(0) - groups[0].mean(0)
    try:
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(within), difference)
    except np.linalg.LinAlgError:
        return scipy.linalg.lstsq(within, difference)[0]


def fisher_separation(features: np.ndarray, upper: np.ndarray, scene: np.ndarray, minimum: int) -> float:
    """Return Ashman's D between two groups of features (n, d), ``upper`` (bool, (n,)) and the rest, 0 for small groups.

    Along Fisher's direction, with a shrunk covariance, learned on every other scene (n,) of each group and measured on
    those between, and the other way round: what no direction of the features shows twice is no separation.
    """
    half = np.zeros(len(upper), bool)
    for group in (upper, ~upper):
        half[group] = np.unique(scene[group], return_inverse=True)[1] % 2 == 0
    if min((group & side).sum() for group in (upper, ~upper) for side in (half, ~half)) < max(2, minimum // 2):
        return 0.0
    found = []
    for seen in (half, ~half):
        along = features[~seen] @ fisher_direction(features[seen].astype(np.float64), upper[seen])
        low, high = along[~upper[~seen]], along[upper[~seen]]
        found.append(ashmans_d((low.mean(), high.mean()), (low.var(), high.var())))
    return float(np.mean(found))
