"""Detection against NumPy oracles and on synthetic evidence whose poison is known."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, CLEAN, POISONED, Detection
from pud.detectors.pud import (
    Cues,
    DetectConfig,
    Parting,
    coverage,
    detect,
    in_these_data,
    is_opposed,
    mislabelled_share,
    part,
    part_again,
    perturbation_consistency,
    populations,
    prediction_change,
    que_hypotheses,
    shown_variation,
)
from pud.detectors.que import ClassFeatures, anchored_que_scores, que_form
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence
from pud.evidence.disagreement import knowledge, label_doubt, mislabelling_odds
from pud.evidence.discrimination import DiscriminationConfig
from pud.evidence.separation import fisher_separation, posterior_of_ratios, two_modes, two_populations, whitened

RULES = DiscriminationConfig()
CONFIG = DetectConfig(confidence_in_none=(0.9, 0.98), confidence_in_named=(0.95, 0.99))
CLASSES, DIMENSIONS, TARGET = 4, 16, 1
SCORED = np.arange(CLASSES) == TARGET


def whitened_points(seed: int = 0) -> np.ndarray:
    """300 points in 5 dimensions, a tenth of them far out along a slanted direction."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(300, 5))
    points[:30] += 4 * np.array([1, -1, 1, 0, 0.5])
    return points


def que_scores(points: np.ndarray, alpha: float) -> np.ndarray:
    return np.einsum("ni,ij,nj->n", points, que_form(points.T @ points / len(points), alpha), points)


