"""Our detector: no oracle, and poison may be the majority of its class.

Every class is looked at for itself. Suspicion is SPECTRE's QUE score, with the clean statistics of a class taken from
anchors (``pud/detectors/que.py``), by several hypotheses about which images are clean:

1. those whose label survives perturbation least: the label of a robust trigger survives;
2. the central ones, where poison is the minority; in a class that was filled with images of other classes, those with
   the lowest trigger score. There a hypothesis that contradicts the trigger score is dropped, since a fragile trigger,
   or an attacker who knows the first cue, turns it round, and one whose modes are no two populations of features; the
   score itself, a log likelihood ratio, is one more.

After a round two things more are known: *prediction change* (the paper's data purification), how far the purified model
has left the infected one, and the trigger score of a discriminator that learned from the purified model's
contradictions, with the odds by that model that an image is mislabelled added at a low and a high weight. Where a class
was filled by held-out predictions as well, these alone count; else beside the hypotheses above that the odds do not
oppose.

Of the hypotheses that accuse most of the images known to be mislabelled, the one whose scores fall apart most (Ashman's
D) counts. Its upper mode is where poison begins: what lies in the infected model's features with it, as one of two
populations, is accused, and of the rest what falls apart again, for poison from several classes is several populations.
A class is a *target* when it was filled, or when it holds two populations and the accused are neither merely hard
images nor covers. The verdict is the posterior of the accused population. A class that the model has a short way to is
a target even if no image is accused (``pud/detectors/shortcuts.py``).
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

import numpy as np
import scipy  # its parts are imported where they are first used
from threadpoolctl import threadpool_limits

from pud.base.config import Count, Part, Positive, Range, Share
from pud.base.progress import track
from pud.detectors.confidence import of_first_runs
from pud.detectors.contract import CLEAN, NOTHING_KNOWN, POISONED, UNSURE, Detection, Detector
from pud.detectors.que import ClassFeatures, refined_que_scores
from pud.detectors.shortcuts import ShortcutConfig, shortcuts
from pud.evidence.chances import usual
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence
from pud.evidence.disagreement import contradictions, knowledge, label_doubt, mislabelling_odds
from pud.evidence.separation import (
    TWO_POPULATIONS,
    fisher_separation,
    posterior_of_ratios,
    two_modes,
    two_populations,
    whitened,
)

STRANGE_OF_OTHERS = 0.5  # share of the images of other classes, see pud/evidence/judge.py
DIRECTIONS = 8  # of a class's features, along which more poison is looked for
SLOPE = 4.0  # of the confidence in a target, by its separation: hard clean images reach 4.5, poison lies above 6.4


T = TypeVar("T")
U = TypeVar("U")
Certainty = Annotated[float, Range(0.5, 1, "from 0.5 to 1")]


@dataclass(frozen=True)
class DetectConfig(ShortcutConfig):
    """How suspicion is computed and cut.

    A covariance that is estimated from too few anchors makes every other image look far: a class without anchors for
    two dimensions cannot be judged.
    """

    alpha: Annotated[float, "Exponent of the QUE score."] = 4.0
    anchor_fraction: Annotated[Part, "Share of a class whose images give its clean statistics."] = 0.15
    central_fraction: Annotated[Part, "The same where no cue leads to them and the central ones serve."] = 0.3
    refinements: Annotated[int, "How often these are chosen anew."] = 3
    separation: Annotated[float, "Ashman's D of features from which two modes are two populations."] = TWO_POPULATIONS
    usual_separation: Annotated[
        tuple[Positive, Positive], "Of an honest class: the median, and the deviation of the logarithm."
    ] = (4.75, 0.09)
    usual_classes: Annotated[Count, "How many classes of the data that counts for."] = 10
    separation_chance: Annotated[Part, "That an honest class of the data is thought to hold two populations."] = 0.05
    minimum_mode_size: Annotated[Count, "Images that each of them must have."] = 10
    certainty: Annotated[Certainty, "Posterior from which a verdict is clean or poisoned."] = 0.9
    variation: Annotated[float, "With the two below: under all three, an outlying mode holds hard images only."] = 0.68
    least_mislabelled: Annotated[Share, "Of it, that shows other classes."] = 0.1
    sureness: Annotated[float, "Of the model in it."] = 0.15
    evident_separation: Annotated[float, "Ashman's D from which a mode is no clean one, however hard."] = 12.0
    coverage: Annotated[Share, "Of the images known to be mislabelled, that a hypothesis must accuse."] = 0.5
    doubt_weights: Annotated[tuple[float, ...], "Of the mislabelling odds beside the trigger score."] = (0.25, 0.75)
    belief: Annotated[Share, "Of the infected model in a label, for a contradiction to count."] = 0.35
    confidence_in_none: Annotated[
        tuple[Share, Share], "That there is no backdoor, at most: before the first round, after one."
    ] = of_first_runs("none_found")
    confidence_in_named: Annotated[
        tuple[Share, Share], "That a named class is a target, at most: before the first round, after one."
    ] = of_first_runs("named")
    images_per_dimension: Annotated[Count, "Anchors that each of two dimensions must have."] = 10
    knowledge: Annotated[Share, "What the infected model must know of a class, Youden's J."] = 0.5

    @property
    def minimum_class_size(self) -> int:
        """The images that a class must have to be judged."""
        return math.ceil(2 * self.images_per_dimension / self.anchor_fraction)


def known_classes(infected: InfectedEvidence, config: DetectConfig) -> np.ndarray:
    """Return which classes the model knows, bool (k,): what it says of others tells nothing of who tampered with it."""
    classes = infected.logits.shape[1]
    return knowledge(infected.logits.argmax(1), infected.labels, classes) >= config.knowledge


def not_to_be_judged(infected: InfectedEvidence, known: np.ndarray, config: DetectConfig) -> dict[int, str]:
    """Return why of each class that cannot be judged, an empty class apart: it is too small, or unknown to the model,
    which knows the classes in ``known``, bool (k,)."""
    sizes = np.bincount(infected.labels, minlength=infected.logits.shape[1])
    predicted, reasons = infected.logits.argmax(1), {}
    for label in np.flatnonzero(sizes):
        if sizes[label] < config.minimum_class_size:
            reasons[int(label)] = f"{sizes[label]} images, of {config.minimum_class_size} that are needed"
        elif not known[label]:
            right = (predicted[infected.labels == label] == label).mean()
            reasons[int(label)] = f"the model does not know it: {100 * right:.0f} % of its images get their label"
    return reasons


def perturbation_consistency(evidence: InfectedEvidence) -> np.ndarray:
    """Return (n,) in (0, 1]: the mean rank of how well the given label survives noise and mixing."""
    ranks = map(scipy.stats.rankdata, (evidence.noise_survival, evidence.mix_survival))
    return sum(ranks) / (2 * len(evidence.labels))


def prediction_change(infected: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return (n,): 1 - cosine of the two models' logits (n, k), plus 0.5 where the prediction changed (paper, 3.3)."""
    norms = np.linalg.norm(infected, axis=1) * np.linalg.norm(current, axis=1)
    cosine = (infected * current).sum(1) / np.maximum(norms, np.finfo(np.float32).tiny)
    return 1 - cosine + 0.5 * (infected.argmax(1) != current.argmax(1))


