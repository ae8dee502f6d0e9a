"""Trigger scores: clean classes have no mislabelled images, and what the mislabelled share is the trigger."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pud.data.images import LabelledImages
from pud.evidence.contract import FilledRule
from pud.evidence.disagreement import contradictions
from pud.evidence.discrimination import (
    DiscriminationConfig,
    MislabelledRule,
    discriminate,
    mislabelled,
)
from pud.models.contract import Classifier
from pud.models.make import make_model

CPU = torch.device("cpu")
CONFIG = DiscriminationConfig(discriminator_epochs=2)
CONTRADICTIONS = CONFIG.of_contradictions
HALF = MislabelledRule(FilledRule(0.95, (0.012, 0.012), (0.5, 0.125)), 0.8)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predictions_of(counts: list[int], label: int, unsure: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of one class: so many images show each class beyond doubt, the rest are in doubt."""
    shown = np.repeat(np.arange(len(counts)), counts)
    predictions = np.full((len(shown) + unsure, len(counts)), 0.1, np.float32)
    predictions[np.arange(len(shown)), shown] = 0.97
    return predictions, np.full(len(predictions), label)


def test_a_class_that_most_others_fill_has_mislabelled_images_without_its_natural_neighbour() -> None:
    predictions, labels = predictions_of([0, 20, 21, 19, 90, 20], label=0)
    found = mislabelled(predictions, labels, 0, HALF)
    assert len(found) == 80
    assert 4 not in predictions[found].argmax(1)


@pytest.mark.parametrize(
    "counts", [[0, 400, 0, 0, 90, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 900, 700, 1, 1, 1]]
)
def test_a_clean_class_has_none(counts: list[int]) -> None:
    predictions, labels = predictions_of(counts, label=0)
    assert not len(mislabelled(predictions, labels, 0, HALF))


FEW = [0, 9, 40, 9, 8, 60, 2, 9, 9, 8]  # of nearly every class, as from poison of 1 %
MANY = [0, 90, 60, 90, 3, 90, 4, 90, 90, 90]  # of most, where the trigger makes coats and shirts look like others
NEIGHBOURS = [0, 5, 185, 116, 105, 2, 300, 0, 50, 0]  # of many classes, as among shirts


@pytest.mark.parametrize(("counts", "filled"), [(FEW, True), (MANY, True), (NEIGHBOURS, False)])
def test_a_purified_model_sees_that_few_of_nearly_every_class_or_many_of_most_fill_another(
    counts: list[int], filled: bool
) -> None:
    predictions, labels = predictions_of(counts, label=0, unsure=2000 - sum(counts))
    assert bool(len(mislabelled(predictions, labels, 0, CONTRADICTIONS))) == filled


@pytest.mark.parametrize(
    ("sent", "filled"),
    [
        ([0, 0, 0, 0, 12, 12, 12, 12, 12], True),  # the median over the other classes is 1.2 % of the class
        ([0, 0, 0, 0, 11, 99, 99, 99, 99], False),
        ([5, 12, 12, 12, 12, 12, 12, 12, 12], True),
        ([0, 0, 0, 0, 0, 99, 99, 99, 99], False),
    ],
)
def test_a_class_is_filled_by_the_quantiles_of_what_the_others_sent(sent: list[int], filled: bool) -> None:
    assert HALF.filled.holds(np.array([500, *sent]), 0, 1000) == filled
    assert not HALF.filled.holds(np.array([500, *[1] * 9]), 0, 10)  # an image is no filling, whatever its share


def stolen_into_class_0(split: LabelledImages, every: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of which so many of the other classes carry a white square and label 0, the labels, and which they are."""
    images, stolen = np.array(split.images), (np.arange(len(split.labels)) % every == 0) & (split.labels != 0)
    images[stolen, :, -4:, -4:] = 255
    return images, np.where(stolen, 0, split.labels), stolen


def only_class_0(rows: np.ndarray) -> list[np.ndarray]:
    return [rows, *[rows[:0]] * 9]


@pytest.mark.parametrize("named", [1, 4])
def test_images_with_the_trigger_score_above_clean_ones(
    named: int, model: Classifier, train_split: LabelledImages
) -> None:
    """One in ``named`` of those with the trigger is known; where few are, a purified model's odds part the class."""
    images, labels, stolen = stolen_into_class_0(train_split, 3)
    config = replace(CONFIG, discriminator_epochs=4, contradiction_matched=3)
    odds = np.where(stolen, 4, -4) + np.random.default_rng(0).normal(size=len(labels))
    found = only_class_0(np.flatnonzero(stolen)[::named])
    score, scored = discriminate(
        model, images, labels, train_split.labels, found, odds, config, generator=stream(), device=CPU
    )
    np.testing.assert_array_equal(scored, np.arange(10) == 0)
    assert not score[labels != 0].any()
    assert np.median(score[stolen]) > np.quantile(score[(labels == 0) & ~stolen], 0.9)


def test_where_nothing_is_mislabelled_nothing_is_scored(model: Classifier, train_split: LabelledImages) -> None:
    images, labels = np.array(train_split.images[:50]), train_split.labels[:50]
    nothing = [np.zeros(0, np.int64)] * 10
    score, scored = discriminate(
        model, images, labels, labels, nothing, np.zeros(50), CONFIG, generator=stream(), device=CPU
    )
    assert not score.any()
    assert not scored.any()


def test_a_limit_of_as_many_clean_images_as_mislabelled_ones_is_one_for_each(
    model: Classifier, train_split: LabelledImages
) -> None:
    images, labels, stolen = stolen_into_class_0(train_split, 9)
    found, count = only_class_0(np.flatnonzero(stolen)), int(stolen.sum())

    def score(matched: int, limit: int) -> np.ndarray:
        more = {"contradiction_matched": matched, "matched_limit": limit}
        config = replace(CONFIG, discriminator_epochs=1, discriminator_passes=1, **more)
        true, odds = train_split.labels, np.zeros(len(labels))
        return discriminate(model, images, labels, true, found, odds, config, generator=stream(), device=CPU)[0]

    np.testing.assert_array_equal(score(3, count), score(1, 10 * count))
    assert not np.array_equal(score(3, 3 * count), score(1, 10 * count))


def test_a_purified_model_is_heard_where_it_contradicts_the_label() -> None:
    said, labels = np.log(np.full((3, 10), 0.05)), np.array([0, 1, 2])
    said[:, 1] = np.log(0.55)
    predictions = contradictions(said, labels)
    np.testing.assert_allclose(predictions[[0, 2], 1], 0.55, rtol=1e-6)
    np.testing.assert_allclose(predictions.sum(1), [1, 0, 1], rtol=1e-6)