def scores_of(features: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    return anchored_que_scores(ClassFeatures.of(features), anchors, CONFIG.alpha, CONFIG.images_per_dimension)


def que_by_hand(points: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([point @ q @ point for point in points]) / np.trace(q)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_que_scores_take_the_matrix_exponential(alpha: float) -> None:
    points = whitened_points()
    second_moment = sum(np.outer(point, point) for point in points) / len(points)
    values, vectors = np.linalg.eigh(second_moment)
    q = vectors @ np.diag(np.exp(alpha * (values - 1) / (values.max() - 1))) @ vectors.T
    np.testing.assert_allclose(que_scores(points, alpha), que_by_hand(points, q), rtol=1e-9)


def test_the_elementwise_exponential_would_give_something_else() -> None:
    points = whitened_points()
    second_moment = points.T @ points / len(points)
    elementwise = np.exp(4 * (second_moment - np.eye(5)) / (np.linalg.norm(second_moment, 2) - 1))
    found, wrong = que_scores(points, 4.0), que_by_hand(points, elementwise)
    assert np.abs(found / wrong - 1).max() > 0.1
    assert not np.array_equal(np.argsort(found), np.argsort(wrong))


def test_que_scores_do_not_depend_on_the_coordinate_system() -> None:
    points = whitened_points()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    np.testing.assert_allclose(que_scores(points @ rotation, 4.0), que_scores(points, 4.0), rtol=1e-9)


def test_where_nothing_stands_out_every_direction_counts_the_same() -> None:
    points = 0.9 * np.random.default_rng(0).uniform(-1, 1, size=(300, 5))
    np.testing.assert_allclose(que_scores(points, 4.0), (points**2).sum(1) / 5)


def one_class(poison_share: float, n: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of one class, which of them are poison, and anchors: the first of the clean ones."""
    random = np.random.default_rng(0)
    poisoned = np.arange(n) >= round((1 - poison_share) * n)
    features = random.normal(size=(n, DIMENSIONS))
    features[poisoned] = 0.7 * features[poisoned] + 3
    return features, poisoned, np.arange(n) < 0.3 * n


@pytest.mark.parametrize("poison_share", [0.05, 0.3, 0.6])
def test_anchored_scores_flag_the_outlier_cluster_whatever_its_share(poison_share: float) -> None:
    features, poisoned, anchors = one_class(poison_share)
    scores = scores_of(features, anchors)
    assert roc_auc_score(poisoned, scores) > 0.99
    assert np.median(scores[anchors]) == pytest.approx(1)


def test_anchors_taken_from_the_majority_turn_the_scores_round() -> None:
    """The original's assumption, that the bulk of a class is clean: anchors are what lies nearest to its median."""
    features, poisoned, _ = one_class(0.6)
    distance = np.linalg.norm(features - np.median(features, axis=0), axis=1)
    scores = scores_of(features, distance <= np.quantile(distance, 0.3))
    assert roc_auc_score(poisoned, scores) < 0.1


def test_anchored_scores_do_not_depend_on_where_the_features_lie() -> None:
    features, _, anchors = one_class(0.3)
    scores = scores_of(features, anchors)
    np.testing.assert_allclose(scores_of(7 * features + 100, anchors), scores, rtol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_two_separate_modes_are_seen_as_two(share: float) -> None:
    random = np.random.default_rng(0)
    upper = np.arange(1000) < share * 1000
    values = random.normal(size=1000) + 10 * upper
    separation, threshold, posterior = two_modes(values)
    assert separation == pytest.approx(10, rel=0.1)
    assert 2.5 < threshold < 7.5
    np.testing.assert_array_equal(posterior > 0.5, upper)


@pytest.mark.parametrize("seed", range(3))
def test_one_gaussian_is_not_two_modes(seed: int) -> None:
    assert two_modes(np.random.default_rng(seed).normal(size=1000))[0] < CONFIG.separation


@pytest.mark.parametrize(("poison", "distance"), [(100, 6.0), (500, 6.0), (500, 3.0)])
def test_two_populations_are_as_far_apart_as_they_are_along_the_best_direction(poison: int, distance: float) -> None:
    """Two Gaussians of one covariance: Ashman's D along Fisher's direction is the Mahalanobis distance of the means."""
    random = np.random.default_rng(0)
    upper, width = np.arange(1000) < poison, np.logspace(-1, 1, DIMENSIONS)
    features = width * (random.normal(size=(1000, DIMENSIONS)) + np.where(upper[:, None], 1, 0) * distance / 4)
    assert fisher_separation(features, upper, np.arange(1000), 10) == pytest.approx(distance, rel=0.15)


def test_two_populations_are_found_from_a_start_that_holds_part_of_one_and_some_of_the_other() -> None:
    random = np.random.default_rng(0)
    second = np.arange(2000) < 300
    shape = np.diag([9.0, 1.0, 0.1, 4.0])  # the difference lies where the features vary least
    features = random.normal(size=(2000, 4)) @ shape + np.outer(second, [0, 0, 0.6, 0])
    start = np.where(second, random.random(2000) < 0.7, random.random(2000) < 0.05)
    odds = two_populations(whitened(features), start)
    expected = 60 * (features[:, 2] - features[second, 2].mean() / 2) + np.log(300 / 1700)  # of known Gaussians
    assert ((odds > 0) == (expected > 0)).mean() > 0.995
    assert ((odds > 0) == second).mean() > 0.99


def test_white_features_have_the_identity_for_a_covariance_and_one_that_does_not_vary_is_zero() -> None:
    features = np.random.default_rng(0).normal(size=(5000, 4)) * [5, 1, 0.1, 0] + 7
    white = whitened(features)
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(white.T @ white / 5000)), [0, 1, 1, 1], atol=0.05)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-9)


def test_what_counts_as_two_populations_is_beyond_what_the_classes_of_the_data_give_by_chance() -> None:
    (median, deviation), chance = CONFIG.usual_separation, CONFIG.separation_chance

    def least(furthest: np.ndarray) -> float:
        return in_these_data(CONFIG, furthest).separation

    honest = np.exp(deviation * np.random.default_rng(0).normal(size=400))
    expected = np.exp(deviation * norm.isf(chance / 400))
    assert least(median * honest) / median == pytest.approx(expected, rel=0.05)
    assert least(median / 2 * honest) / (median / 2) == pytest.approx(expected, rel=0.05)
    assert least(median / 2 * honest**2) / (median / 2) == pytest.approx(expected**2, rel=0.1)  # where they differ more
    assert least(np.full(10, median / 2)) < least(np.full(2, median / 2)) < least(np.full(2, median))
    assert least(np.append(np.full(9, median), 9)) == pytest.approx(least(np.full(10, median)), rel=0.01)
    for none_is_honest in ([], [0.0], [14.0, 15.0]):
        assert least(np.array(none_is_honest)) == CONFIG.separation


def test_the_population_counts_that_lies_furthest_whichever_hypothesis_leads_to_it() -> None:
    evidence = synthetic(120, 0)
    members, random = np.flatnonzero(evidence.labels == TARGET), np.random.default_rng(0)
    poisoned = is_poisoned(evidence.labels, 120)[members]

    def mode(separation: float, upper: np.ndarray) -> Parting:
        return Parting(separation, upper.astype(float), 0.5, upper.astype(float))

    clear, vague = (
        mode(9.0, random.random(len(members)) < 0.2),
        mode(3.0, poisoned & (random.random(len(members)) < 0.7)),
    )
    found = part(evidence, members, [clear, vague], filled=False, config=CONFIG)
    np.testing.assert_array_equal(found.upper >= CONFIG.certainty, poisoned)
    either_side = [(poisoned, True), (~poisoned, False)]
    for (first, accused), (second, _) in (either_side, either_side[::-1]):
        found = populations(evidence, members, [first, second], CONFIG)
        assert ((found.upper >= CONFIG.certainty) == poisoned).all() == accused


def test_a_population_that_vanishes_leaves_the_start() -> None:
    points = np.random.default_rng(0).normal(size=(100, 2))
    np.testing.assert_array_equal(two_populations(points, np.arange(100) < 0) > 0, False)


@pytest.mark.parametrize("size", [10, 40, 500])
def test_images_chosen_at_random_are_no_population(size: int) -> None:
    """In as many dimensions as images some direction always parts the ones it was made from; it must part others."""
    features = np.random.default_rng(0).normal(size=(1000, 64))
    assert abs(fisher_separation(features, np.arange(1000) < size, np.arange(1000), 10)) < 1


def test_few_images_are_no_population() -> None:
    upper = np.arange(1000) < 9
    assert fisher_separation(10.0 * upper[:, None], upper, np.arange(1000), 10) == 0


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_the_posterior_of_likelihood_ratios_knows_the_share_and_is_calibrated(share: float) -> None:
    """Two Gaussians of variance 1, three apart: the log likelihood ratio is 3 x - 4.5."""
    random = np.random.default_rng(0)
    upper = random.random(20_000) < share
    threshold, posterior = posterior_of_ratios(3 * (random.normal(size=20_000) + 3 * upper) - 4.5)
    assert posterior.mean() == pytest.approx(share, rel=0.1)
    assert threshold == pytest.approx(-np.log(share / (1 - share)), abs=0.15)
    among = (posterior > 0.4) & (posterior < 0.6)
    assert upper[among].mean() == pytest.approx(0.5, abs=0.1)


def test_ratios_that_speak_for_one_population_alone_leave_the_other_empty() -> None:
    for sign in (-1, 1):
        _, posterior = posterior_of_ratios(np.full(200, sign * 9.0))
        assert ((posterior > 0.99) == (sign > 0)).all()


def test_one_scene_is_no_population_however_far_it_lies_from_the_others() -> None:
    """Twenty scenes of thirty frames, each a point of its own: what was learned of one says nothing of another."""
    scene = np.repeat(np.arange(20), 30)
    features = 9 * np.random.default_rng(0).normal(size=(20, 64))[scene] + np.random.default_rng(1).normal(
        size=(600, 64)
    )
    assert fisher_separation(features, scene == 7, np.arange(600), 10) > CONFIG.separation
    assert fisher_separation(features, scene == 7, scene, 10) == 0
    assert fisher_separation(features, np.isin(scene, (7, 12)), scene, 10) < CONFIG.separation


def test_a_wide_upper_mode_does_not_claim_the_lower_end() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 0.3, 500), random.normal(6, 3, 500), [-9.0]])
    assert two_modes(values)[2][-1] == 0


