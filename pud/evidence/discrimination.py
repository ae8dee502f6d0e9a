"""How much an image looks like those that were put into its class: a small model learns what they share, the trigger.

After a round the purified model contradicts the labels of mislabelled images. A clean class looks like a few neighbours
(sandals like sneakers); one that was filled with images of other classes shows most of them: so says ``FilledRule``.
A discriminator learns to tell these *mislabelled* images from clean ones that show the same, and its log odds, the
trigger score, then rank the whole class. Before a round a judge does the same (``pud/evidence/judge.py``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from pud.base.config import Count, Positive, Share
from pud.evidence.contract import FilledRule
from pud.evidence.cross_examination import fresh
from pud.evidence.separation import two_modes
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train

NEIGHBOUR = 1.5  # times the median over the other classes: a class that more images show is a natural neighbour


@dataclass(frozen=True)
class MislabelledRule:
    """Which images of a filled class are held to be mislabelled.

    confidence: from which probability of another class on.
    """

    filled: FilledRule
    confidence: float


Shares = tuple[Share, Share]
FILLED_SHARES = (
    "Of a class that each of two quantiles must reach for it to be filled: for most classes, for nearly all."
)
FILLED_QUANTILES = "Over the other classes, of the images that show them, at which these two shares are asked."


@dataclass(frozen=True)
class DiscriminationConfig:
    """How mislabelled images are chosen, and how the discriminator is trained.

    From the second pass on it learns from the two modes of its last score and the mislabelling odds.
    """

    matched_limit: Annotated[int, "Clean images in all, at most."] = 4000
    contradiction_filled_confidence: Annotated[Share, "From which a purified model's contradiction counts."] = 0.5
    contradiction_filled_shares: Annotated[Shares, FILLED_SHARES] = (0.02, 0.0025)
    contradiction_filled_quantiles: Annotated[Shares, FILLED_QUANTILES] = (0.375, 0.125)
    contradiction_mislabelled_confidence: Annotated[Share, "From which one is mislabelled."] = 0.3
    contradiction_matched: Annotated[int, "Clean images for each mislabelled one."] = 6
    discriminator_epochs: Annotated[Count, "Training of what tells mislabelled from clean images."] = 5
    discriminator_learning_rate: Annotated[Positive, "Highest of its training."] = 0.05
    discriminator_passes: Annotated[Count, "How often it is trained, each time by what the last one said."] = 2
    doubt_weight: Annotated[float, "Of the mislabelling odds beside the score, after a round."] = 0.75
    clean_posterior: Annotated[Share, "Of being mislabelled, up to which an image is clean, after a round."] = 0.1

    @property
    def of_contradictions(self) -> MislabelledRule:
        """The rule for a purified model's contradictions."""
        shares, quantiles = self.contradiction_filled_shares, self.contradiction_filled_quantiles
        filled = FilledRule(self.contradiction_filled_confidence, shares, quantiles)
        return MislabelledRule(filled, self.contradiction_mislabelled_confidence)


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


def discriminate(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    found: Sequence[np.ndarray],
    odds: np.ndarray,
    config: DiscriminationConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """Return trigger scores, float32 (n,), and the classes that have them, bool (k,).

    shown: int64 (n,), what the images show. found: for each class the indices of its mislabelled images; where there
    are none, its scores are zero. odds: (n,), that an image is mislabelled.
    """
    scores = np.zeros(len(labels), np.float32)
    plain = TrainConfig(epochs=config.discriminator_epochs, learning_rate=config.discriminator_learning_rate)
    for label in [label for label, rows in enumerate(found) if len(rows)]:
        members, wrong, clean = np.flatnonzero(labels == label), found[label], found[label][:0]
        each = min(config.contradiction_matched, config.matched_limit / len(wrong))
        others = matching_images(labels, shown[wrong], each, generator)
        for index in range(config.discriminator_passes):
            if index:
                upper = two_modes(scores[members] + config.doubt_weight * odds[members])[2]
                wrong, clean = members[upper >= 0.5], members[upper <= config.clean_posterior]
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
