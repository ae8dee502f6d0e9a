"""Metrics against values worked out by hand."""

import numpy as np
import pytest
import torch

from pud.attacks.ground_truth import GroundTruth
from pud.detectors.contract import CLEAN, POISONED, UNSURE, Detection
from pud.evaluation.metrics import (
    attack_success_rate,
    calibration_error,
    clean_accuracy,
    detection_metrics,
    recovery_accuracy,
    verdict_metrics,
)

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 1.0, 3.0], [5.0, -1.0, 3.0]])  # predicts 0, 1, 2, 0


@pytest.mark.parametrize("metric", [clean_accuracy, attack_success_rate, recovery_accuracy])
@pytest.mark.parametrize(
    ("labels", "value"), [([0, 1, 2, 0], 1.0), ([0, 0, 0, 0], 0.5), ([1, 2, 0, 1], 0.0), ([0, 1, 2, 1], 0.75)]
)
def test_a_rate_is_the_share_of_predictions_that_agree(metric: object, labels: list[int], value: float) -> None:
    assert metric(LOGITS, torch.tensor(labels)) == value  # type: ignore[operator]


def test_rates_of_one_set_of_triggered_images_add_up() -> None:
    true, target = torch.tensor([1, 1, 2, 2]), torch.tensor([0, 0, 0, 0])
    assert attack_success_rate(LOGITS, target) == 0.5
    assert recovery_accuracy(LOGITS, true) == 0.5


def truth_of(poisoned: np.ndarray, cover: np.ndarray) -> GroundTruth:
    nothing = np.zeros(0, np.int64)
    return GroundTruth(poisoned, cover, np.zeros(len(poisoned), np.int64), *4 * [nothing])


def test_detection_metrics_of_a_small_verdict() -> None:
    detection = Detection(
        suspicion=np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.3, 0.0, 0.4]),
        posterior=np.array([1.0, 0.95, 0.0, 0.95, 0.1, 0.0, 0.0, 0.5]),
        verdict=np.array([POISONED, POISONED, UNSURE, POISONED, CLEAN, CLEAN, CLEAN, UNSURE]),
        target_labels=[4],
        separation=np.array([5.0]),
        inferred_label=np.full(8, -1),
        may_unlearn=np.zeros(8, bool),
        confidence=0.9,
    )
    poisoned = np.array([True, True, True, False, False, False, False, False])
    truth = truth_of(poisoned, cover=np.arange(8) == 7)
    assert detection_metrics(detection, truth) == {
        "true_positive_rate": pytest.approx(2 / 3),  # an unsure image is not accused
        "true_positive_rate_n": 3,
        "false_positive_rate": pytest.approx(1 / 4),
        "false_positive_rate_n": 4,
        "cover_rate": 0.0,
        "cover_rate_n": 1,
        "auroc": pytest.approx((4 + 4 + 1) / 12),  # pairs in the right order: 0.9 and 0.8 beat four, 0.1 beats one
        "auroc_n": 7,
        # five have a posterior or are poisoned: 2.9 was said of two in the highest bin, 0 of one, 0.1 of none
        "calibration_error": pytest.approx((0.9 + 1.0 + 0.1) / 5),
        "verdict": "backdoor",
        "target_labels": [4],
        "unjudged_labels": [],
        "confidence": 0.9,
    }


def test_a_posterior_that_is_right_has_no_calibration_error() -> None:
    poisoned = np.arange(100) < 70
    assert calibration_error(np.full(100, 0.7), poisoned) == pytest.approx(0.0)
    assert calibration_error(np.where(poisoned, 1.0, 0.0), poisoned) == 0.0
    assert calibration_error(np.zeros(5), np.zeros(5, bool)) is None


def test_a_clean_data_set_has_no_true_positive_rate() -> None:
    rates = verdict_metrics(np.arange(4.0), np.arange(4) == 0, truth_of(np.zeros(4, bool), np.zeros(4, bool)))
    assert (rates["true_positive_rate"], rates["auroc"], rates["false_positive_rate"]) == (None, None, 0.25)


def test_an_untargeted_attack_succeeds_where_an_image_loses_its_true_label() -> None:
    logits = torch.eye(4)[[0, 1, 2, 3, 0]]
    true_labels = torch.tensor([0, 2, 3, 3, 1])
    assert attack_success_rate(logits, ~true_labels) == pytest.approx(0.6)
    assert recovery_accuracy(logits, true_labels) == pytest.approx(0.4)
    assert attack_success_rate(logits, torch.tensor([0, 2, 2, ~3, ~1])) == pytest.approx(0.6)
