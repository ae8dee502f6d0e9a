"""Metrics against values worked out by hand."""

import numpy as np
import pytest
import torch

from pud.detection import CLEAN, POISONED, UNSURE, Detection
from pud.metrics import attack_success_rate, clean_accuracy, detection_metrics, recovery_accuracy

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


def test_detection_metrics_of_a_small_verdict() -> None:
    detection = Detection(
        suspicion=np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.3, 0.0, 0.4]),
        posterior=np.zeros(8),
        verdict=np.array([POISONED, POISONED, UNSURE, POISONED, CLEAN, CLEAN, CLEAN, UNSURE]),
        target_labels=[4],
        separation=np.array([5.0]),
        thresholds={4: 0.6},
    )
    poisoned = np.array([True, True, True, False, False, False, False, False])
    assert detection_metrics(detection, poisoned) == {
        "true_positive_rate": pytest.approx(2 / 3),  # an unsure image is not accused
        "true_positive_rate_n": 3,
        "false_positive_rate": pytest.approx(1 / 5),
        "false_positive_rate_n": 5,
        "auroc": pytest.approx((5 + 5 + 1) / 15),  # pairs in the right order: 0.9 and 0.8 beat five, 0.1 beats one
        "auroc_n": 8,
        "target_labels": [4],
    }