def test_poison_is_parted_from_the_edge_of_what_is_clean() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 1500), random.normal(5, 1, 200), random.normal(9.5, 0.3, 100)])
    poisoned = np.arange(len(values)) >= 1700
    outer = two_modes(values)[2]
    assert (outer >= CONFIG.certainty).sum() > 250
    threshold, inner = part_again(values, outer, CONFIG)
    assert 7 < threshold < 9.5
    assert ((inner >= CONFIG.certainty) == poisoned).mean() > 0.999
    assert not part_again(values, np.where(poisoned, outer, 0) * (np.arange(len(values)) < 1715), CONFIG)[1].any()


def test_a_prediction_that_changes_costs_half_a_point_more() -> None:
    infected = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]])
    current = np.array([[6.0, 8.0], [0.0, 2.0], [2.0, 2.0]])
    np.testing.assert_allclose(prediction_change(infected, current), [0, 1.5, 1 - np.sqrt(0.5)], atol=1e-12)


def test_perturbation_consistency_is_the_mean_rank() -> None:
    evidence = dataclasses.replace(
        synthetic(0, 0), labels=np.zeros(4, int), noise_survival=np.array([0.1, 0.2, 0.3, 0.4]), mix_survival=np.ones(4)
    )
    np.testing.assert_allclose(perturbation_consistency(evidence), (np.arange(1, 5) + 2.5) / 8)


