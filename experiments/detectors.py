"""Rival detectors of poisoned training images: two of ART's, and two written small from their papers.

Each takes a model, uint8 images (n, c, h, w), labels (n,) as given, and a few clean images and labels that only STRIP
and SCAn use; it returns the suspicion, float (n,), higher for poison, and what it accuses at its own standard
threshold, bool (n,).
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch

from pud.data.images import pixels
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm

EXPECTED_POISON = 0.33  # ART's default for spectral signatures
SUPERPOSITIONS, FALSE_REJECTION = 10, 0.01  # of STRIP
SCAN_ROUNDS, SCAN_LIMIT = 5, np.exp(2)  # of SCAn: its limit on the normalised statistic


@torch.no_grad()
def features_of(model: Classifier, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Return penultimate features, float32 (n, d)."""
    fast = fold_batchnorm(model)
    parts = [fast.features(pixels(images[i : i + 500]).to(device)).cpu() for i in range(0, len(images), 500)]
    return torch.cat(parts).numpy()


class _Activations:
    """What ART's filters ask of a classifier: its number of classes and its penultimate activations."""

    layer_names = ("features",)

    def __init__(self, features: np.ndarray, classes: int) -> None:
        self.features, self.nb_classes = features, classes

    def get_activations(self, x: np.ndarray, layer: int, batch_size: int) -> np.ndarray:
        return self.features


Detected = tuple[np.ndarray, np.ndarray]


def activation_clustering(
    model: Classifier, images: np.ndarray, labels: np.ndarray, *, device: torch.device, **unused: object
) -> Detected:
    """ART's activation clustering (Chen et al. 2018, arXiv 1811.03728), its defaults; the suspicion is its verdict."""
    from art.defences.detector.poison import ActivationDefence

    activations = _Activations(features_of(model, images, device), model.head.out_features)
    state = np.random.get_state()
    np.random.seed(0)  # ART clusters with NumPy's global stream
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defence = ActivationDefence(activations, images, np.eye(activations.nb_classes)[labels])
        _, is_clean = defence.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA")
    np.random.set_state(state)
    accused = np.asarray(is_clean) == 0
    return accused.astype(float), accused


def spectral_signatures(
    model: Classifier, images: np.ndarray, labels: np.ndarray, *, device: torch.device, **unused: object
) -> Detected:
    """ART's spectral signatures (Tran et al. 2018, arXiv 1811.00636) with its default expectation of a third."""
    from art.defences.detector.poison import SpectralSignatureDefense

    features = features_of(model, images, device)
    activations = _Activations(features, model.head.out_features)
    defence = SpectralSignatureDefense(activations, images, labels, expected_pp_poison=EXPECTED_POISON)
    _, is_clean = defence.detect_poison()
    suspicion = np.zeros(len(labels))
    for label in np.unique(labels):
        members = labels == label
        suspicion[members] = defence.spectral_signature_scores(features[members])[:, 0]
    return suspicion, np.asarray(is_clean) == 0


@torch.no_grad()
def superposition_entropy(
    model: Classifier, images: np.ndarray, others: np.ndarray, *, generator: torch.Generator, device: torch.device
) -> np.ndarray:
    """Return (n,): the mean entropy, in nats, of predictions on sums of each image with random others, clipped."""
    fast = fold_batchnorm(model)
    total = np.zeros(len(images))
    for _ in range(SUPERPOSITIONS):
        partner = torch.randint(len(others), (len(images),), generator=generator).numpy()
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            mixed = (pixels(images[rows]) + pixels(others[partner[rows]])).clamp_(0, 1).to(device)
            log = fast(mixed).log_softmax(1)
            total[rows] -= (log.exp() * log).sum(1).cpu().numpy()
    return total / SUPERPOSITIONS


def strip(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    clean_images: np.ndarray,
    generator: torch.Generator,
    device: torch.device,
    **unused: object,
) -> Detected:
    """STRIP (Gao et al. 2019, arXiv 1902.06531): accused below the 1 % quantile of clean images' entropy."""
    rest = {"generator": generator, "device": device}
    honest = superposition_entropy(model, clean_images, clean_images, **rest)  # type: ignore[arg-type]
    entropy = superposition_entropy(model, images, clean_images, **rest)  # type: ignore[arg-type]
    return -entropy, entropy < np.quantile(honest, FALSE_REJECTION)


def two_groups(features: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, float]:
    """Split features (n, d) in two by linear discrimination under a shared covariance (SCAn, section 4).

    Returns the upper group (bool, (n,)) and twice the log likelihood ratio against one group.
    """
    direction = np.linalg.svd(features - features.mean(0), full_matrices=False)[2][0]
    along = features @ direction
    upper = along > np.median(along)
    for _ in range(SCAN_ROUNDS):
        if upper.all() or not upper.any():
            break
        difference = features[upper].mean(0) - features[~upper].mean(0)
        along = features @ (precision @ difference)
        upper = along > (along[upper].mean() + along[~upper].mean()) / 2
    if upper.all() or not upper.any():
        return np.zeros(len(features), bool), 0.0

    def scatter(group: np.ndarray) -> float:
        centred = group - group.mean(0)
        return float(np.einsum("ni,ij,nj->", centred, precision, centred))

    return upper, scatter(features) - scatter(features[upper]) - scatter(features[~upper])


def scan(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    clean_images: np.ndarray,
    clean_labels: np.ndarray,
    device: torch.device,
    **unused: object,
) -> Detected:
    """SCAn (Tang et al. 2021, arXiv 1908.00686): classes whose features are two groups by the spread of clean images.

    A class is accused where its statistic is anomalous among the classes (median absolute deviation above e^2); its
    group farther from the clean images' mean is the poison.
    """
    features, clean = features_of(model, images, device), features_of(model, clean_images, device)
    classes = range(model.head.out_features)
    means = np.stack([clean[clean_labels == label].mean(0) for label in classes])
    within = clean - means[clean_labels]
    precision = np.linalg.inv(within.T @ within / len(within) + 1e-3 * np.eye(within.shape[1]))
    statistic, far = np.zeros(len(classes)), np.zeros(len(labels), bool)
    for label in classes:
        members = np.flatnonzero(labels == label)
        upper, ratio = two_groups(features[members], precision)
        statistic[label] = ratio / np.sqrt(max(1, len(members)))
        if upper.any():
            away = [np.linalg.norm(features[members][group].mean(0) - means[label]) for group in (upper, ~upper)]
            far[members] = upper if away[0] > away[1] else ~upper
    deviation = np.median(np.abs(statistic - np.median(statistic))) + 1e-12
    anomaly = (statistic - np.median(statistic)) / (1.4826 * deviation)
    return anomaly[labels] * np.where(far, 1.0, 0.5), far & (anomaly[labels] > SCAN_LIMIT)


DETECTORS: dict[str, Callable[..., Detected]] = {
    "activation_clustering": activation_clustering,
    "spectral_signatures": spectral_signatures,
    "strip": strip,
    "scan": scan,
}
