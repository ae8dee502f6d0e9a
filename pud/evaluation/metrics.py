"""Metrics as reductions of logits and verdicts. Every scalar is a fraction."""

from typing import Any

import numpy as np
from torch import Tensor

from pud.attacks.ground_truth import GroundTruth
from pud.detectors.contract import CLEAN, POISONED, UNSURE, Detection

ROC_POINTS, ROC_KEYS = 200, ("fpr", "tpr", "threshold")


def clean_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images, of logits (n, k), that are classified as their label, (n,)."""
    return float((logits.argmax(1) == labels).float().mean())


def attack_success_rate(logits: Tensor, target_labels: Tensor) -> float:
    """Share of triggered images, of logits (n, k), none of its target by right, that are classified as it, (n,).

    A negative target ~label is every label but this one.
    """
    predicted = logits.argmax(1)
    untargeted = (target_labels < 0) & (predicted != ~target_labels)
    return float(((predicted == target_labels) | untargeted).float().mean())


def recovery_accuracy(logits: Tensor, true_labels: Tensor) -> float:
    """Share of triggered images, of logits (n, k), that are classified as what they truly are, (n,)."""
    return clean_accuracy(logits, true_labels)


def detection_metrics(detection: Detection, truth: GroundTruth) -> dict[str, object]:
    """Return the rates of the verdict ``poisoned``, the AUROC of the suspicion, how well the posterior is calibrated,
    the target labels named and the confidence in them."""
    counted = ~truth.cover
    return {
        **verdict_metrics(detection.suspicion, detection.verdict == POISONED, truth),
        "calibration_error": calibration_error(detection.posterior[counted], truth.poisoned[counted]),
        "verdict": detection.conclusion,
        "target_labels": detection.target_labels,
        "unjudged_labels": list(detection.unjudged),
        "confidence": detection.confidence,
    }


def accusations(detection: Detection) -> dict[str, object]:
    """Return what a detection says of its images, where nobody knows the truth."""
    return {
        "accused_images": int((detection.verdict == POISONED).sum()),
        "images": len(detection.verdict),
        "verdict": detection.conclusion,
        "target_labels": detection.target_labels,
        "unjudged_labels": list(detection.unjudged),
        "confidence": detection.confidence,
    }


def calibration_error(posterior: np.ndarray, poisoned: np.ndarray, *, bins: int = 10) -> float | None:
    """Return the expected calibration error of a posterior (n,) over the images that have one or are poisoned.

    In equal bins of the posterior, the gap between its mean and the share of poison, weighted by the bins' images (Guo
    et al. 2017, arXiv 1706.04599, equation 3). The many without a suspicion would hide it and are left out; None
    where none is left.
    """
    asked = poisoned | (posterior > 0)
    said, true = posterior[asked], poisoned[asked]
    if not asked.any():
        return None
    gaps = np.bincount(np.minimum(said * bins, bins - 1).astype(int), said - true, bins)
    return float(np.abs(gaps).sum() / len(said))


def verdict_metrics(suspicion: np.ndarray, accused: np.ndarray, truth: GroundTruth) -> dict[str, object]:
    """Return true and false positive rate of the accusations (bool, (n,)) and the AUROC of the suspicion (n,).

    Cover images, which carry a trigger and their true label, are neither: their rate has its own name. What cannot be
    said, as the true positive rate of a clean data set, is None.
    """
    from sklearn.metrics import roc_auc_score  # a second of imports, which the infected stage does without

    poisoned, clean = truth.poisoned, ~truth.poisoned & ~truth.cover

    def rate(group: np.ndarray) -> float | None:
        return float(accused[group].mean()) if group.any() else None

    both = poisoned | clean
    return {
        "true_positive_rate": rate(poisoned),
        "true_positive_rate_n": int(poisoned.sum()),
        "false_positive_rate": rate(clean),
        "false_positive_rate_n": int(clean.sum()),
        "cover_rate": rate(truth.cover),
        "cover_rate_n": int(truth.cover.sum()),
        "auroc": float(roc_auc_score(poisoned[both], suspicion[both])) if poisoned.any() else None,
        "auroc_n": int(both.sum()),
    }


def classification(detection: Detection, truth: GroundTruth) -> dict[str, dict[str, list[Any]]]:
    """Return what a user interface draws of a detection: ``roc`` by suspicion, and ``confusion`` of the verdicts.

    roc: fpr, tpr and threshold, at most ROC_POINTS of each; empty where nothing is poisoned. confusion: names of the
    rows (truth) and columns (verdict), and the counts. Cover images are in neither.
    """
    counted = ~truth.cover
    poisoned, verdict = truth.poisoned[counted], detection.verdict[counted]
    roc: dict[str, list[Any]] = {}
    if poisoned.any() and not poisoned.all():
        from sklearn.metrics import roc_curve

        curve = roc_curve(poisoned, detection.suspicion[counted])
        shown = np.unique(np.linspace(0, len(curve[0]) - 1, ROC_POINTS).astype(int))
        top = float(detection.suspicion.max()) + 1  # scikit-learn begins at infinity, which no JSON holds
        roc = {key: np.minimum(values[shown], top).tolist() for key, values in zip(ROC_KEYS, curve, strict=True)}
    judged = (CLEAN, UNSURE, POISONED)
    counts = [[int((group & (verdict == one)).sum()) for one in judged] for group in (~poisoned, poisoned)]
    return {"roc": roc, "confusion": {"rows": [CLEAN, POISONED], "columns": list(judged), "counts": counts}}