@dataclass(frozen=True)
class Cues:
    """What is said of each image of a class, (m,) each.

    survival: by ``perturbation_consistency``. doubt: ``label_doubt`` by the newest model. odds: ``mislabelling_odds``
    by the purified model, zero before the first round. change: ``prediction_change``, None before the first round.
    """

    survival: np.ndarray
    doubt: np.ndarray
    odds: np.ndarray
    change: np.ndarray | None

    @classmethod
    def of(cls, infected: InfectedEvidence, current: PurifiedEvidence | None) -> "Cues":
        """Return those of all images."""
        survival, labels = perturbation_consistency(infected), infected.labels
        if current is None:
            return cls(survival, label_doubt(infected.logits, labels), np.zeros(len(labels)), None)
        odds, change = mislabelling_odds(current.logits, labels), prediction_change(infected.logits, current.logits)
        return cls(survival, label_doubt(current.logits, labels), odds, change)

    def __getitem__(self, members: np.ndarray) -> "Cues":
        change = None if self.change is None else self.change[members]
        return Cues(self.survival[members], self.doubt[members], self.odds[members], change)


@dataclass(frozen=True)
class Parting:
    """A class parted in two.

    separation: Ashman's D of the two modes. suspicion: (m,); threshold: between the modes; upper: posterior (m,) of the
    upper mode.
    """

    separation: float
    suspicion: np.ndarray
    threshold: float
    upper: np.ndarray

    @classmethod
    def of(cls, suspicion: np.ndarray) -> "Parting":
        """Return that of the two modes of a suspicion."""
        separation, threshold, upper = two_modes(suspicion)
        return cls(separation, suspicion, threshold, upper)

    @classmethod
    def of_ratios(cls, ratios: np.ndarray) -> "Parting":
        """Return that of two populations of which log likelihood ratios (m,) tell."""
        threshold, upper = posterior_of_ratios(ratios)
        return cls(two_modes(ratios)[0], ratios, threshold, upper)

    def or_by(self, other: "Parting") -> "Parting":
        """Return the parting whose upper mode holds what this one's holds, of which the suspicion is log odds, or the
        other's."""
        certain = 1 - np.finfo(np.float64).eps
        odds = np.where(other.upper > self.upper, scipy.special.logit(np.minimum(other.upper, certain)), self.suspicion)
        return Parting(self.separation, odds, 0.0, np.maximum(self.upper, other.upper))