def synthetic(poison: int, seed: int, per_class: int = 300) -> InfectedEvidence:
    """Evidence of four classes; the first ``poison`` images of the target class survive and lie apart."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), per_class)
    poisoned = is_poisoned(labels, poison)
    features = 4 * random.normal(size=(CLASSES, DIMENSIONS))[labels] + random.normal(size=(len(labels), DIMENSIONS))
    features[poisoned] += 4 * np.sign(random.normal(size=DIMENSIONS))
    survival = np.where(poisoned, random.uniform(0.8, 1, len(labels)), random.uniform(0, 0.9, len(labels)))
    logits = 10 * np.eye(CLASSES)[labels] + random.normal(size=(len(labels), CLASSES))
    return InfectedEvidence(
        labels=labels,
        scene=np.arange(len(labels)),
        logits=logits.astype(np.float32),
        features=features.astype(np.float32),
        noise_survival=survival.astype(np.float32),
        mix_survival=(0.9 * survival).astype(np.float32),
        mix_entropy=(1 - survival).astype(np.float32),
        heldout=np.full((len(labels), CLASSES), 0.3, np.float32),
        strange=np.zeros(len(labels), bool),
        trigger_score=np.zeros(len(labels), np.float32),
        scored=np.zeros(CLASSES, bool),
        changes=np.zeros((2, 3, CLASSES), np.float32),
    )


def after_a_round(
    infected: InfectedEvidence, logits: np.ndarray | None = None, target_score: np.ndarray | None = None
) -> PurifiedEvidence:
    """What a purified model with these logits says, its trigger score of the target class alone; else as infected."""
    given = infected.logits if logits is None else logits.astype(np.float32)
    if target_score is None:
        return PurifiedEvidence(
            infected.labels, given, infected.trigger_score, infected.scored, RULES.of_contradictions.filled
        )
    score = np.where(infected.labels == TARGET, target_score, 0).astype(np.float32)
    return PurifiedEvidence(infected.labels, given, score, SCORED, RULES.of_contradictions.filled)


def arrays_of(evidence: InfectedEvidence) -> dict[str, np.ndarray]:
    """Return what has a row an image."""
    return {name: value for name, value in vars(evidence).items() if name not in ("scored", "changes")}


def is_poisoned(labels: np.ndarray, poison: int) -> np.ndarray:
    return np.isin(np.arange(len(labels)), np.flatnonzero(labels == TARGET)[:poison])


def evidence_labels(seed: int) -> np.ndarray:
    return synthetic(0, seed).labels


def judged(poison: int, seed: int, config: DetectConfig = CONFIG) -> tuple[Detection, np.ndarray]:
    evidence = synthetic(poison, seed)
    return detect(evidence, None, config), is_poisoned(evidence.labels, poison)


# the share of poison in its class is 0.05, 0.1, 0.4, 0.6
@pytest.mark.parametrize(
    ("poison", "seed"), [(15, 0), (15, 1), (30, 0), (30, 1), (120, 0), (120, 1), (180, 0), (180, 1)]
)
def test_the_target_class_and_its_poison_are_found(poison: int, seed: int) -> None:
    detection, poisoned = judged(poison, seed)
    accused = detection.verdict == POISONED
    assert detection.target_labels == [TARGET]
    assert (detection.suspicion[accused] > 0).all()
    assert (detection.suspicion[evidence_labels(seed) != TARGET] <= 0).all()
    assert detection.confidence > 0.9
    assert accused[poisoned].mean() > 0.95
    assert accused[~poisoned].mean() < 0.01
    assert roc_auc_score(poisoned, detection.suspicion) > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_without_poison_none_is_found(seed: int) -> None:
    detection, _ = judged(0, seed)
    assert detection.target_labels == []
    assert (detection.suspicion <= 0).all()
    assert detection.confidence == CONFIG.confidence_in_none[0]
    assert set(detection.verdict) == {CLEAN}
    assert not detection.posterior.any()


def test_none_found_is_surer_after_a_round() -> None:
    evidence = synthetic(0, 0)
    after = detect(evidence, after_a_round(evidence), CONFIG)
    assert (after.target_labels, after.confidence) == ([], CONFIG.confidence_in_none[1])


def test_detection_is_the_same_twice() -> None:
    first, again = judged(120, 0)[0], judged(120, 0)[0]
    for name, value in dataclasses.asdict(first).items():
        np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)


def test_a_class_needs_anchors_for_two_dimensions_to_be_judged() -> None:
    assert CONFIG.minimum_class_size == 134  # a share of 0.15, and 10 for each dimension
    config = dataclasses.replace(CONFIG, images_per_dimension=20)
    assert config.minimum_class_size == 267


def test_where_every_class_is_too_small_nobody_is_accused_and_none_found_is_not_said() -> None:
    config = dataclasses.replace(CONFIG, images_per_dimension=23)
    assert config.minimum_class_size > 300
    detection, _ = judged(120, 0, config)
    assert (detection.conclusion, detection.target_labels) == (CANNOT_BE_JUDGED, [])
    assert set(detection.unjudged) == set(range(CLASSES))
    assert detection.unjudged[0] == f"300 images, of {config.minimum_class_size} that are needed"
    assert set(detection.verdict) == {CLEAN}
    assert not detection.separation.any()
    assert detection.confidence == 0.5


def test_a_short_way_names_a_class_that_the_model_knows_and_no_other() -> None:
    evidence, changes = synthetic(0, 0), np.zeros((2, 3, CLASSES), np.float32)
    changes[0, 2, 1] = -6
    near = dataclasses.replace(evidence, changes=changes)
    found = detect(near, None, CONFIG)
    assert (found.conclusion, found.target_labels, found.shortcuts) == (BACKDOOR, [1], [1])
    assert set(found.verdict) == {CLEAN}
    found = detect(dataclasses.replace(near, logits=near.logits[::-1].copy()), None, CONFIG)
    assert (found.conclusion, found.target_labels, found.shortcuts) == (CANNOT_BE_JUDGED, [], [])


def test_every_target_class_is_accused() -> None:
    """Two classes hold 60 poisoned images each."""
    one, other = synthetic(60, 0), synthetic(60, 1)
    swapped = np.where(other.labels == TARGET, 2, np.where(other.labels == 2, TARGET, other.labels))
    order = np.argsort(swapped, kind="stable")
    taken = {name: value[order] for name, value in arrays_of(other).items()}
    second = one.labels == 2
    both = {
        name: np.where(second.reshape(-1, *[1] * (value.ndim - 1)), taken[name], value)
        for name, value in arrays_of(one).items()
    } | {"labels": one.labels, "logits": one.logits}
    detection = detect(dataclasses.replace(one, **both), None, CONFIG)
    assert detection.target_labels == [TARGET, 2]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_target_is_found_by_features_alone_where_survival_tells_nothing(seed: int) -> None:
    """As in all-to-all attacks."""
    evidence = synthetic(30, seed)
    survival = np.random.default_rng(seed).random((2, len(evidence.labels))).astype(np.float32)
    blind = dataclasses.replace(evidence, noise_survival=survival[0], mix_survival=survival[1])
    assert detect(blind, None, CONFIG).target_labels == [TARGET]


def test_a_small_class_beside_large_ones_is_left_out_alone() -> None:
    evidence = synthetic(120, 0)
    kept = (evidence.labels != 0) | (np.arange(len(evidence.labels)) < CONFIG.minimum_class_size - 1)
    rows = {name: value[kept] for name, value in arrays_of(evidence).items()}
    evidence = dataclasses.replace(evidence, **rows)
    detection = detect(evidence, None, CONFIG)
    np.testing.assert_array_equal(detection.separation == 0, [True, False, False, False])
    assert detection.target_labels == [TARGET]
    assert (detection.conclusion, list(detection.unjudged)) == (BACKDOOR, [0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("says", ["one class", "anything", "another class"])
def test_of_a_model_that_does_not_know_its_data_nothing_can_be_judged(says: str, seed: int) -> None:
    evidence, random = synthetic(120, seed), np.random.default_rng(seed)
    n = len(evidence.labels)
    said = {
        "one class": np.full(n, TARGET),
        "anything": random.integers(CLASSES, size=n),
        "another class": (evidence.labels + 1) % CLASSES,
    }[says]
    blind = dataclasses.replace(evidence, logits=np.eye(CLASSES, dtype=np.float32)[said])
    detection = detect(blind, None, CONFIG)
    assert detection.conclusion == CANNOT_BE_JUDGED
    assert not (detection.verdict == POISONED).any()
    assert "the model does not know it" in detection.unjudged[0]


def test_a_class_that_the_model_does_not_know_is_left_out_alone() -> None:
    evidence = synthetic(0, 0)
    logits = evidence.logits.copy()
    logits[evidence.labels == 2] = 10 * np.eye(CLASSES)[3]
    blind = dataclasses.replace(evidence, logits=logits)
    detection = detect(blind, None, CONFIG)
    # half of what is called 3 is not, but that leaves three of four others that are told apart from it
    assert (detection.conclusion, list(detection.unjudged)) == (CANNOT_BE_JUDGED, [2])


def test_knowledge_is_youden_s_j_and_no_preference_counts_as_knowledge() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(knowledge(labels, labels, 4), [1, 1, 1, 0])
    np.testing.assert_allclose(knowledge(np.zeros(8, int), labels, 3), [0, 0, 0])
    predicted = np.array([0, 0, 0, 1, 1, 0, 2, 2])
    np.testing.assert_allclose(knowledge(predicted, labels, 3), [3 / 4 - 1 / 4, 1 / 2 - 1 / 6, 1])
    np.testing.assert_allclose(knowledge(np.zeros(3, int), np.zeros(3, int), 1), [0])


def test_images_that_leave_the_infected_model_s_opinion_become_more_suspicious() -> None:
    infected = synthetic(120, 0)
    members, changed = np.flatnonzero(infected.labels == TARGET), is_poisoned(infected.labels, 120)
    current = after_a_round(infected, np.where(changed[:, None], -1, 1) * infected.logits)
    before, after = (
        que_hypotheses(infected, members, Cues.of(infected, view)[members], CONFIG) for view in (None, current)
    )
    assert len(after) == 2 * len(before)
    for old, kept, new in zip(before, after, after[len(before) :], strict=False):
        np.testing.assert_allclose(kept, old)
        np.testing.assert_allclose(new - old, np.where(changed[members], 2.5, 0), atol=1e-6)


def filled(poison: int, seed: int, *, fragile: bool) -> InfectedEvidence:
    """As ``synthetic``, with predictions that know the poison; survival turned round if fragile.

    The score is the log likelihood ratio of a normal variable that is four higher where there is poison.
    """
    evidence = synthetic(poison, seed)
    poisoned, random = is_poisoned(evidence.labels, poison), np.random.default_rng(seed)
    votes = np.full((len(poisoned), CLASSES), 0.1, np.float32)
    votes[np.arange(len(poisoned)), np.where(poisoned, 3, 2)] = np.where(poisoned, 0.95, 0.5)
    score = np.where(evidence.labels == TARGET, 4 * (random.normal(size=len(poisoned)) + 4 * poisoned) - 8, 0)
    turned = 1 - evidence.noise_survival if fragile else evidence.noise_survival
    return dataclasses.replace(
        evidence,
        heldout=votes,
        strange=poisoned & (np.arange(len(poisoned)) % 2 == 0),
        trigger_score=score.astype(np.float32),
        scored=SCORED,
        noise_survival=turned,
        mix_survival=turned,
    )


def test_in_a_filled_class_marks_that_features_do_not_show_are_accused_too() -> None:
    evidence = filled(150, 0, fragile=True)
    marked = is_poisoned(evidence.labels, 150)
    far = marked & (np.arange(len(marked)) % 3 > 0)
    features = np.random.default_rng(0).normal(size=evidence.features.shape) + 3 * far[:, None]
    survival = np.random.default_rng(1).uniform(size=len(far)).astype(np.float32)  # which leads nowhere
    score = evidence.trigger_score + 200 * np.where(marked, 1, -1).astype(np.float32)
    evidence = dataclasses.replace(evidence, features=features, noise_survival=survival, mix_survival=survival)
    detection = detect(dataclasses.replace(evidence, trigger_score=score), None, CONFIG)
    accused = detection.verdict == POISONED
    assert detection.separation[TARGET] > CONFIG.separation  # features part two thirds of the poison from the rest
    assert accused[marked].mean() > 0.98
    assert accused[~marked].mean() < 0.01
    assert (detection.suspicion[accused] > 0).all()


def test_poison_of_several_populations_is_accused_and_no_other() -> None:
    """What judges know of is the first of three populations of poison, by its mark and by features."""
    evidence = filled(180, 0, fragile=True)
    random, labels = np.random.default_rng(0), evidence.labels
    kind = np.where(is_poisoned(labels, 180), np.arange(len(labels)) % 3, -1)
    features = random.normal(size=evidence.features.shape) + 10 * (kind[:, None] == np.arange(DIMENSIONS))
    features[kind >= 0, DIMENSIONS - 1] += 5
    score = np.where(labels == TARGET, random.normal(np.where(kind == 0, 8, -8), 1), 0).astype(np.float32)
    evidence = dataclasses.replace(evidence, features=features, trigger_score=score, strange=kind == 0)
    detection = detect(evidence, None, CONFIG)
    np.testing.assert_array_equal(detection.verdict == POISONED, kind >= 0)
    assert (detection.suspicion[kind >= 0] > 0).all()


def test_a_class_of_poison_alone_is_accused_whole() -> None:
    evidence = filled(300, 0, fragile=True)
    target = evidence.labels == TARGET
    score = np.where(target, np.arange(len(target)) % 2 + 30, 0).astype(np.float32)
    features = evidence.features + 20 * (target & (np.arange(len(target)) % 2 > 0))[:, None]
    detection = detect(dataclasses.replace(evidence, features=features, trigger_score=score), None, CONFIG)
    assert detection.target_labels == [TARGET]
    np.testing.assert_array_equal(detection.verdict == POISONED, target)


@pytest.mark.parametrize("poison", [100, 150, 250])
def test_a_fragile_trigger_is_found_by_what_its_images_show(poison: int) -> None:
    """Survival is turned round, as by WaNet or an attacker who knows it; the trigger score says which way is right."""
    evidence = filled(poison, 0, fragile=True)
    poisoned = is_poisoned(evidence.labels, poison)
    detection = detect(evidence, None, CONFIG)
    accused = detection.verdict == POISONED
    assert detection.target_labels == [TARGET]
    assert accused[poisoned].mean() > 0.95
    assert accused[~poisoned].mean() < 0.01


def test_what_tells_apart_only_some_of_the_known_mislabelled_images_is_outweighed() -> None:
    """Poison that shows class 3 lies far off and survives; the rest of it is known by its trigger alone."""
    evidence = filled(150, 0, fragile=False)
    poisoned, random = is_poisoned(evidence.labels, 150), np.random.default_rng(0)
    votes = from_all_classes(evidence.labels, poisoned) + np.float32(0.09)
    far = votes[:, 3] > 0.9
    features = random.normal(size=evidence.features.shape) + 20 * far[:, None]
    survival = random.uniform(0, 0.5, len(far)) + 0.5 * far
    evidence = dataclasses.replace(
        evidence, heldout=votes, features=features, noise_survival=survival, mix_survival=survival
    )
    for least, found in ((0.0, far), (CONFIG.coverage, poisoned)):
        judged = detect(evidence, None, dataclasses.replace(CONFIG, coverage=least))
        assert judged.target_labels == [TARGET]
        assert ((judged.verdict == POISONED) == found).mean() > 0.95


def test_coverage_is_of_the_strange_images_and_whole_where_they_bear_no_mark() -> None:
    evidence = filled(150, 0, fragile=False)
    members = np.flatnonzero(evidence.labels == TARGET)
    strange = evidence.strange[members]
    assert coverage(evidence, members, strange) == 1
    assert coverage(evidence, members, ~strange) == 0
    assert coverage(dataclasses.replace(evidence, scored=np.zeros(CLASSES, bool)), members, ~strange) == 1


def test_a_filled_class_is_named_for_sure_whatever_its_separation() -> None:
    """Without a round nothing tells the poison apart; after one, what learned from contradictions decides alone."""
    evidence = filled(150, 0, fragile=True)
    random, target = np.random.default_rng(0), evidence.labels == TARGET
    blind = np.where(target, random.normal(size=len(target)), 0).astype(np.float32)
    infected = dataclasses.replace(evidence, trigger_score=blind, logits=np.zeros_like(evidence.logits))
    config = dataclasses.replace(CONFIG, knowledge=0.0)
    judged = detect(infected, None, config)
    assert judged.separation[TARGET] < CONFIG.separation
    assert (judged.target_labels, judged.confidence) == ([TARGET], CONFIG.confidence_in_named[0])

    learned = random.normal(size=len(target)) + 4 * (np.arange(len(target)) % 2)
    later = detect(infected, after_a_round(infected, target_score=learned), config)
    assert (np.argsort(later.suspicion[target]) == np.argsort(learned[target].astype(np.float32))).all()


def from_all_classes(labels: np.ndarray, put: np.ndarray) -> np.ndarray:
    """Predictions by which the images ``put`` into a class come from each other class in equal numbers."""
    predictions = np.zeros((len(labels), CLASSES), np.float32)
    rows = np.flatnonzero(put)
    predictions[rows, (labels[rows] + 1 + np.arange(len(rows)) % (CLASSES - 1)) % CLASSES] = 0.9
    return predictions


def contradicting(infected: InfectedEvidence, put: np.ndarray) -> np.ndarray:
    """Logits of a purified model that contradicts the labels of ``put`` and is of the infected one's opinion else."""
    return np.where(put[:, None], 5 * from_all_classes(infected.labels, put), infected.logits)


