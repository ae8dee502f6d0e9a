"""Metrics as reductions of logits and verdicts. Every scalar is a fraction."""

import numpy as np
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pud.detection import POISONED, Detection


def clean_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images (n,) classified as their label."""
    return float((logits.argmax(1) == labels).float().mean())


def attack_success_rate(logits: Tensor, target_labels: Tensor) -> float:
    """Share of triggered images, none of them of its target class by right, classified as the target."""
    return clean_accuracy(logits, target_labels)


def recovery_accuracy(logits: Tensor, true_labels: Tensor) -> float:
    """Share of triggered images classified as what they truly are."""
    return clean_accuracy(logits, true_labels)


def detection_metrics(detection: Detection, poisoned: np.ndarray) -> dict[str, object]:
    """Return the rates of the verdict ``poisoned``, the AUROC of the suspicion, and the target labels named."""
    accused = detection.verdict == POISONED
    return {
        "true_positive_rate": float(accused[poisoned].mean()),
        "true_positive_rate_n": int(poisoned.sum()),
        "false_positive_rate": float(accused[~poisoned].mean()),
        "false_positive_rate_n": int((~poisoned).sum()),
        "auroc": float(roc_auc_score(poisoned, detection.suspicion)),
        "auroc_n": len(poisoned),
        "target_labels": detection.target_labels,
    }
