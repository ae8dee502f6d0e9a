"""Which training images are poisoned, and which class they lead to: no oracle, and poison may be the majority.

Each class is judged for itself, by SPECTRE's QUE score (Hayase et al. 2021, arXiv 2104.11315), which whitens a class's
features with a robust estimate of its clean statistics. The original takes the majority for clean. Here the statistics
come from *anchors*, by several hypotheses about which images are clean:

1. those whose label survives perturbation least: a robust trigger's label survives;
2. the central ones: where poison is the minority;
3. in a class that was filled from others (cross-examination) those in which a judge sees the trigger least; there a
   hypothesis that contradicts the judge is dropped: a fragile trigger, or an attacker who knows the first, turns it
   round.

Later rounds add *prediction consistency* (the paper's data purification), how far the current model has left the
infected one. Where a class was filled by what the current model says, too, the judge that learned from its
contradictions is heard, beside which the intruder odds by that model count little or much; where the witnesses had
said so before, nothing else is, and where not, no hypothesis that those odds oppose. Of the hypotheses that accuse
most of what the witnesses know to be put there, the one whose scores fall apart most (Ashman's D) counts. A class is a
*target* when it was filled, or when its two modes are two populations in the infected model's features and the upper
one is not merely hard images; where they are not, the upper mode is parted again. The verdict is the posterior of the
upper mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import scipy.linalg
import scipy.special
from scipy.stats import rankdata, spearmanr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from pud.base.config import Count, Part, Range, Share
from pud.base.progress import track
from pud.evidence.contract import Evidence

BACKDOOR, NONE_FOUND, CANNOT_BE_JUDGED = "backdoor", "none found", "cannot be judged"  # what is said of a data set
CLEAN, UNSURE, POISONED = "clean", "unsure", "poisoned"  # and of an image


@dataclass(frozen=True)
class DetectConfig:
    """How suspicion is computed and cut.

    alpha: QUE's exponent. anchor_fraction: share of a class that anchors its clean statistics, central_fraction: the
    same where no cue leads to them, chosen anew ``refinements`` times. separation: Ashman's D in features from which
    two modes, each of ``minimum_mode_size``, are two populations. certainty: posterior from which a verdict is clean
    or poisoned, and probability from which a vote on what an image shows is beyond doubt. variation, sureness: below
    both, an outlying mode holds hard images only, unless it lies ``evident_separation`` off, as no honest one did; so
    far off must lie what was parted again. agreement: rank correlation with the trigger score that a filled class's
    suspicion must have. coverage: share of what the witnesses know to be put into a filled class that a hypothesis
    must accuse. filled_...: as in ``ContentConfig``, for that. doubt_limit: of the log odds against the given label.
    doubt_weights: of the intruder odds beside a trigger score that was learned from them, each a hypothesis.
    contradiction_filled_...: as in ``ContentConfig``, here of images of whose label the infected model is sure by
    ``belief``, for a class that only the current model says was filled. confidence_in_filled: at least, that a filled
    class is a target; confidence_in_none: at most, that there is none, from the infected model alone and after a
    round, for of 46 poisoned data sets, whose misses had been mended, five and none were missed (an even prior): no
    figure for attacks of a new kind. images_per_dimension: anchors for each dimension of their covariance: one
    estimated from too few makes every other image look far, so a class without anchors for two dimensions cannot be
    judged. knowledge: nor can one of which the infected model knows less than this (Youden's J).
    """

    alpha: float = 4.0
    anchor_fraction: Part = 0.15
    central_fraction: Part = 0.3
    refinements: int = 3
    separation: float = 5.5
    minimum_mode_size: Count = 10
    certainty: Annotated[float, Range(0.5, 1, "from 0.5 to 1")] = 0.9
    variation: float = 0.68
    sureness: float = 0.15
    evident_separation: float = 12.0
    agreement: float = 0.5
    coverage: Share = 0.5
    filled_confidence: Share = 0.95
    filled_share: tuple[Share, Share] = (0.012, 0.012)
    filled_quantiles: tuple[Share, Share] = (0.5, 0.125)
    doubt_limit: float = 6.0
    doubt_weights: tuple[float, ...] = (0.25, 0.75)
    belief: Share = 0.35
    contradiction_filled_confidence: Share = 0.5
    contradiction_filled_share: tuple[Share, Share] = (0.02, 0.0025)
    contradiction_filled_quantiles: tuple[Share, Share] = (0.375, 0.125)
    confidence_in_filled: Share = 0.9
    confidence_in_none: tuple[Share, Share] = (0.9, 0.98)
    images_per_dimension: Count = 10
    knowledge: Share = 0.5

    @property
    def minimum_class_size(self) -> int:
        """The images that a class must have to be judged."""
        return math.ceil(2 * self.images_per_dimension / self.anchor_fraction)


@dataclass(frozen=True)
class Detection:
    """suspicion: float64 (n,), above 0 where the upper mode of an accused class is likelier, never in any other class.
    posterior: float64 (n,); verdict: str (n,), clean, unsure or poisoned; shown: int64 (n,), the class that an accused
    image shows in truth, its label where the accused show what their class shows, -1 where that is not beyond doubt;
    target_labels: the accused classes; separation: Ashman's D of each class's two modes, in suspicion where it was
    filled, else in features, NaN where the class was not judged; confidence: in [0, 1], that what is said of the
    classes is true, 0.5 where nothing is known; unjudged: why, of each class that cannot be judged."""

    suspicion: np.ndarray
    posterior: np.ndarray
    verdict: np.ndarray
    shown: np.ndarray
    target_labels: list[int]
    separation: np.ndarray
    confidence: float
    unjudged: dict[int, str] = field(default_factory=dict)

    @property
    def conclusion(self) -> str:
        """What is said of the data set: BACKDOOR, NONE_FOUND, or CANNOT_BE_JUDGED where a class was left out."""
        return BACKDOOR if self.target_labels else CANNOT_BE_JUDGED if self.unjudged else NONE_FOUND


def knowledge(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return Youden's J of each class, (k,): how much oftener a model says it of its images than of all others.

    predicted, labels: (n,). At chance it is 0, however unequal the classes are and whatever the model prefers; where
    all is right it is 1; of a class without images, or alone, it is 0 (Youden 1950).
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predicted), 1)
    own, all_own, said = np.diag(counts), counts.sum(1), counts.sum(0)
    others = len(labels) - all_own
    return np.where(
        (all_own > 0) & (others > 0), own / np.maximum(all_own, 1) - (said - own) / np.maximum(others, 1), 0
    )


def not_to_be_judged(infected: Evidence, config: DetectConfig) -> dict[int, str]:
    """Return why of each class that cannot be judged, an empty class apart: it is too small, or unknown to the model.

    What a model's features say of images that it does not know says nothing of who tampered with them.
    """
    classes = infected.logits.shape[1]
    sizes = np.bincount(infected.labels, minlength=classes)
    predicted = infected.logits.argmax(1)
    known = knowledge(predicted, infected.labels, classes)
    reasons = {}
    for label in np.flatnonzero(sizes):
        if sizes[label] < config.minimum_class_size:
            reasons[int(label)] = f"{sizes[label]} images, of {config.minimum_class_size} that are needed"
        elif known[label] < config.knowledge:
            right = (predicted[infected.labels == label] == label).mean()
            reasons[int(label)] = f"the model does not know it: {100 * right:.0f} % of its images get their label"
    return reasons


def perturbation_consistency(evidence: Evidence) -> np.ndarray:
    """Return (n,) in (0, 1]: the mean rank of how well the given label survives noise and mixing."""
    return (rankdata(evidence.noise_survival) + rankdata(evidence.mix_survival)) / (2 * len(evidence.labels))


def prediction_change(infected: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return (n,): 1 - cosine of the two models' logits (n, k), plus 0.5 where the prediction changed (paper, 3.3)."""
    norms = np.linalg.norm(infected, axis=1) * np.linalg.norm(current, axis=1)
    cosine = (infected * current).sum(1) / np.maximum(norms, np.finfo(np.float32).tiny)
    return 1 - cosine + 0.5 * (infected.argmax(1) != current.argmax(1))


def que_scores(whitened: np.ndarray, alpha: float) -> np.ndarray:
    """Return the QUE score (n,) of whitened points (n, d): x' Q x / tr Q, Q = expm(alpha (S - I) / (|S| - 1)).

    S is the points' second moment; the exponential is that of the matrix (Hayase et al. 2021, equation 2).
    """
    second_moment = whitened.T @ whitened / len(whitened)
    excess = np.linalg.norm(second_moment, 2) - 1
    identity = np.eye(len(second_moment))
    # without a direction that is wider than the clean ones, every direction counts the same
    q = scipy.linalg.expm(alpha * (second_moment - identity) / excess) if excess > 1e-6 else identity
    return np.einsum("ni,ij,nj->n", whitened, q, whitened) / np.trace(q)


def anchored_que_scores(features: np.ndarray, anchors: np.ndarray, config: DetectConfig) -> np.ndarray:
    """Return QUE scores (n,) of one class's features (n, d), whitened by the anchors (bool, (n,)), their median at 1.

    As in SPECTRE the features are projected on the leading singular directions, and of the numbers of directions
    2, 4, 8, ..., as far as there are anchors for them, the one with the largest mean score is taken.
    """
    centred = features.astype(np.float64) - features[anchors].mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    spread = np.linalg.svd(centred[anchors], compute_uv=False)
    rank = int(min((singular > 1e-6 * singular[0]).sum(), (spread > 1e-6 * max(spread[0], 1e-12)).sum()))
    rank = max(2, min(rank, int(anchors.sum()) // config.images_per_dimension))
    best = np.ones(len(features))
    best_mean = -np.inf
    for power in range(1, 1 + int(np.log2(rank))):
        projected = centred @ directions[: 2**power].T
        covariance = np.atleast_2d(np.cov(projected[anchors], rowvar=False))
        covariance += np.eye(len(covariance)) * max(1e-6 * np.trace(covariance) / len(covariance), 1e-12)
        whitened = scipy.linalg.solve_triangular(np.linalg.cholesky(covariance), projected.T, lower=True).T
        scores = que_scores(whitened, config.alpha)
        if scores.mean() > best_mean:
            best, best_mean = scores, scores.mean()
    return best / max(np.median(best[anchors]), np.finfo(np.float64).tiny)


def refined_que_scores(features: np.ndarray, cue: np.ndarray, fraction: float, config: DetectConfig) -> np.ndarray:
    """Return anchored QUE scores (n,) of one class with features (n, d) and a cue (n,) that is higher for poison.

    The anchors are first the ``fraction`` with the lowest cue (all, where the cue says nothing), then those that rank
    lowest in the cue and in the last scores together: poison that had slipped in leaves.
    """
    order = rankdata(cue)
    for _ in range(max(1, config.refinements)):
        anchors = order <= np.quantile(order, fraction)
        scores = anchored_que_scores(features, anchors, config)
        order = rankdata(cue) + rankdata(scores)
    return scores


def ashmans_d(means: Sequence[float], variances: Sequence[float]) -> float:
    """Return sqrt(2) (m1 - m0) / sqrt(v0 + v1) of a lower and an upper population (Ashman et al. 1994)."""
    return float(np.sqrt(2) * (means[1] - means[0]) / np.sqrt(variances[0] + variances[1]))


def two_modes(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Fit two Gaussians to values (n,): return Ashman's D, the threshold between them, posterior (n,) of the upper one.

    Above a D of about 2 the modes are visibly apart (Ashman et al. 1994).
    """
    column = values[:, None]
    mixture = GaussianMixture(2, n_init=3, random_state=0).fit(column)
    low, high = np.argsort(mixture.means_[:, 0])
    means, variances = mixture.means_[:, 0], mixture.covariances_[:, 0, 0]
    separation = ashmans_d((means[low], means[high]), (variances[low], variances[high]))
    grid = np.linspace(means[low], means[high], 1001)
    above = mixture.predict_proba(grid[:, None])[:, high] >= 0.5
    threshold = float(grid[np.argmax(above)])
    posterior = mixture.predict_proba(column)[:, high]
    posterior[values < means[low]] = 0.0  # a wide upper mode must not claim the far end of the lower one
    posterior[values > means[high]] = np.maximum(posterior[values > means[high]], 1 - 1e-6)
    return separation, threshold, posterior


def fisher_separation(features: np.ndarray, upper: np.ndarray, minimum: int) -> float:
    """Return Ashman's D between two groups of features (n, d), ``upper`` (bool, (n,)) and the rest, 0 for small groups.

    Along Fisher's direction, with a shrunk covariance, learned on every other image and measured on those between, and
    the other way round: what no direction of the features shows twice is no separation.
    """
    if min(upper.sum(), (~upper).sum()) < minimum:
        return 0.0
    half = np.zeros(len(upper), bool)
    for group in (upper, ~upper):
        half[np.flatnonzero(group)[::2]] = True
    found = []
    for seen in (half, ~half):
        direction = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[seen], upper[seen])
        along = direction.decision_function(features[~seen])
        low, high = along[~upper[~seen]], along[upper[~seen]]
        found.append(ashmans_d((low.mean(), high.mean()), (low.var(), high.var())))
    return float(np.mean(found))


def part(
    infected: Evidence, members: np.ndarray, hypotheses: list[np.ndarray], filled: bool, config: DetectConfig
) -> tuple[float, np.ndarray, float, np.ndarray]:
    """Part a class in two by the best of the hypotheses, which are suspicions of its members, (m,).

    Return how far its modes are apart, the suspicions, the threshold between them and the upper mode's posterior, (m,).
    """
    modes = [two_modes(values) for values in hypotheses]
    covering = [covered(infected, members, upper >= config.certainty, config) for _, _, upper in modes]
    ranks = [(share >= config.coverage, apart) for share, (apart, _, _) in zip(covering, modes, strict=True)]
    chosen = ranks.index(max(ranks))
    values, (separation, threshold, upper) = hypotheses[chosen], modes[chosen]
    if filled:
        return separation, values, threshold, upper
    features, smallest = infected.features[members], config.minimum_mode_size
    separation = fisher_separation(features, upper >= config.certainty, smallest)
    if separation < config.separation:
        for candidate, (_, _, outer) in zip(hypotheses, modes, strict=True):
            cut, inner = part_again(candidate, outer, config)
            apart = fisher_separation(features, inner >= config.certainty, smallest)
            if apart >= max(separation, config.evident_separation):
                separation, values, threshold, upper = apart, candidate, cut, inner
    return separation, values, threshold, upper


def part_again(values: np.ndarray, posterior: np.ndarray, config: DetectConfig) -> tuple[float, np.ndarray]:
    """Return the threshold between the two modes of the upper mode of values (n,), and the posterior (n,) of the upper.

    An upper mode may hold poison and the edge of what is honest, where few images are poisoned.
    """
    rows = np.flatnonzero(posterior >= config.certainty)
    inner = np.zeros(len(values))
    if len(rows) < 2 * config.minimum_mode_size:
        return float(values.max()), inner
    _, threshold, inner[rows] = two_modes(values[rows])
    return threshold, inner


def hypotheses_of(
    infected: Evidence, members: np.ndarray, survival: np.ndarray, change: np.ndarray | None, config: DetectConfig
) -> list[np.ndarray]:
    """Return the suspicions of a class's members, each (m,), by the hypotheses about its clean images.

    survival, change: of the members, (m,); without change, the current model is the infected one.
    """
    odds = infected.trigger_score[members]
    filled = not np.isnan(odds).any()
    by_survival = (survival, config.anchor_fraction)
    other = (odds, config.anchor_fraction) if filled else (np.zeros(len(members)), config.central_fraction)
    found = [
        np.log1p(refined_que_scores(infected.features[members], cue, fraction, config))
        for cue, fraction in (by_survival, other)
    ]
    if change is not None:
        found += [values + change for values in found]
    return [values for values in found if spearmanr(values, odds).statistic > config.agreement] if filled else found


def detect(infected: Evidence, current: Evidence, config: DetectConfig) -> Detection:
    """Judge every training image from the infected and the current model's evidence (the same one in round 0)."""
    labels = infected.labels
    n, classes = infected.logits.shape
    purified = current is not infected
    survival = perturbation_consistency(infected)
    change = prediction_change(infected.logits, current.logits)
    doubt = label_doubt(current.logits, labels, config.doubt_limit)
    odds = intruder_odds(current.logits, labels, config.doubt_limit)
    suspicion, posterior = np.zeros(n), np.zeros(n)
    separation = np.full(classes, np.nan)
    sure = np.zeros(classes)
    targets: list[int] = []
    relabel = np.zeros(n, bool)
    unjudged = not_to_be_judged(infected, config)
    sure[list(unjudged)] = 0.5  # nothing is known of them
    for label in track(range(classes), "detect"):
        members = np.flatnonzero(labels == label)
        if label in unjudged or not len(members):
            continue
        by_witnesses, by_model = (not np.isnan(view.trigger_score[members]).any() for view in (infected, current))
        by_model = by_model and (by_witnesses or is_put_there(infected, current, members, config))
        filled, judged = by_witnesses or by_model, by_model and purified
        hypotheses = []
        if judged:  # this judge knows far more intruders than the first
            learned = current.trigger_score[members]
            hypotheses += [learned + weight * odds[members] for weight in config.doubt_weights]
        if not (judged and by_witnesses):
            left = change[members] if purified else None
            found = hypotheses_of(infected, members, survival[members], left, config)
            hypotheses += [values for values in found if not (judged and is_opposed(values, odds[members]))]
            hypotheses += [infected.trigger_score[members] + doubt[members]] if by_witnesses else []
        separation[label], values, threshold, upper = part(infected, members, hypotheses, filled, config)
        upmost = upper >= config.certainty
        apart = separation[label] >= config.separation
        # an outlying mode that shows what its class shows and of which the model is unsure holds hard images only
        mislabelled = filled or shown_variation(infected, members, upmost) >= config.variation
        evident = separation[label] >= config.evident_separation
        if filled or (apart and (evident or mislabelled or is_sure(infected, members, upmost, config))):
            targets.append(label)
            posterior[members] = upper
            relabel[members] = mislabelled
        else:
            threshold = float(values.max())
        sure[label] = target_confidence(separation[label], label in targets, filled, config)
        suspicion[members] = values - threshold
    verdict = np.select([posterior >= config.certainty, posterior > 1 - config.certainty], [POISONED, UNSURE], CLEAN)
    confidence = float(sure[targets].min() if targets else min(1 - sure.max(), config.confidence_in_none[purified]))
    accused = verdict == POISONED
    shown = np.where(accused & ~relabel, labels, truly_shown(infected, current, accused & relabel, config))
    return Detection(suspicion, posterior, verdict, shown, targets, separation, confidence, unjudged)


def target_confidence(separation: float, accused: bool, filled: bool, config: DetectConfig) -> float:
    """Return how sure it is, in [0, 1], that a class is a target: logistic in its separation, 0.5 at the threshold.

    The slope is set by what was seen (docs/log.md): hard images of honest classes reach 4.5, targets that are accused
    without being filled lie above 6.4. No honest class was ever filled: such a target counts ``confidence_in_filled``
    at least.
    """
    certain = float(scipy.special.expit(4 * (separation - config.separation)))
    return max(certain, config.confidence_in_filled if filled else 0.5) if accused else min(certain, 0.5)


def label_doubt(logits: np.ndarray, labels: np.ndarray, limit: float) -> np.ndarray:
    """Return (n,): log odds, at most ``limit`` either way, of another than the given label, from logits (n, k)."""
    others = logits.astype(np.float64)
    given = others[np.arange(len(labels)), labels]
    others[np.arange(len(labels)), labels] = -np.inf
    return np.clip(scipy.special.logsumexp(others, axis=1) - given, -limit, limit)


def sent_by_others(counts: np.ndarray, label: int, quantile: float = 0.5) -> float:
    """Return how many of a class's images the other classes sent: a quantile of counts (k,), by what they show."""
    return float(np.quantile(np.delete(counts, label), quantile))


def is_filled(counts: np.ndarray, label: int, size: int, quantiles: Sequence[float], shares: Sequence[float]) -> bool:
    """Tell whether most other classes sent their share of a class, or nearly all a smaller one, and two images.

    counts: (k,), as in ``sent_by_others``; size: of the class; a quantile over the other classes for each share.
    """
    pairs = zip(quantiles, shares, strict=True)
    return any(sent_by_others(counts, label, quantile) >= max(2.0, share * size) for quantile, share in pairs)


def covered(evidence: Evidence, members: np.ndarray, accused: np.ndarray, config: DetectConfig) -> float:
    """Return the share of what the witnesses know to be put into a class that is accused (bool, of its members).

    The median over the other classes, of which some are natural neighbours; 1 where the witnesses see nothing filled.
    """
    label, votes = evidence.labels[members[0]], evidence.votes[members]
    known = votes.max(1) >= config.filled_confidence
    counts, named = (np.bincount(votes[rows].argmax(1), minlength=votes.shape[1]) for rows in (known, known & accused))
    if not is_filled(counts, label, len(members), config.filled_quantiles, config.filled_share):
        return 1.0
    return sent_by_others(named / np.maximum(counts, 1), label)


def intruder_odds(logits: np.ndarray, labels: np.ndarray, limit: float) -> np.ndarray:
    """Return (n,): log odds that an image was put into its class, from a purified model's logits (n, k).

    They are the doubt of its label, less what it has in common with honest images: every class sends about as many, m,
    the median over the others. So of c images in which the model sees one class that is not theirs, c - m are honest,
    and the odds are m to c - m: a neighbour, such as shirts for T-shirts, has c > 2 m.
    """
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    shown, contradicted = others.argmax(1), logits.argmax(1) != labels
    odds = label_doubt(logits, labels, limit)
    for label in np.unique(labels):
        members = labels == label
        counts = np.bincount(shown[members & contradicted], minlength=logits.shape[1])
        sent = max(1.0, sent_by_others(counts, label))
        odds[members] += np.log(sent / np.maximum(counts - sent, sent))[shown[members]]
    return odds


def is_put_there(infected: Evidence, current: Evidence, members: np.ndarray, config: DetectConfig) -> bool:
    """Tell whether a class is filled by those images alone whose label the infected model believes.

    Poison that works leads the infected model to its label; it doubts the label of an honest image that shows something
    else, such as a mixture. The count of the current model's contradictions is as in ``ContentConfig``.
    """
    label, votes = infected.labels[members[0]], current.votes[members]
    believed = scipy.special.softmax(infected.logits[members], axis=1)[:, label] >= config.belief
    counted = votes[believed & (votes.max(1) >= config.contradiction_filled_confidence)].argmax(1)
    counts = np.bincount(counted, minlength=votes.shape[1])
    return is_filled(
        counts, label, len(members), config.contradiction_filled_quantiles, config.contradiction_filled_share
    )


def is_opposed(suspicion: np.ndarray, odds: np.ndarray) -> bool:
    """Tell whether suspicions (m,) rank images with intruder odds above 0 below the rest."""
    put = odds > 0
    return bool(put.any() and not put.all() and roc_auc_score(put, suspicion) < 0.5)


def shown_variation(evidence: Evidence, members: np.ndarray, accused: np.ndarray) -> float:
    """Return the total variation, in [0, 1], between what a class's accused (bool, of its members) and others show."""
    if not accused.any() or accused.all():
        return 0.0
    votes, classes = evidence.votes[members].argmax(1), evidence.votes.shape[1]
    shares = [np.bincount(votes[group], minlength=classes) / group.sum() for group in (accused, ~accused)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def is_sure(evidence: Evidence, members: np.ndarray, accused: np.ndarray, config: DetectConfig) -> bool:
    """Tell whether the model is about as sure of a class's accused as of its others (AUROC of the largest logit)."""
    if not accused.any() or accused.all():
        return False
    return bool(roc_auc_score(accused, evidence.logits[members].max(1)) >= config.sureness)


def truly_shown(infected: Evidence, current: Evidence, mislabelled: np.ndarray, config: DetectConfig) -> np.ndarray:
    """Return (n,): what images (bool, (n,)) show by the votes beyond doubt, else -1.

    The current model must say the same: a class that no witness knew without the given label is taken for a neighbour,
    and what a model is taught of that in one round it repeats in the next. The infected model believes the labels.
    """
    vote = infected.votes.argmax(1)
    agreed = current.logits.argmax(1) == vote
    return np.where(mislabelled & agreed & (infected.votes.max(1) >= config.certainty), vote, -1)