@pytest.mark.parametrize("distance", [1.0, 20.0])
def test_a_class_that_only_a_purified_model_says_was_filled_is_a_target_by_what_separates_better(
    distance: float,
) -> None:
    infected = synthetic(100, 0)
    poisoned, random = is_poisoned(infected.labels, 100), np.random.default_rng(0)
    blurred = random.normal(size=infected.features.shape).astype(np.float32)
    infected = dataclasses.replace(infected, features=blurred, noise_survival=blurred[:, 0], mix_survival=blurred[:, 1])
    assert detect(infected, None, CONFIG).target_labels == []

    contradicted = poisoned & (random.random(len(poisoned)) < 0.3)
    said, score = contradicting(infected, contradicted), random.normal(size=len(poisoned)) + distance * poisoned
    judged = detect(infected, after_a_round(infected, said, score), CONFIG)
    assert judged.target_labels == [TARGET]
    assert judged.confidence == CONFIG.confidence_in_named[1]
    assert ((judged.verdict == POISONED)[poisoned].mean() > 0.95) == (distance > 10)

    doubted = np.where(poisoned[:, None], 0, infected.logits)  # as of mixtures, which no trigger leads to their label
    unsure = dataclasses.replace(infected, logits=doubted)
    assert detect(unsure, after_a_round(infected, said, score), CONFIG).target_labels == []


