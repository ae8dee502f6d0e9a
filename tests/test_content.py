"""Content evidence: who never saw a label cannot know its trigger, and honest classes have no intruders."""

import numpy as np
import pytest
import torch

from pud.data.images import Split
from pud.evidence.cross_examination import (
    ContentConfig,
    contradictions,
    cross_examine,
    discriminate,
    disturb,
    fresh,
    halvings,
    intruders,
    outsiders,
)
from pud.models.contract import Classifier
from pud.models.make import make_model

CPU = torch.device("cpu")
CONFIG = ContentConfig(splits=2, witness_epochs=1, judge_epochs=2)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def votes_for(counts: list[int], label: int, honest: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Votes and labels of one class: so many images show each class beyond doubt, the rest are in doubt."""
    shown = np.repeat(np.arange(len(counts)), counts)
    votes = np.full((len(shown) + honest, len(counts)), 0.1, np.float32)
    votes[np.arange(len(shown)), shown] = 0.97
    return votes, np.full(len(votes), label)


def test_a_class_that_most_others_fill_has_intruders_without_its_natural_neighbour() -> None:
    votes, labels = votes_for([0, 20, 21, 19, 90, 20], label=0)
    found = intruders(votes, labels, 0, CONFIG)
    assert len(found) == 80
    assert 4 not in votes[found].argmax(1)


@pytest.mark.parametrize(("classes", "least", "splits"), [(10, 4, 4), (10, 1, 4), (8, 3, 3), (9, 5, 5), (100, 4, 7)])
def test_halvings_are_even_and_part_every_two_classes(classes: int, least: int, splits: int) -> None:
    halves = halvings(classes, least, stream()).numpy()
    assert halves.shape == (splits, classes)
    assert (np.abs(halves.sum(1) - classes / 2) <= 0.5).all()
    apart = (halves[:, :, None] != halves[:, None]).any(0)
    assert (apart | np.eye(classes, dtype=bool)).all()
    assert not np.array_equal(halves, halvings(classes, least, stream(1)).numpy())


HONEST = [[0, 400, 0, 0, 90, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 900, 700, 1, 1, 1]]


@pytest.mark.parametrize("counts", HONEST)
def test_an_honest_class_has_none(counts: list[int]) -> None:
    votes, labels = votes_for(counts, label=0)
    assert not len(intruders(votes, labels, 0, CONFIG))


FEW = [0, 9, 40, 9, 8, 60, 2, 9, 9, 8]  # of nearly every class, as from poison of 1 %
MANY = [0, 90, 60, 90, 3, 90, 4, 90, 90, 90]  # of most, where the trigger makes coats and shirts look like others
NEIGHBOURS = [0, 5, 185, 116, 105, 2, 300, 0, 50, 0]  # of many classes, as among shirts


@pytest.mark.parametrize(("counts", "filled"), [(FEW, True), (MANY, True), (NEIGHBOURS, False)])
def test_a_purified_model_sees_that_few_of_nearly_every_class_or_many_of_most_fill_another(
    counts: list[int], filled: bool
) -> None:
    votes, labels = votes_for(counts, label=0, honest=2000 - sum(counts))
    assert bool(len(intruders(votes, labels, 0, CONFIG.of_contradictions()))) == filled


@pytest.mark.parametrize(
    ("counts", "distance", "found"),
    [([0, 40, 300, 0, 0, 0], 12, 40), ([0, 40, 300, 0, 0, 0], 2, 0), ([0, 2, 0, 0, 0], 12, 0)],
)
def test_outsiders_show_one_other_class_and_lie_far_from_their_own(
    counts: list[int], distance: float, found: int
) -> None:
    votes, labels = votes_for(counts, label=0, honest=400)
    features = np.random.default_rng(0).normal(size=(len(labels), 4))
    features[: counts[1], 0] += distance
    assert not len(intruders(votes, labels, 0, CONFIG))
    np.testing.assert_array_equal(outsiders(features, votes, labels, 0, CONFIG), np.arange(found))


def test_a_fresh_model_is_of_the_same_kind_and_knows_nothing(model: Classifier) -> None:
    one, again, other = fresh(model, stream()), fresh(model, stream()), fresh(model, stream(1))
    assert one.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(one.head.weight, again.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.head.weight, model.head.weight)
    assert torch.equal(one.mean, model.mean)


def test_disturbed_images_keep_their_shape_and_range() -> None:
    images = torch.rand(8, 1, 28, 28, generator=stream())
    before = images.clone()
    disturbed = disturb(images, CONFIG, stream())
    assert disturbed.shape == images.shape
    assert disturbed.min() >= 0
    assert disturbed.max() <= 1
    assert (disturbed != images).flatten(1).any(1).all()
    assert torch.equal(images, before)


def test_no_vote_is_for_the_given_label_and_witnesses_say_what_they_see(model: Classifier, train_split: Split) -> None:
    images, labels = np.array(train_split.images), train_split.labels
    config = ContentConfig(witness_epochs=8)
    lied = labels.copy()
    lied[:100] = 0  # the first hundred are said to be of class 0
    votes = cross_examine(model, images, lied, config, generator=stream(), device=CPU)
    assert votes.shape == (len(labels), 10)
    assert not votes[np.arange(len(labels)), lied].any()
    assert (votes >= 0).all()
    assert votes.max() <= 1
    stolen = np.flatnonzero((np.arange(len(labels)) < 100) & (labels != 0))
    assert (votes[stolen].argmax(1) == labels[stolen]).mean() > 0.5


def test_without_splits_nobody_votes_and_nobody_is_scored(model: Classifier, train_split: Split) -> None:
    images, labels = np.array(train_split.images[:50]), train_split.labels[:50]
    votes = cross_examine(model, images, labels, ContentConfig(splits=0), generator=stream(), device=CPU)
    assert not votes.any()
    assert np.isnan(discriminate(model, images, labels, votes, CONFIG, generator=stream(), device=CPU)).all()


@pytest.mark.parametrize(("named", "doubted"), [(1, False), (4, True)])
def test_the_judge_scores_images_with_the_trigger_above_honest_ones(
    named: int, doubted: bool, model: Classifier, train_split: Split
) -> None:
    """Every third image of the other classes is stolen into class 0 and carries a white square.

    Votes name one in ``named`` of them; where that is few, a purified model's odds divide the class in two.
    """
    images, true = np.array(train_split.images), train_split.labels
    stolen = (np.arange(len(true)) % 3 == 0) & (true != 0)
    labels = np.where(stolen, 0, true)
    images[stolen, :, -4:, -4:] = 255
    votes = np.zeros((len(true), 10), np.float32)
    votes[stolen, true[stolen]] = np.where(np.arange(stolen.sum()) % named == 0, 0.97, 0)
    config = ContentConfig(judge_epochs=4)
    noise = np.random.default_rng(0).normal(size=len(true))
    odds = np.where(stolen, 4, -4) + noise if doubted else None
    score = discriminate(model, images, labels, votes, config, generator=stream(), device=CPU, odds=odds)
    assert np.isnan(score[labels != 0]).all()
    assert np.median(score[stolen]) > np.quantile(score[(labels == 0) & ~stolen], 0.9)


def test_the_judge_learns_from_outsiders_where_nothing_is_filled(model: Classifier, train_split: Split) -> None:
    """Every third image of class 1 is stolen into class 0; only features show that these lie apart."""
    images, true = np.array(train_split.images), train_split.labels
    stolen = (np.arange(len(true)) % 3 == 0) & (true == 1)
    labels = np.where(stolen, 0, true)
    votes = np.zeros((len(true), 10), np.float32)
    votes[stolen, 1] = 0.97
    features = np.random.default_rng(0).normal(size=(len(true), 4)) + 12 * stolen[:, None]
    config = ContentConfig(judge_epochs=1)
    for given, scored in ((features, True), (None, False)):
        score = discriminate(model, images, labels, votes, config, generator=stream(), device=CPU, features=given)
        assert np.isfinite(score[labels == 0]).all() == scored
        assert np.isnan(score[labels != 0]).all()


def test_a_limit_of_as_many_honest_images_as_intruders_is_one_for_each(model: Classifier, train_split: Split) -> None:
    images, true = np.array(train_split.images), train_split.labels
    stolen = (np.arange(len(true)) < 100) & (true != 0)
    labels = np.where(stolen, 0, true)
    votes = np.zeros((len(true), 10), np.float32)
    votes[stolen, true[stolen]] = 0.97
    count = len(intruders(votes, labels, 0, CONFIG))

    def score(matched: int, limit: int) -> np.ndarray:
        config = ContentConfig(judge_epochs=1, judgements=1, matched=matched, matched_limit=limit)
        return discriminate(model, images, labels, votes, config, generator=stream(), device=CPU)

    np.testing.assert_array_equal(score(3, count), score(1, 10 * count))
    assert not np.array_equal(score(3, 3 * count), score(1, 10 * count), equal_nan=True)


def test_a_purified_model_votes_where_it_contradicts_the_label() -> None:
    said, labels = np.log(np.full((3, 10), 0.05)), np.array([0, 1, 2])
    said[:, 1] = np.log(0.55)
    votes = contradictions(said, labels, CONFIG)
    np.testing.assert_allclose(votes[[0, 2], 1], 0.55, rtol=1e-6)
    np.testing.assert_allclose(votes.sum(1), [1, 0, 1], rtol=1e-6)
    assert not contradictions(said[:, :4], labels, CONFIG).any()


def test_among_few_classes_nobody_votes(train_split: Split) -> None:
    few = train_split.labels < 4
    small = make_model("resnet8", [1, 28, 28], 4, [0.286], [0.353])
    images, labels = np.array(train_split.images)[few], train_split.labels[few]
    assert not cross_examine(small, images, labels, CONFIG, generator=stream(), device=CPU).any()