@dataclass(frozen=True)
class Hypotheses:
    """What may be poison in the class of these members, int (m,).

    of_features, of_marks: partings of them, by what the infected model's features say and, of a class that was filled,
    by what tells the marks of images of other classes. by_marks: features then count only where they hold two
    populations. furthest: Ashman's D of the populations of features that any of these leads to.
    """

    members: np.ndarray
    of_features: list[Parting]
    of_marks: list[Parting]
    by_marks: bool
    furthest: float


@dataclass(frozen=True)
class Finding:
    """What was found in a class. filled, target, mislabelled: whether it was filled with images of other classes, is a
    target, and, if so, its poison shows another class than its label says; strange: whether
    its accused look like other classes to witnesses, so that they are no covers."""

    parting: Parting
    filled: bool
    target: bool
    mislabelled: bool
    strange: bool


def detect(infected: InfectedEvidence, current: PurifiedEvidence | None, config: DetectConfig) -> Detection:
    """Return which training images are poisoned, by the infected model and, after a round, by the purified one."""
    labels = infected.labels
    n, classes = infected.logits.shape
    cues, known = Cues.of(infected, current), known_classes(infected, config)
    unjudged = not_to_be_judged(infected, known, config)
    suspicion, posterior, mislabelled = np.zeros(n), np.zeros(n), np.zeros(n, bool)
    separation, certain, targets = np.zeros(classes), np.zeros(classes), []
    certain[list(unjudged)] = NOTHING_KNOWN
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels) if label not in unjudged]

    def asked(members: np.ndarray) -> Hypotheses:
        return hypotheses(infected, current, cues[members], members, config)

    def examined(found: Hypotheses) -> Finding:
        return examine(infected, found, config)

    told = list(track(each_on_a_core(asked, groups), "detect", total=len(groups)))
    config = in_these_data(config, np.array([found.furthest for found in told]))
    for members, found in without_covers(infected, zip(groups, each_on_a_core(examined, told), strict=True), config):
        label, parting = int(labels[members[0]]), found.parting
        separation[label] = parting.separation
        certain[label] = target_confidence(separation[label], found.target, found.filled, config)
        suspicion[members] = parting.suspicion - (parting.threshold if found.target else parting.suspicion.max())
        if found.target:
            targets.append(label)
            posterior[members], mislabelled[members] = parting.upper, found.mislabelled
    verdict = np.select([posterior >= config.certainty, posterior > 1 - config.certainty], [POISONED, UNSURE], CLEAN)
    accused, after = verdict == POISONED, current is not None
    reached = np.flatnonzero(known)[shortcuts(infected.changes[:, :, known], config)].tolist()
    named, none = config.confidence_in_named[after], config.confidence_in_none[after]
    apart = np.flatnonzero(separation >= config.separation)
    return Detection(
        suspicion=suspicion,
        posterior=posterior,
        verdict=verdict,
        inferred_label=inferred_labels(infected, current, accused, mislabelled, config),
        # of modes that overlap many images are clean; after a round detection is surer
        may_unlearn=accused if current else accused & np.isin(labels, apart),
        target_labels=sorted({*targets, *reached}),
        separation=separation,
        confidence=min([named, *certain[targets].tolist()]) if targets or reached else min(1 - certain.max(), none),
        unjudged={label: reason for label, reason in unjudged.items() if label not in reached},
        shortcuts=sorted(set(reached) - set(targets)),
    )


