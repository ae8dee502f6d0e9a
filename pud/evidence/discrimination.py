"""How much an image looks like those that were put into its class: a small model learns what they share, the trigger.

A clean class looks like a few neighbours (sandals like sneakers). A class that was filled with images of other classes
shows most of them: so says ``FilledRule``, by held-out predictions or, after a round, by the contradictions of the
purified model, which find more of the mislabelled images. Poison from a few classes only fills nothing, but lies far
off in the infected model's features. A discriminator learns to tell these *mislabelled* images from clean ones that
show the same, and its log odds, the trigger score, then rank the whole class.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from pud.base.config import Count, Positive, Share
from pud.evidence.contract import FilledRule
from pud.evidence.cross_examination import fresh
from pud.evidence.separation import TWO_POPULATIONS, fisher_separation, two_modes
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train

NEIGHBOUR = 1.5  # times the median over the other classes: a class that more images show is a natural neighbour

Refine = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class MislabelledRule:
    """Which images of a filled class are held to be mislabelled.

    confidence: from which probability of another class on. matched: clean images for each of them.
    """

    filled: FilledRule
    confidence: float
    matched: int


Shares = tuple[Share, Share]
FILLED_SHARES = (
    "Of a class that each of two quantiles must reach for it to be filled: for most classes, for nearly all."
)
FILLED_QUANTILES = "Over the other classes, of the images that show them, at which these two shares are asked."


@dataclass(frozen=True)
class DiscriminationConfig:
    """How mislabelled images are chosen, and how the discriminator is trained.

    From the second pass on it learns from what the last one said, too: the lowest scores of the class as clean, or,
    after a round, the two modes of its score and the mislabelling odds.
    """

    filled_confidence: Annotated[Share, "From which a held-out prediction counts."] = 0.95
    filled_shares: Annotated[Shares, FILLED_SHARES] = (0.012, 0.012)
    filled_quantiles: Annotated[Shares, FILLED_QUANTILES] = (0.5, 0.125)
    mislabelled_confidence: Annotated[Share, "From which an image of a filled class is mislabelled."] = 0.8
    matched: Annotated[int, "Clean images for each mislabelled one."] = 3
    matched_limit: Annotated[int, "Clean images in all, at most."] = 4000
    contradiction_filled_confidence: Annotated[Share, "From which a purified model's contradiction counts."] = 0.5
    contradiction_filled_shares: Annotated[Shares, f"{FILLED_SHARES} By contradictions."] = (0.02, 0.0025)
    contradiction_filled_quantiles: Annotated[Shares, f"{FILLED_QUANTILES} By contradictions."] = (0.375, 0.125)
    contradiction_mislabelled_confidence: Annotated[Share, "The same by a purified model's contradictions."] = 0.3
    contradiction_matched: Annotated[int, "The same by a purified model's contradictions."] = 6
    outlier_share: Annotated[Share, "Of a class that must show one other class to have been put there."] = 0.02
    outlier_separation: Annotated[float, "How far these must lie off, Ashman's D of features."] = TWO_POPULATIONS
    discriminator_epochs: Annotated[Count, "Training of what tells mislabelled from clean images."] = 5
    discriminator_learning_rate: Annotated[Positive, "Highest of its training."] = 0.05
    discriminator_passes: Annotated[Count, "How often it is trained, each time by what the last one said."] = 2
    clean_share: Annotated[Share, "Of the class that counts as clean, by the last score."] = 0.3
    doubt_weight: Annotated[float, "Of the mislabelling odds beside the score, after a round."] = 0.75
    clean_posterior: Annotated[Share, "Of being mislabelled, up to which an image is clean, after a round."] = 0.1

    @property
    def of_heldout(self) -> MislabelledRule:
        """The rule for held-out predictions."""
        filled = FilledRule(self.filled_confidence, self.filled_shares, self.filled_quantiles)
        return MislabelledRule(filled, self.mislabelled_confidence, self.matched)

    @property
    def of_contradictions(self) -> MislabelledRule:
        """The rule for a purified model's contradictions."""
        shares, quantiles = self.contradiction_filled_shares, self.contradiction_filled_quantiles
        filled = FilledRule(self.contradiction_filled_confidence, shares, quantiles)
        return MislabelledRule(filled, self.contradiction_mislabelled_confidence, self.contradiction_matched)


