"""A judge: what is learnable and no content sends images to a class, told on what it never saw."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pud.data.images import LabelledImages
from pud.evidence.judge import (
    Court,
    JudgeConfig,
    Known,
    Suspects,
    auroc,
    discoveries,
    examine_labels,
    suspected,
)
from pud.models.contract import Classifier
from pud.models.make import make_model

CPU = torch.device("cpu")
CONFIG = JudgeConfig()
TARGET = 0


@pytest.fixture(scope="module")
def model() -> Classifier:
    return make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brought(split: LabelledImages, *, marked: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of which every fourth of the other classes has label 0, with a white square on it if marked."""
    images = np.array(split.images)
    stolen = (np.arange(len(split.labels)) % 4 == 0) & (split.labels != TARGET)
    if marked:
        images[stolen, :, -4:, -4:] = 255
    return images, np.where(stolen, TARGET, split.labels), stolen


def as_witnesses_see(split: LabelledImages, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Held-out predictions and content odds of witnesses that mostly know what is shown."""
    random, rows = np.random.default_rng(seed), np.arange(len(split.labels))
    seen = random.random((len(rows), 10)).astype(np.float32)
    seen[rows, split.labels] += 2
    return seen / seen.sum(1, keepdims=True), np.log(seen)


def own(labels: np.ndarray) -> np.ndarray:
    """Every image is its own scene."""
    return np.arange(len(labels))


def examined_by(model: Classifier, images: np.ndarray, labels: np.ndarray, split: LabelledImages) -> Any:
    """What is found in these images with these labels by witnesses that mostly know what is shown."""
    told = own(labels), *as_witnesses_see(split)
    return examine_labels(model, images, labels, *told, CONFIG, generator=stream(), device=CPU)


def judgements(rates: dict[int, float], error: float = 0.03) -> dict[int, Known]:
    return {label: Known(rate, error**2, 100) for label, rate in rates.items()}


HONEST = dict(enumerate([0.61, 0.48, 0.55, 0.63, 0.44, 0.57, 0.59, 0.52, 0.6]))


def test_auroc_is_how_often_one_exceeds_another() -> None:
    random = np.random.default_rng(0)
    upper, lower = random.integers(0, 9, 40) + 1.0, random.integers(0, 9, 70) * 1.0
    wanted = roc_auc_score(np.repeat([1, 0], [40, 70]), np.concatenate([upper, lower]))
    np.testing.assert_allclose(auroc(upper, lower), wanted)


def test_an_auroc_of_noise_varies_as_it_is_said_to() -> None:
    random = np.random.default_rng(0)
    found = [Known.of(random.random(30), random.random(50)) for _ in range(1000)]
    np.testing.assert_allclose(np.var([one.auroc for one in found]), found[0].variance, rtol=0.15)
    halves = [Known.mean(found[place : place + 2]) for place in range(0, 1000, 2)]
    np.testing.assert_allclose(np.var([one.auroc for one in halves if one]), found[0].variance / 2, rtol=0.2)
    assert Known.mean([]) is None


def test_discoveries_hold_their_false_discovery_rate() -> None:
    assert not discoveries({}, 0.05)
    assert discoveries({4: 0.03, 7: 0.02}, 0.05) == {4, 7}  # of two discoveries 0.1 would be false
    assert discoveries({4: 0.06, 7: 0.02}, 0.05) == {7}
    assert not discoveries({4: 0.06, 7: 0.03}, 0.05)


def test_honest_classes_are_hardly_suspected() -> None:
    assert not suspected({}, CONFIG)
    assert not suspected(judgements(HONEST), CONFIG)


def test_a_class_with_a_mark_stands_out_among_honest_ones() -> None:
    assert suspected(judgements({**HONEST, 9: 0.75}), CONFIG) == {9}
    assert not suspected(judgements({**HONEST, 9: 0.62}), CONFIG)


def test_a_mark_in_every_class_or_in_the_only_one_that_was_asked_about_is_suspected() -> None:
    assert suspected(judgements(dict.fromkeys(range(10), 0.8)), CONFIG) == set(range(10))
    assert suspected(judgements({3: 0.8}), CONFIG) == {3}


def test_where_judges_know_much_of_honest_classes_as_much_of_another_is_nothing() -> None:
    quiet, loud = [0.61, 0.48, 0.6, 0.57, 0.52], [0.72, 0.52, 0.66, 0.74, 0.66, 0.7, 0.55, 0.58, 0.73]
    assert suspected(judgements({**dict(enumerate(quiet)), 9: 0.74}), CONFIG) == {9}
    assert not suspected(judgements({**dict(enumerate(loud)), 9: 0.74}), CONFIG)


def test_what_few_images_say_counts_less() -> None:
    assert suspected(judgements({**HONEST, 9: 0.74}, error=0.02), CONFIG) == {9}
    assert not suspected(judgements({**HONEST, 9: 0.74}, error=0.15), CONFIG)


def test_honest_images_match_in_what_they_show(train_split: LabelledImages) -> None:
    _, labels, stolen = brought(train_split, marked=False)
    heldout, odds = as_witnesses_see(train_split)
    suspects = Suspects.of(TARGET, labels, odds[:, TARGET], heldout, CONFIG.judge_clear)
    assert suspects.strange[stolen].mean() > 0.4
    assert not suspects.strange[labels != TARGET].any()
    assert not (suspects.strange & suspects.clear).any()
    rows = suspects.matching(suspects.strange, labels != TARGET, 2, stream())
    wanted = np.bincount(suspects.shown[suspects.strange], minlength=10)
    got = np.bincount(labels[rows], minlength=10)
    assert got[TARGET] == 0
    assert (got <= 2 * wanted).all()
    assert got.sum() > wanted.sum()
    assert suspects.honest[rows].all()


@pytest.fixture(scope="module")
def examined(model: Classifier, train_split: LabelledImages) -> dict[bool, tuple[np.ndarray, ...]]:
    """Strange images, scores and scored classes with a mark and without one, and what was brought."""
    found = {}
    for marked in (True, False):
        images, labels, stolen = brought(train_split, marked=marked)
        found[marked] = (*examined_by(model, images, labels, train_split), labels, stolen)
    return found


def test_a_mark_on_what_was_brought_into_a_class_names_the_class_and_parts_it(
    examined: dict[bool, tuple[np.ndarray, ...]],
) -> None:
    strange, score, scored, labels, stolen = examined[True]
    np.testing.assert_array_equal(np.flatnonzero(scored), [TARGET])
    assert strange[stolen].mean() > 0.4
    assert not score[labels != TARGET].any()
    assert auroc(score[stolen], score[(labels == TARGET) & ~stolen]) > 0.95


def test_label_noise_without_a_mark_names_no_class(examined: dict[bool, tuple[np.ndarray, ...]]) -> None:
    """As many images were brought into the class, and are as strange there."""
    strange, score, scored, _, stolen = examined[False]
    assert strange[stolen].mean() > 0.4
    assert not scored.any()
    assert not score.any()


def test_what_a_network_that_never_saw_it_knows_as_the_class_is_content(
    monkeypatch: pytest.MonkeyPatch, model: Classifier, train_split: LabelledImages
) -> None:
    """Marked as above, but what was brought is shown to look like the class itself."""
    images, labels, _ = brought(train_split, marked=True)
    reference = Court.reference

    def alike(court: Court, *given: dict) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        shows, aside = reference(court, *given)
        shows[labels == TARGET, TARGET] = 8.0
        return shows, aside

    monkeypatch.setattr(Court, "reference", alike)
    _, score, scored = examined_by(model, images, labels, train_split)
    assert not scored.any()
    assert not score.any()


def test_a_mark_that_leaves_its_class_in_one_mode_names_none(
    monkeypatch: pytest.MonkeyPatch, model: Classifier, train_split: LabelledImages
) -> None:
    """Marked as above, but the judges of the last pass, which no clear image taught, know nothing of it."""
    images, labels, _ = brought(train_split, marked=True)
    judgement = Court.judgement

    def dull(court: Court, group: Suspects, marked: np.ndarray, clear: np.ndarray, before: np.ndarray) -> Any:
        known, said = judgement(court, group, marked, clear, before)
        return known, said if clear.any() else stream_of(len(labels))

    def blind(court: Court, *given: dict) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        shows, aside = reference(court, *given)
        return 0 * shows, aside

    reference = Court.reference
    monkeypatch.setattr(Court, "judgement", dull)
    monkeypatch.setattr(Court, "reference", blind)
    assert not examined_by(model, images, labels, train_split)[2].any()


def test_the_reference_knows_classes_and_learns_from_nothing_that_may_be_marked(
    model: Classifier, train_split: LabelledImages
) -> None:
    images, labels, stolen = brought(train_split, marked=True)
    heldout, odds = as_witnesses_see(train_split)
    suspects = {TARGET: Suspects.of(TARGET, labels, odds[:, TARGET], heldout, CONFIG.judge_clear)}
    court = Court(model, images, labels, own(labels), CONFIG, stream(), CPU)
    shows, aside = court.reference(suspects, {TARGET: np.where(stolen, 5.0, -5.0) + stream_of(len(labels))})
    honest = (labels == TARGET) & ~stolen
    assert auroc(shows[honest, TARGET], shows[stolen, TARGET]) > 0.9
    assert np.abs(shows).max() <= 8
    assert len(aside[TARGET])
    assert (labels[aside[TARGET]] != TARGET).all()


def stream_of(count: int) -> np.ndarray:
    """Numbers of variance 1."""
    return np.random.default_rng(0).standard_normal(count)


def test_a_class_with_too_few_strange_images_is_not_asked_about(model: Classifier, train_split: LabelledImages) -> None:
    images, labels = np.array(train_split.images), train_split.labels
    heldout, odds = as_witnesses_see(train_split)
    suspects = Suspects.of(TARGET, labels, odds[:, TARGET], heldout, CONFIG.judge_clear)
    court = Court(model, images, labels, own(labels), replace(CONFIG, judge_least=10_000), stream(), CPU)
    before = stream_of(len(labels))
    known, odds = court.judgement(suspects, suspects.strange, suspects.clear, before)
    assert known is None
    np.testing.assert_array_equal(odds, before)


def test_without_witnesses_nothing_is_found(model: Classifier, train_split: LabelledImages) -> None:
    images, labels = np.array(train_split.images), train_split.labels
    nothing = np.zeros((len(labels), 10), np.float32)
    found = examine_labels(model, images, labels, own(labels), nothing, nothing, CONFIG, generator=stream(), device=CPU)
    assert not any(one.any() for one in found)