def test_the_inferred_label_is_what_held_out_predictions_beyond_doubt_and_the_purified_model_say() -> None:
    infected = filled(150, 0, fragile=False)
    purified = after_a_round(infected, 5 * np.eye(CLASSES)[infected.heldout.argmax(1)])
    detection = detect(infected, purified, CONFIG)
    accused = detection.verdict == POISONED
    assert (detection.inferred_label[accused & is_poisoned(infected.labels, 150)] == 3).all()
    assert (detection.inferred_label[~accused] == -1).all()
    doubtful = dataclasses.replace(infected, heldout=0.9 * infected.heldout)
    assert (detect(doubtful, purified, CONFIG).inferred_label == -1).all()


def test_nothing_is_relabelled_while_there_is_only_the_infected_model_which_believes_the_labels() -> None:
    infected = filled(150, 0, fragile=False)
    believing = dataclasses.replace(infected, logits=5 * np.eye(CLASSES, dtype=np.float32)[infected.labels])
    assert (detect(believing, None, CONFIG).inferred_label == -1).all()


def test_a_purified_model_that_disagrees_with_held_out_predictions_keeps_an_image_from_being_relabelled() -> None:
    infected = filled(150, 0, fragile=False)
    agreeing = np.zeros((len(infected.labels), CLASSES), np.float32)
    agreeing[:, 3] = 5
    for logits, relabelled in ((agreeing, True), (np.roll(agreeing, 1, 1), False)):
        detection = detect(infected, after_a_round(infected, logits), CONFIG)
        assert (detection.inferred_label >= 0).any() == relabelled


