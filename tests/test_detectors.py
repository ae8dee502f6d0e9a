"""Rival detectors keep one contract on a small real backdoor; STRIP and SCAn are checked against their definitions."""

import numpy as np
import pytest
import torch

from experiments.detectors import DETECTORS, SUPERPOSITIONS, superposition_entropy, two_groups
from pud.data.images import Split
from pud.models.contract import Classifier
from pud.models.make import make_model
from pud.models.training import TrainConfig, train

CPU = torch.device("cpu")


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def poisoned(train_split: Split) -> tuple[Classifier, np.ndarray, np.ndarray, np.ndarray]:
    """A model trained on a sample whose every eighth image has a white square and label 0."""
    images, labels = np.array(train_split.images), train_split.labels.copy()
    hit = np.arange(len(labels)) % 8 == 0
    images[hit, :, -5:, -5:] = 255
    labels[hit] = 0
    model = make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])
    train(model, images, labels, TrainConfig(epochs=4), generator=stream(), device=CPU)
    return model, images, labels, hit


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_scores_and_accuses_every_image_and_leaves_the_model(
    name: str, poisoned: tuple[Classifier, np.ndarray, np.ndarray, np.ndarray], test_split: Split
) -> None:
    model, images, labels, _ = poisoned
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def run() -> tuple[np.ndarray, np.ndarray]:
        clean = {"clean_images": np.array(test_split.images), "clean_labels": test_split.labels}
        return DETECTORS[name](model, images, labels, **clean, generator=stream(), device=CPU)

    (suspicion, accused), again = run(), run()
    assert suspicion.shape == accused.shape == labels.shape
    assert accused.dtype == bool
    assert np.isfinite(suspicion).all()
    np.testing.assert_array_equal(suspicion, again[0])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_undecided_model_has_the_entropy_of_the_uniform_distribution(test_split: Split) -> None:
    model = make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    images = np.array(test_split.images[:20])
    entropy = superposition_entropy(model, images, images, generator=stream(), device=CPU)
    np.testing.assert_allclose(entropy, np.log(10), rtol=1e-5)
    assert SUPERPOSITIONS > 1


def test_two_clusters_are_told_apart_and_one_is_not_worth_splitting() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(400, 3))
    far = np.arange(400) < 100
    upper, two = two_groups(points + 8 * far[:, None], np.eye(3))
    assert max((upper == far).mean(), (upper != far).mean()) > 0.99
    assert two > 10 * two_groups(points, np.eye(3))[1]
