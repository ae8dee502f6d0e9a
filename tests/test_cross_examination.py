"""Held-out predictions: a classifier that never saw a label cannot know the trigger that leads to it."""

import numpy as np
import pytest
import torch

from pud.data.images import LabelledImages
from pud.evidence.cross_examination import (
    CrossExaminationConfig,
    Witness,
    content_odds,
    cross_examine,
    disturb,
    fresh,
    halvings,
    heldout_predictions,
)
from pud.models.contract import Classifier
from pud.models.make import make_model

CPU = torch.device("cpu")
CONFIG = CrossExaminationConfig(splits=2, heldout_epochs=(1,))


@pytest.fixture(scope="module")
def model() -> Classifier:
    return make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("classes", "least", "splits"), [(10, 4, 4), (10, 1, 4), (8, 3, 3), (9, 5, 5), (100, 4, 7)])
def test_halvings_are_even_and_part_every_two_classes(classes: int, least: int, splits: int) -> None:
    halves = halvings(classes, least, stream()).numpy()
    assert halves.shape == (splits, classes)
    assert (np.abs(halves.sum(1) - classes / 2) <= 0.5).all()
    apart = (halves[:, :, None] != halves[:, None]).any(0)
    assert (apart | np.eye(classes, dtype=bool)).all()
    assert not np.array_equal(halves, halvings(classes, least, stream(1)).numpy())


def test_a_fresh_network_is_small_whatever_the_model_is_and_knows_nothing(model: Classifier) -> None:
    one, again, other = fresh(model, stream()), fresh(model, stream()), fresh(model, stream(1))
    assert torch.equal(one.head.weight, again.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.head.weight, model.head.weight)
    large = make_model("resnet18", [3, 32, 32], 7, [0.5, 0.4, 0.3], [0.2, 0.2, 0.3])
    small = fresh(large, stream())
    assert sum(weight.numel() for weight in small.parameters()) < 100_000
    assert (small.input_shape, small.classes) == (large.input_shape, 7)
    assert torch.equal(small.mean, large.mean)


def test_disturbed_images_keep_their_shape_and_range() -> None:
    images = torch.rand(8, 1, 28, 28, generator=stream())
    before = images.clone()
    disturbed = disturb(images, CONFIG, stream())
    assert disturbed.shape == images.shape
    assert disturbed.min() >= 0
    assert disturbed.max() <= 1
    assert (disturbed != images).flatten(1).any(1).all()
    assert torch.equal(images, before)


def test_no_held_out_prediction_is_the_given_label_and_most_are_what_an_image_shows(
    model: Classifier, train_split: LabelledImages
) -> None:
    labels = train_split.labels
    config = CrossExaminationConfig(heldout_epochs=(8,))
    lied = labels.copy()
    lied[:100] = 0  # the first hundred are said to be of class 0
    witnesses = cross_examine(model, train_split.images, lied, config, generator=stream(), device=CPU)
    heldout = heldout_predictions(witnesses, lied, 10)
    assert heldout.shape == (len(labels), 10)
    assert not heldout[np.arange(len(labels)), lied].any()
    assert (heldout >= 0).all()
    assert heldout.max() <= 1
    stolen = np.flatnonzero((np.arange(len(labels)) < 100) & (labels != 0))
    assert (heldout[stolen].argmax(1) == labels[stolen]).mean() > 0.5


def test_without_splits_and_among_few_classes_nothing_is_held_out(
    model: Classifier, train_split: LabelledImages
) -> None:
    images, labels = np.array(train_split.images[:50]), train_split.labels[:50]
    never = CrossExaminationConfig(splits=0)
    assert not cross_examine(model, images, labels, never, generator=stream(), device=CPU)
    assert not heldout_predictions([], labels, 10).any()
    few = train_split.labels < 4
    small = make_model("resnet8", [1, 28, 28], 4, [0.286], [0.353])
    images, labels = np.array(train_split.images)[few], train_split.labels[few]
    assert not cross_examine(small, images, labels, CONFIG, generator=stream(), device=CPU)


def test_a_witness_that_knows_nothing_is_not_heard(model: Classifier, train_split: LabelledImages) -> None:
    """Where labels are drawn by chance there is nothing to be known."""
    chance = torch.randint(10, (len(train_split.labels),), generator=stream()).numpy()
    assert not cross_examine(model, np.array(train_split.images), chance, CONFIG, generator=stream(), device=CPU)


def test_images_brought_from_other_classes_look_less_like_their_given_class() -> None:
    """Witnesses see what is shown; whoever says class 0 of images that show classes 2 and 3 is found out."""
    random = np.random.default_rng(0)
    shown = random.integers(0, 4, 4000)
    labels = np.where((shown >= 2) & (random.random(4000) < 0.2), 0, shown)
    witnesses = []
    for known in ([0, 1], [2, 3], [0, 2], [1, 3], [0, 3], [1, 2]):
        strength = 3.0 * (shown[:, None] == known) + random.normal(size=(4000, 2))
        said = strength - np.log(np.exp(strength).sum(1, keepdims=True))
        witnesses.append(Witness(np.isin(np.arange(4), known), said.astype(np.float16)))
    odds = content_odds(witnesses, labels, np.arange(4000) // 1000, 4)
    brought, rest = (labels == 0) & (shown != 0), (labels == 0) & (shown == 0)
    assert (odds[brought, 0][:, None] < odds[rest, 0]).mean() > 0.9
    assert abs((odds[brought, 0] < np.median(odds[labels != 0, 0])).mean() - 0.4) < 0.2
    assert not content_odds([], labels, np.arange(4000), 4).any()