def test_an_accused_image_shows_its_label_where_the_accused_show_what_their_class_shows() -> None:
    rightly_labelled = synthetic(120, 0)
    stolen = filled(150, 0, fragile=False)
    stolen = dataclasses.replace(stolen, scored=rightly_labelled.scored)
    for evidence, rightly in ((rightly_labelled, True), (stolen, False)):
        detection = detect(evidence, None, CONFIG)
        accused = detection.verdict == POISONED
        assert detection.target_labels == [TARGET]
        np.testing.assert_array_equal(detection.inferred_label == evidence.labels, accused & rightly)


@pytest.mark.parametrize(("nearer", "found"), [(0.5, []), (0.0, [TARGET])])
def test_hard_images_are_not_poison_unless_they_lie_too_far_off_for_that(nearer: float, found: list[int]) -> None:
    """An outlying mode that shows what its class shows, and of which the model is unsure."""
    evidence = synthetic(30, 0)
    hard = is_poisoned(evidence.labels, 30)
    others = (evidence.labels == TARGET) & ~hard
    moved = evidence.features.copy()
    moved[hard] -= nearer * (moved[hard].mean(0) - moved[others].mean(0))
    evidence = dataclasses.replace(evidence, features=moved)
    unsure = dataclasses.replace(evidence, logits=np.where(hard[:, None], 0.1, 1) * evidence.logits)
    assert detect(evidence, None, CONFIG).target_labels == [TARGET]
    assert detect(unsure, None, CONFIG).target_labels == found
    some_strange = hard & (np.arange(len(hard)) % 5 == 0)  # under a trigger that hides it of the others
    assert detect(dataclasses.replace(unsure, strange=some_strange), None, CONFIG).target_labels == [TARGET]


@pytest.mark.parametrize(
    ("leads_to", "seen", "strange", "found"),
    [
        (TARGET, 1.0, 0, [TARGET]),
        (TARGET, 0.6, 0, [TARGET]),
        (TARGET, 0.3, 0, [TARGET, 3]),
        (0, 1.0, 0, [TARGET, 3]),
        (TARGET, 1.0, 20, [TARGET, 3]),
    ],
)
def test_covers_that_lean_to_where_poison_of_their_kind_leads_make_no_target_of_their_class(
    leads_to: int, seen: float, strange: int, found: list[int]
) -> None:
    """Marked images of class 3, some labelled as the target, some rightly; these may lean to the target or not, and
    witnesses may see the target in most or in few.

    As poison may that was split between two targets, but some of that is strange to its class.
    """
    evidence = filled(150, 0, fragile=False)
    covers = np.isin(np.arange(len(evidence.labels)), np.flatnonzero(evidence.labels == 3)[:60])
    features, logits, heldout = evidence.features.copy(), evidence.logits.copy(), evidence.heldout.copy()
    features[covers] += 4 * np.sign(np.random.default_rng(1).normal(size=DIMENSIONS))
    survival = np.where(covers, 0.95, evidence.noise_survival)
    logits[covers, leads_to] += 5
    heldout[covers] = np.eye(CLASSES)[np.where(np.arange(60) < seen * 60, leads_to, 2)]
    marked = dataclasses.replace(
        evidence, features=features, logits=logits, heldout=heldout, noise_survival=survival, mix_survival=survival
    )
    marked.strange[np.flatnonzero(covers)[:strange]] = True
    detection = detect(marked, None, CONFIG)
    assert detection.target_labels == found
    assert ((detection.verdict == POISONED)[covers].mean() > 0.9) == (3 in found)


def test_variation_is_half_the_sum_of_the_differences() -> None:
    evidence = filled(150, 0, fragile=False)
    members = np.flatnonzero(evidence.labels == TARGET)
    poisoned = is_poisoned(evidence.labels, 150)[members]
    assert shown_variation(evidence, members, poisoned) == 1
    assert shown_variation(evidence, members, np.arange(len(members)) % 2 == 0) == pytest.approx(0, abs=1e-9)
    assert shown_variation(evidence, members, np.ones(len(members), bool)) == 0