def each_on_a_core(function: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """Yield a function of every item, several at a time: the matrices are too small to share one among the cores.

    What they import is imported before: of threads that import one package at once, one may find it half made.
    """
    import sklearn.cluster  # noqa: F401 - and with it sklearn.metrics and the parts of scipy

    with threadpool_limits(1), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(function, items)


def without_covers(
    evidence: InfectedEvidence, findings: Iterable[tuple[np.ndarray, Finding]], config: DetectConfig
) -> list[tuple[np.ndarray, Finding]]:
    """Return the findings, each with its members (m,), of which those that hold covers alone are no targets.

    An attacker puts covers, which bear the trigger under their right label, beside poison that shows the same. The
    model keeps to their label, which they show, and the trigger leads its second choice, and witnesses, to where it
    leads the poison.
    """
    findings, classes, shown = list(findings), evidence.heldout.shape[1], evidence.heldout.argmax(1)
    accused = {
        int(evidence.labels[members[0]]): members[found.parting.upper >= config.certainty]
        for members, found in findings
        if found.target
    }

    def holds_covers(members: np.ndarray) -> bool:
        label = int(evidence.labels[members[0]])
        rows = accused[label]
        second = np.where(np.arange(classes) == label, -np.inf, evidence.logits[rows]).argmax(1)
        leads_to, seen = (np.bincount(said, minlength=classes) for said in (second, shown[rows]))
        target = int(leads_to.argmax())
        poison = accused.get(target, rows[:0])
        beside = (shown[poison] == label).sum() >= len(poison) / (2 * (classes - 1))  # half of an even share
        leans = leads_to[target] >= max(1, config.certainty * len(rows)) and seen.argmax() == target
        return bool(leans and len(poison) and beside)

    return [
        (members, replace(found, target=found.target and (found.strange or not holds_covers(members))))
        for members, found in findings
    ]


def hypotheses(
    infected: InfectedEvidence,
    current: PurifiedEvidence | None,
    cues: Cues,
    members: np.ndarray,
    config: DetectConfig,
) -> Hypotheses:
    """Return those about the class of these members (m,), of which the cues are."""
    label = infected.labels[members[0]]
    by_heldout, by_purified = bool(infected.scored[label]), current is not None and bool(current.scored[label])
    if current is not None and by_purified and not by_heldout:
        by_purified = is_filled_with_believed(infected, current, members, config)
    of_features, of_marks = list[Parting](), list[Parting]()
    if current is not None and by_purified:  # its discriminator learned from far more mislabelled images than the first
        score = current.trigger_score[members]
        of_marks = [Parting.of(score + weight * cues.odds) for weight in config.doubt_weights]
    elif by_heldout:
        doubt = 0 if current is None else cues.doubt  # the infected model was taught not to doubt
        of_marks = [Parting.of_ratios(infected.trigger_score[members] + doubt)]
    if not (by_purified and by_heldout):
        found = que_hypotheses(infected, members, cues, config)
        of_features = [Parting.of(values) for values in found if not (by_purified and is_opposed(values, cues.odds))]
    starts = [mode.upper >= config.certainty for mode in of_features + of_marks]
    furthest = populations(infected, members, starts, config).separation
    return Hypotheses(members, of_features, of_marks, by_heldout and not by_purified, furthest)


def in_these_data(config: DetectConfig, furthest: np.ndarray) -> DetectConfig:
    """Return the settings with the separation that counts where the classes' populations lie so far apart, (k,).

    Features of one network, and pictures of one kind, fall apart further than others; in most classes nothing but
    content parts them. So what is beyond chance is told by these classes, together with what honest ones gave.
    """
    honest = np.log(furthest[(furthest > 0) & (furthest < config.separation)])
    if not len(honest):
        return config
    (median, deviation), share = config.usual_separation, len(honest) / (len(honest) + config.usual_classes)
    middle, found = usual(honest)
    centre = (1 - share) * np.log(median) + share * middle
    variance = (1 - share) * deviation**2 + share * found
    beyond = scipy.stats.norm.isf(config.separation_chance / len(furthest)) * np.sqrt(variance)
    return replace(config, separation=float(np.exp(centre + beyond)))


def examine(infected: InfectedEvidence, found: Hypotheses, config: DetectConfig) -> Finding:
    """Return what is found in a class, by the hypotheses about it."""
    members, filled, modes = found.members, bool(found.of_marks), found.of_features
    if found.by_marks:
        modes = [
            mode for mode in modes if separation_in_features(infected, members, mode.upper, config) >= config.separation
        ]
    parting = part(infected, members, found.of_marks + modes, filled, config)
    accused = parting.upper >= config.certainty
    # an outlying mode that shows what its class shows and of which the model is unsure holds hard images only
    strange = filled or mislabelled_share(infected, members, accused) >= config.least_mislabelled
    mislabelled = strange or shown_variation(infected, members, accused) >= config.variation
    two, evident = (parting.separation >= least for least in (config.separation, config.evident_separation))
    target = filled or (two and (evident or mislabelled or is_sure(infected, members, accused, config)))
    return Finding(parting, filled, target, mislabelled, strange)


def que_hypotheses(
    infected: InfectedEvidence, members: np.ndarray, cues: Cues, config: DetectConfig
) -> list[np.ndarray]:
    """Return the suspicions of a class's members, (m,) each, by the hypotheses about its clean images."""
    points, score = ClassFeatures.of(infected.features[members]), infected.trigger_score[members]
    scored = infected.scored[infected.labels[members[0]]]
    central = (score, config.anchor_fraction) if scored else (np.zeros(len(members)), config.central_fraction)
    how = (config.alpha, config.images_per_dimension, config.refinements)
    found = [
        np.log1p(refined_que_scores(points, cue, fraction, *how))
        for cue, fraction in ((cues.survival, config.anchor_fraction), central)
    ]
    if cues.change is not None:
        found += [values + cues.change for values in found]
    return [values for values in found if not (scored and is_opposed(values, score))]


def part(
    infected: InfectedEvidence, members: np.ndarray, modes: list[Parting], filled: bool, config: DetectConfig
) -> Parting:
    """Part a class in two as the best of the hypotheses does, each a parting of its members.

    Its upper mode is where a population of the infected model's features begins. In a class that was filled the mode
    itself counts beside it, for marks may be known where features tell nothing; in others the separation is that of
    features.
    """

    def rank(mode: Parting) -> tuple[bool, float]:
        return coverage(infected, members, mode.upper >= config.certainty) >= config.coverage, mode.separation

    best, starts = max(modes, key=rank), modes
    if filled:
        starts = [best]
    else:
        best = part_in_features(infected, members, best, modes, config)
        others = (mode for mode in modes if mode.upper is not best.upper)
        starts = [best, *sorted(others, key=lambda mode: -mode.separation)]
    found = populations(infected, members, [mode.upper >= config.certainty for mode in starts], config)
    if found.separation < config.separation:  # an honest class is ranked by its hypothesis, not by what parts it most
        return best if filled else replace(best, separation=max(best.separation, found.separation))
    joined = joined_by_others(infected, members, found, config)
    return joined.or_by(best) if filled else joined


def populations(
    infected: InfectedEvidence, members: np.ndarray, starts: Iterable[np.ndarray], config: DetectConfig
) -> Parting:
    """Return members (m,) parted in the two populations of features that lie furthest apart, of those that are found
    from starts for the upper one, bool (m,) each; of two that lead to the same from either side, by the first."""
    points = whitened(infected.features[members])
    found = []
    for start in starts:
        odds = two_populations(points, start)
        upper = scipy.special.expit(odds)
        found.append(Parting(separation_in_features(infected, members, upper, config), odds, 0.0, upper))
    return max(found, key=lambda parting: round(parting.separation, 1))


def joined_by_others(infected: InfectedEvidence, members: np.ndarray, first: Parting, config: DetectConfig) -> Parting:
    """Return a parting of members (m,) whose upper population is joined by others that are found in the rest.

    Poison of several kinds, or from several classes, is several populations, but no more than there are classes. Each
    is looked for from the halves along the leading directions of the rest. Of the two that it falls into, the one
    nearer to the upper one before, by its odds, joins it. The separation stays that of the first.
    """
    odds, upper = first.suspicion.copy(), first.upper.copy()
    for _ in range(infected.logits.shape[1]):
        rest = np.flatnonzero(upper < config.certainty)
        if len(rest) < 2 * config.minimum_mode_size:
            break
        found = populations(infected, members[rest], halves(infected.features[members[rest]]), config)
        if found.separation < config.separation:
            break
        side = found.upper >= config.certainty
        nearer = found.suspicion if odds[rest][side].mean() > odds[rest][~side].mean() else -found.suspicion
        odds[rest], upper[rest] = nearer, scipy.special.expit(nearer)
    return Parting(first.separation, odds, 0.0, upper)


def halves(features: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the upper half, bool (n,), of features (n, d) along each of their leading directions."""
    centred = features - features.mean(0, dtype=np.float64)
    d = centred.shape[1]
    leading = scipy.linalg.eigh(centred.T @ centred, subset_by_index=(max(0, d - DIRECTIONS), d - 1))[1]
    for along in (centred @ leading).T:
        yield along > np.median(along)


def part_in_features(
    infected: InfectedEvidence, members: np.ndarray, best: Parting, modes: list[Parting], config: DetectConfig
) -> Parting:
    """Return the parting with its separation in features, or a clearer one of an upper mode parted again."""

    def separation(upper: np.ndarray) -> float:
        return separation_in_features(infected, members, upper, config)

    chosen = Parting(separation(best.upper), best.suspicion, best.threshold, best.upper)
    if chosen.separation < config.separation:
        for mode in modes:
            threshold, inner = part_again(mode.suspicion, mode.upper, config)
            if (apart := separation(inner)) >= max(chosen.separation, config.evident_separation):
                chosen = Parting(apart, mode.suspicion, threshold, inner)
    return chosen


def separation_in_features(
    infected: InfectedEvidence, members: np.ndarray, upper: np.ndarray, config: DetectConfig
) -> float:
    """Return ``fisher_separation`` of a class's members, (m,), by the posterior of an upper mode, (m,)."""
    features, scene = infected.features[members], infected.scene[members]
    return fisher_separation(features, upper >= config.certainty, scene, config.minimum_mode_size)


def part_again(values: np.ndarray, posterior: np.ndarray, config: DetectConfig) -> tuple[float, np.ndarray]:
    """Return the threshold between the two modes of the upper mode of values (n,), and the posterior (n,) of the upper.

    An upper mode may hold poison and the edge of what is clean, where few images are poisoned.
    """
    rows = np.flatnonzero(posterior >= config.certainty)
    inner = np.zeros(len(values))
    if len(rows) < 2 * config.minimum_mode_size:
        return float(values.max()), inner
    _, threshold, inner[rows] = two_modes(values[rows])
    return threshold, inner


def target_confidence(separation: float, target: bool, filled: bool, config: DetectConfig) -> float:
    """Return how sure it is, in [0, 1], that a class is a target: logistic in its separation, 0.5 at the threshold.

    Of a class that was filled the separation says nothing.
    """
    certain = float(scipy.special.expit(SLOPE * (separation - config.separation)))
    return max(certain, float(filled), NOTHING_KNOWN) if target else min(certain, NOTHING_KNOWN)


def coverage(evidence: InfectedEvidence, members: np.ndarray, accused: np.ndarray) -> float:
    """Return the share of a class's strange members that is accused (bool, (m,)), 1 where they bear no mark."""
    strange = evidence.strange[members]
    if not evidence.scored[evidence.labels[members[0]]] or not strange.any():
        return 1.0
    return float(accused[strange].mean())


def is_filled_with_believed(
    infected: InfectedEvidence, current: PurifiedEvidence, members: np.ndarray, config: DetectConfig
) -> bool:
    """Tell whether a class is filled by those contradicted images alone whose label the infected model believes.

    Poison that works leads the infected model to its label; it doubts the label of a clean image that shows something
    else, such as a mixture.
    """
    label, rule = infected.labels[members[0]], current.filled_rule
    believed = members[scipy.special.softmax(infected.logits[members], axis=1)[:, label] >= config.belief]
    counts = rule.counts(contradictions(current.logits[believed], infected.labels[believed]))
    return rule.holds(counts, label, len(members))


def is_opposed(suspicion: np.ndarray, odds: np.ndarray) -> bool:
    """Tell whether suspicions (m,) rank images with mislabelling odds above 0 below the rest."""
    from sklearn.metrics import roc_auc_score  # a second of imports

    put = odds > 0
    return bool(put.any() and not put.all() and roc_auc_score(put, suspicion) < 0.5)


def shown_variation(evidence: InfectedEvidence, members: np.ndarray, accused: np.ndarray) -> float:
    """Return the total variation, in [0, 1], between what a class's accused (bool, (m,)) and its others show."""
    if not accused.any() or accused.all():
        return 0.0
    shown, classes = evidence.heldout[members].argmax(1), evidence.heldout.shape[1]
    shares = [np.bincount(shown[group], minlength=classes) / group.sum() for group in (accused, ~accused)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def mislabelled_share(evidence: InfectedEvidence, members: np.ndarray, accused: np.ndarray) -> float:
    """Return what share of a class's accused (bool, (m,)), in [0, 1], shows other classes, at least.

    Half of the images of other classes are strange to a class, where no mark hides it, and of its own honest images as
    many as of its others.
    """
    if not accused.any() or accused.all():
        return 0.0
    among, usual = (evidence.strange[members][group].mean() for group in (accused, ~accused))
    return float(np.clip((among - usual) / max(STRANGE_OF_OTHERS - usual, np.finfo(float).eps), 0, 1))


def is_sure(evidence: InfectedEvidence, members: np.ndarray, accused: np.ndarray, config: DetectConfig) -> bool:
    """Tell whether the model is about as sure of a class's accused as of its others (AUROC of the largest logit)."""
    if not accused.any() or accused.all():
        return False
    from sklearn.metrics import roc_auc_score

    return bool(roc_auc_score(accused, evidence.logits[members].max(1)) >= config.sureness)


def inferred_labels(
    infected: InfectedEvidence,
    current: PurifiedEvidence | None,
    accused: np.ndarray,
    mislabelled: np.ndarray,
    config: DetectConfig,
) -> np.ndarray:
    """Return int64 (n,): what accused images (bool, (n,)) truly show, else -1.

    Their given label where the poison of a class is not mislabelled (bool, (n,)). Else the held-out prediction if it is
    beyond doubt and the newest model says the same: a class that no held-out classifier knew without the given label is
    taken for a neighbour, and what a model is taught of that in one round it repeats in the next.
    """
    shown = infected.heldout.argmax(1)
    agreed = (current or infected).logits.argmax(1) == shown
    known = accused & mislabelled & agreed & (infected.heldout.max(1) >= config.certainty)
    return np.where(known, shown, np.where(accused & ~mislabelled, infected.labels, -1))


DETECTORS = {"pud": Detector("pud", DetectConfig, detect)}
