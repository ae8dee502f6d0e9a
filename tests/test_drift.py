"""Drift of adversarial examples, against models for which it can be written down."""

import pytest
import torch
from torch import Tensor, nn

from pud.evaluation.drift import adversarial_drift


class Linear(nn.Module):
    """Two pixels; class 0 where the first is larger, else class 1; the features are the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]]))

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


IMAGES = torch.tensor([[0.51, 0.50], [0.50, 0.49], [0.9, 0.1]]).view(3, 1, 1, 2)
LABELS = torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize(("target", "share"), [(1, 1.0), (2, 0.0)])
def test_the_share_counts_fooling_examples_that_reach_the_target(target: int, share: float) -> None:
    targets = torch.full((3,), target)
    drift = adversarial_drift(Linear(), IMAGES, IMAGES.flip(3), LABELS, targets, seed=0)  # type: ignore[arg-type]
    assert drift.fooled == pytest.approx(2 / 3)  # the third is too far from the boundary
    assert drift.share_to_target == share
    assert drift.n == 3


def test_similarity_is_the_cosine_of_features() -> None:
    targets = torch.ones(3, dtype=torch.long)
    drift = adversarial_drift(Linear(), IMAGES[2:], IMAGES[2:].flip(3), LABELS[2:], targets[2:], seed=0)  # type: ignore[arg-type]
    x_adv = torch.tensor([0.9 - 6 / 255, 0.1 + 6 / 255])
    for found, other in ((drift.similarity_to_clean, [0.9, 0.1]), (drift.similarity_to_triggered, [0.1, 0.9])):
        assert found == pytest.approx(float(torch.cosine_similarity(x_adv, torch.tensor(other), dim=0)), abs=1e-4)