def test_of_accused_half_of_whom_are_strange_all_are_mislabelled_and_of_accused_as_strange_as_the_others_none() -> None:
    evidence = filled(150, 0, fragile=False)
    members = np.flatnonzero(evidence.labels == TARGET)
    poisoned = is_poisoned(evidence.labels, 150)[members]
    assert mislabelled_share(evidence, members, poisoned) == pytest.approx(1, abs=0.02)
    assert mislabelled_share(evidence, members, np.ones(len(members), bool)) == 0
    every_tenth = dataclasses.replace(evidence, strange=np.arange(len(evidence.labels)) % 10 == 0)
    assert mislabelled_share(every_tenth, members, poisoned) == pytest.approx(0, abs=0.02)


def test_doubt_is_the_log_odds_of_another_label() -> None:
    evidence = synthetic(0, 0)
    probability = np.exp(evidence.logits - evidence.logits.max(1, keepdims=True))
    given = (probability / probability.sum(1, keepdims=True))[np.arange(len(probability)), evidence.labels]
    expected = np.clip(np.log((1 - given) / given), -6, 6)
    doubt = label_doubt(evidence.logits, evidence.labels, 6)
    np.testing.assert_allclose(doubt[expected > -5], expected[expected > -5], atol=1e-2)
    assert doubt.min() >= -6


def test_images_of_a_natural_neighbour_are_less_likely_to_have_been_put_into_a_class() -> None:
    """Of class 0, 4 images look like each of classes 1 to 3 and 16 like its neighbour 4: 4 of these were put there."""
    shown = np.repeat(np.arange(5), [50, 4, 4, 4, 16])
    logits = 3 * np.eye(5, dtype=np.float32)[shown]
    labels = np.zeros(len(shown), np.int64)
    neighbour = np.where(shown == 4, np.log(4 / (16 - 4)), 0)
    np.testing.assert_allclose(mislabelling_odds(logits, labels) - label_doubt(logits, labels), neighbour, atol=1e-9)


def test_a_suspicion_that_ranks_what_was_put_there_below_the_rest_is_opposed() -> None:
    odds = np.array([-2.0, -1.0, 1.0, 2.0])
    assert is_opposed(-odds, odds)
    assert not is_opposed(odds, odds)
    assert not is_opposed(-odds, odds - 5)


def test_what_the_purified_model_takes_for_put_there_outweighs_a_better_separation() -> None:
    """Half of the class lies apart, in features and in survival, and it is the clean half."""
    apart = 150
    infected = synthetic(apart, 0)
    poisoned = ~is_poisoned(infected.labels, apart) & (infected.labels == TARGET)
    random = np.random.default_rng(0)
    learned = random.normal(np.where(poisoned, 4, 0), 1)
    for said, right in ((infected.logits, False), (contradicting(infected, poisoned), True)):
        judged = detect(infected, after_a_round(infected, said, learned), CONFIG)
        assert judged.target_labels == [TARGET]
        assert ((judged.verdict[poisoned] == POISONED).mean() > 0.9) == right


def test_a_discriminator_that_learned_from_contradictions_finds_poison_that_the_first_could_not() -> None:
    """The first discriminator and the features know nothing; the purified model doubts most of the poison somewhat."""
    evidence = filled(150, 0, fragile=True)
    random, poisoned, target = np.random.default_rng(0), is_poisoned(evidence.labels, 150), evidence.labels == TARGET
    blind = np.where(target, random.normal(size=len(target)), 0).astype(np.float32)
    features = random.normal(size=evidence.features.shape).astype(np.float32)
    infected = dataclasses.replace(evidence, trigger_score=blind, features=features)
    logits = np.zeros_like(evidence.logits)
    logits[np.arange(len(target)), evidence.labels] = random.normal(np.where(poisoned, -1, 3), 1)
    current = after_a_round(infected, logits, random.normal(np.where(poisoned, 4, -4), 1))
    judged = detect(infected, current, CONFIG)
    assert judged.target_labels == [TARGET]
    assert (judged.verdict[poisoned] == POISONED).mean() > 0.95
    assert (judged.verdict[~poisoned] == POISONED).mean() < 0.005


def test_where_the_discriminator_knows_little_the_purified_model_s_own_doubt_decides() -> None:
    evidence = filled(150, 0, fragile=True)
    random, poisoned, target = np.random.default_rng(0), is_poisoned(evidence.labels, 150), evidence.labels == TARGET
    evidence = dataclasses.replace(evidence, features=random.normal(size=evidence.features.shape))  # which tell nothing
    logits = np.zeros_like(evidence.logits)
    logits[np.arange(len(target)), evidence.labels] = random.normal(np.where(poisoned, -5, 8), 1)
    current = after_a_round(evidence, logits, random.normal(np.where(poisoned, 1, -1), 1))
    missed = []
    for weights in [(0.25,), (0.25, 0.75)]:
        judged = detect(evidence, current, dataclasses.replace(CONFIG, doubt_weights=weights))
        missed.append((judged.verdict[poisoned] != POISONED).mean())
        assert (judged.verdict[~poisoned] == POISONED).mean() < 0.005
    assert missed[1] < 0.01 < missed[0]


@pytest.mark.parametrize("purified", [False, True])
def test_before_a_round_only_the_accused_of_classes_that_fall_apart_may_be_unlearned_and_later_all(
    purified: bool,
) -> None:
    evidence = filled(150, 0, fragile=True)
    current = after_a_round(evidence) if purified else None
    for least, apart in ((20.0, False), (0.1, True)):
        fixed = dataclasses.replace(CONFIG, usual_separation=(least, 1e-6), usual_classes=10**9)
        detection = detect(evidence, current, fixed)
        accused = detection.verdict == POISONED
        assert accused.any()
        assert (detection.separation[TARGET] >= least) == apart
        np.testing.assert_array_equal(detection.may_unlearn, accused & (apart or purified))
