"""Why a model may not know its own images: a wrong normaliser and a wrong order of classes are found out by trying."""

import copy

import numpy as np
import pytest
import torch
from small import small_classifier

from pud.data.images import LabelledImages
from pud.models.contract import Classifier
from pud.models.normalisation import hint
from pud.models.training import TrainConfig, train

CPU = torch.device("cpu")
IMAGES = 900


@pytest.fixture(scope="module")
def model(train_split: LabelledImages) -> Classifier:
    model = small_classifier(0)
    config = TrainConfig(epochs=5, batch_size=50)
    images, labels = np.array(train_split.images[:IMAGES]), train_split.labels[:IMAGES]
    train(model, images, labels, config, generator=torch.Generator().manual_seed(0), device=CPU)
    return model


def told(model: Classifier, labels: np.ndarray, split: LabelledImages) -> str | None:
    return hint(model, split.images[:IMAGES], labels, generator=torch.Generator().manual_seed(0), device=CPU)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1 / 255), (-3.0, 0.35), (0.286, 6.0)])
def test_a_wrong_normalisation_is_named_with_the_right_one(
    mean: float, std: float, model: Classifier, train_split: LabelledImages
) -> None:
    wrong = copy.deepcopy(model)
    wrong.mean.fill_(mean)
    wrong.std.fill_(std)
    sentence = told(wrong, train_split.labels[:IMAGES], train_split)
    assert sentence is not None
    assert "if the normalisation were" in sentence
    assert "mean [0.28" in sentence
    torch.testing.assert_close(wrong.mean.flatten(), torch.tensor([mean]))  # the model itself is left alone


def test_another_order_of_classes_is_named(model: Classifier, train_split: LabelledImages) -> None:
    order = np.random.default_rng(0).permutation(10)
    sentence = told(model, order[train_split.labels[:IMAGES]], train_split)
    assert sentence is not None
    assert f"if the classes were in the order {order.tolist()}" in sentence


def test_where_nothing_helps_nothing_is_said(train_split: LabelledImages, model: Classifier) -> None:
    random = np.random.default_rng(0).integers(10, size=IMAGES)
    assert told(model, random, train_split) is None