def mislabelled(predictions: np.ndarray, labels: np.ndarray, label: int, rule: MislabelledRule) -> np.ndarray:
    """Return the indices of a class's images that surely show another class, by predictions (n, k); none if not filled.

    Where a class is filled most other classes send about as many; the images of its natural neighbours are left out.
    """
    members = np.flatnonzero(labels == label)
    if not rule.filled.holds(rule.filled.counts(predictions[members]), label, len(members)):
        return members[:0]
    sure = members[predictions[members].max(1) >= rule.confidence]
    shown = predictions[sure].argmax(1)
    counts = np.bincount(shown, minlength=predictions.shape[1])
    return sure[counts[shown] <= NEIGHBOUR * np.median(np.delete(counts, label))]


def outliers(
    features: np.ndarray, predictions: np.ndarray, labels: np.ndarray, label: int, config: DiscriminationConfig
) -> np.ndarray:
    """Return the indices of a class's images that surely show one other class and lie far off in features (n, d).

    So lies poison that is taken from a few classes only. Clean images that look like a neighbour's lie among their own:
    the model knows their label.
    """
    members = np.flatnonzero(labels == label)
    sure = predictions[members].max(1) >= config.filled_confidence
    shown, found = np.where(sure, predictions[members].argmax(1), -1), np.zeros(len(members), bool)
    for other in range(predictions.shape[1]):
        group = shown == other
        if group.sum() >= max(2.0, config.outlier_share * len(members)):
            found |= group & (fisher_separation(features[members], group, 2) >= config.outlier_separation)
    return members[found]


def lowest_are_clean(config: DiscriminationConfig) -> Refine:
    """Return what a pass learns next, of a class's members, their scores and the mislabelled among them, all (m,).

    The same images as mislabelled, and those with the lowest scores as clean.
    """

    def refine(members: np.ndarray, scores: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lowest = np.argsort(scores, kind="stable")[: int(config.clean_share * len(members))]
        return found, np.setdiff1d(members[lowest], found)

    return refine


def parted_by_odds(odds: np.ndarray, config: DiscriminationConfig) -> Refine:
    """Return what a pass learns next: the two modes of the scores and the mislabelling odds, (n,), together."""

    def refine(members: np.ndarray, scores: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        upper = two_modes(scores + config.doubt_weight * odds[members])[2]
        return members[upper >= 0.5], members[upper <= config.clean_posterior]

    return refine


def discriminate(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    found: Sequence[np.ndarray],
    refine: Refine,
    matched: int,
    config: DiscriminationConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """Return trigger scores, float32 (n,), and the classes that have them, bool (k,).

    shown: int64 (n,), what the images show. found: for each class the indices of its mislabelled images; where there
    are none, its scores are zero. matched: clean images for each of them, of the class that it shows.
    """
    scores = np.zeros(len(labels), np.float32)
    plain = TrainConfig(epochs=config.discriminator_epochs, learning_rate=config.discriminator_learning_rate)
    for label in [label for label, rows in enumerate(found) if len(rows)]:
        members, wrong, clean = np.flatnonzero(labels == label), found[label], found[label][:0]
        others = matching_images(labels, shown[wrong], min(matched, config.matched_limit / len(wrong)), generator)
        for index in range(config.discriminator_passes):
            if index:
                wrong, clean = refine(members, scores[members], wrong)
            targets = np.zeros(len(labels), np.int64)
            targets[wrong] = 1
            rows = np.concatenate([wrong, clean, others])
            discriminator = fresh(model, generator)
            train(discriminator, images, targets, plain, generator=generator, device=device, rows=rows)
            said = logits(discriminator, images, device, rows=members)
            scores[members] = (said[:, 1] - said[:, 0]).numpy()
    return scores, np.array([len(rows) > 0 for rows in found])


def matching_images(labels: np.ndarray, shown: np.ndarray, each: float, generator: torch.Generator) -> np.ndarray:
    """Return indices of images that are labelled as mislabelled ones show, (m,), ``each`` times as many of a class."""
    chosen = []
    for label, count in enumerate(np.bincount(shown)):
        pool = np.flatnonzero(labels == label)
        drawn = torch.randperm(len(pool), generator=generator)[: math.ceil(each * count)]
        chosen.append(pool[drawn.numpy()])
    return np.concatenate(chosen)
