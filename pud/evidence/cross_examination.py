"""What an image shows, whatever its label says: the evidence against triggers of every kind that change labels.

Ours, beyond the paper. A trigger that survives perturbation betrays itself by surviving; a fragile one, or one whose
maker knows that cue, does not. But an image that was stolen from another class still shows what it is:

1. *Cross-examination*: the classes are split in two, at random, until every two were apart, and a small model is
   trained on each half. No model that never saw a label can know the trigger that leads to it, so it says what the
   image shows.
2. The images of an honest class look like a few neighbours (sandals like sneakers). A class whose images look, beyond
   doubt, like *most* other classes was filled from them: a quantile over the other classes of the count is its test.
   Poison from a few classes only fills nothing, but it lies far off in the infected model's features, while honest
   images that look like a neighbour lie among their own: Ashman's D is its test.
3. *Discrimination*: a model learns to tell these intruders from images that show the same and are labelled so. What
   they share is the trigger, and its score then ranks the whole class.

After a round a better witness is there: the purified model, which most often says what a poisoned image shows. Where it
contradicts the label, classes are found that were filled by too few for the witnesses, and the judge learns from many
more intruders, and sees triggers that are too faint for a few. Its scores and the model's intruder odds part the
class in two, and a second judge learns from both parts.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy.special
import torch
from torch import Tensor

from pud.base.config import Count, Positive, Range, Share
from pud.detectors.pud import DetectConfig, fisher_separation, is_filled, sent_by_others, two_modes
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train


@dataclass(frozen=True)
class ContentConfig:
    """How content is examined.

    splits: how often the classes are halved at least, 0 for never, if there are ``minimum_classes``: among few,
    neighbours are most.
    witness_epochs, witness_mix_level, witness_noise_level: training of a half's model and how strongly its images
    are disturbed. filled_confidence: of the votes that are counted; filled_share: of the class, for each of
    ``filled_quantiles``, that the votes for the other classes must reach in one of these for it to be held to be
    filled (most of the others, or nearly all). vote_confidence: from which an image of a filled class is an
    intruder. outsider_share: of a class, that must show one other class for these to be held to be put there if
    they lie ``outsider_separation`` (Ashman's D in features) from the rest. matched: honest images for each
    intruder. contradiction_...: these five for a purified model's contradictions in the place of votes.
    matched_limit: of honest images in all. judge_epochs, judge_learning_rate: of the model that tells intruders and
    honest images apart, trained ``judgements`` times, from the second on with the lowest ``innocent_share`` of the
    class as honest too. After a round, from the second judgement on, intruders are those in the upper mode of the
    last score and ``doubt_weight`` times the intruder odds, with a doubt of at most ``doubt_limit``, honest too
    those that are in it with a probability of at most ``innocence``.
    """

    splits: Annotated[int, Range(0, 16, "from 0 to 16")] = 4
    minimum_classes: int = 8
    witness_epochs: Count = 2
    witness_mix_level: Share = 0.5
    witness_noise_level: float = 0.3
    filled_confidence: Share = DetectConfig.filled_confidence
    filled_share: tuple[Share, Share] = DetectConfig.filled_share
    filled_quantiles: tuple[Share, Share] = DetectConfig.filled_quantiles
    vote_confidence: Share = 0.8
    outsider_share: Share = 0.02
    outsider_separation: float = DetectConfig.separation
    matched: int = 3
    matched_limit: int = 4000
    judge_epochs: Count = 5
    judgements: Count = 2
    innocent_share: Share = 0.3
    judge_learning_rate: Positive = 0.05
    contradiction_filled_confidence: Share = DetectConfig.contradiction_filled_confidence
    contradiction_filled_share: tuple[Share, Share] = DetectConfig.contradiction_filled_share
    contradiction_filled_quantiles: tuple[Share, Share] = DetectConfig.contradiction_filled_quantiles
    contradiction_vote_confidence: Share = 0.3
    contradiction_matched: int = 6
    doubt_weight: float = 0.75
    doubt_limit: float = DetectConfig.doubt_limit
    innocence: Share = 0.1

    def of_contradictions(self) -> "ContentConfig":
        """Return how intruders are told by the contradictions of a purified model."""
        return dataclasses.replace(
            self,
            filled_confidence=self.contradiction_filled_confidence,
            filled_share=self.contradiction_filled_share,
            filled_quantiles=self.contradiction_filled_quantiles,
            vote_confidence=self.contradiction_vote_confidence,
            matched=self.contradiction_matched,
        )


def fresh(model: Classifier, generator: torch.Generator) -> Classifier:
    """Return an untrained model of the same kind."""
    return model.rebuild(int(torch.randint(2**31, (1,), generator=generator)))


def disturb(images: Tensor, config: ContentConfig, generator: torch.Generator) -> Tensor:
    """Return images (n, c, h, w) with another one shining through and noise, each as strong as chance wants.

    Whatever a trigger does to an image, a model that learned under disturbance still sees what it shows.
    """
    strength = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    others = images[torch.randperm(len(images), generator=generator)]
    mixed = images + config.witness_mix_level * strength[0] * (others - images)
    noise = torch.randn(images.shape, generator=generator)
    return (mixed + config.witness_noise_level * strength[1] * noise).clamp_(0, 1)


def halvings(classes: int, least: int, generator: torch.Generator) -> Tensor:
    """Return random halvings of the classes, bool (splits, classes), which part every pair of classes at least once.

    A halving is a digit of the classes' codes, which are all different; with each code its complement is another
    class's, so that the halves are equal. There are as many as the codes need, and no fewer than ``least``.
    """
    digits = max(least, (classes - 1).bit_length())
    codes = torch.randperm(2 ** (digits - 1), generator=generator)[: (classes + 1) // 2]
    codes = torch.cat([codes, 2**digits - 1 - codes])[torch.randperm(len(codes) * 2, generator=generator)[:classes]]
    return (codes >> torch.arange(digits)[:, None]) % 2 == 1


def cross_examine(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: ContentConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> np.ndarray:
    """Return votes, float32 (n, k): the mean probability of each class by models that never saw the given label.

    Zero for the given label, and everywhere with too few classes.
    """
    classes = model.head.out_features
    if not config.splits or classes < config.minimum_classes:
        return np.zeros((len(labels), classes), np.float32)

    def hide(x: Tensor) -> Tensor:
        return disturb(x, config, generator)

    votes = np.zeros((len(labels), classes), np.float32)
    witnesses = np.zeros_like(votes)
    for half in halvings(classes, config.splits, generator).numpy():
        for known in (np.flatnonzero(half), np.flatnonzero(~half)):
            inside = np.isin(labels, known)
            if not inside.any() or inside.all():
                continue
            witness = fresh(model, generator)
            plain = TrainConfig(epochs=config.witness_epochs)
            train(witness, images[inside], labels[inside], plain, generator=generator, device=device, augment=hide)
            said = logits(witness, images[~inside], device)[:, known].softmax(1).numpy()
            votes[np.ix_(~inside, known)] += said
            witnesses[np.ix_(~inside, known)] += 1
    return votes / np.maximum(witnesses, 1)


def contradictions(said: np.ndarray, labels: np.ndarray, config: ContentConfig) -> np.ndarray:
    """Return votes, float32 (n, k): what a purified model said (its logits, (n, k)) where it contradicts the label.

    Zero where it agrees, and everywhere with too few classes, as in ``cross_examine``.
    """
    contradicted = (said.argmax(1) != labels) & (said.shape[1] >= config.minimum_classes)
    return np.where(contradicted[:, None], scipy.special.softmax(said, axis=1), 0).astype(np.float32)


def intruders(votes: np.ndarray, labels: np.ndarray, label: int, config: ContentConfig) -> np.ndarray:
    """Return the indices of a class's images that show another class beyond doubt; empty for an honest class.

    Where a class is filled, most other classes send about equally many: those with more than 1.5 times the
    median are its natural neighbours, whose images are left out.
    """
    shows = votes.argmax(1)

    def beyond(confidence: float) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero((labels == label) & (votes.max(1) >= confidence))
        return rows, np.bincount(shows[rows], minlength=votes.shape[1])

    _, counts = beyond(config.filled_confidence)
    size = int((labels == label).sum())
    if not is_filled(counts, label, size, config.filled_quantiles, config.filled_share):
        return np.empty(0, np.int64)
    doubtless, counts = beyond(config.vote_confidence)
    return doubtless[counts[shows[doubtless]] <= 1.5 * sent_by_others(counts, label)]


def outsiders(
    features: np.ndarray, votes: np.ndarray, labels: np.ndarray, label: int, config: ContentConfig
) -> np.ndarray:
    """Return the indices of a class's images that show one other class beyond doubt and lie far off in features (n, d).

    So lies poison that is taken from a few classes only, which does not fill a class. Honest images that look like a
    neighbour's lie among their own: the model knows their label.
    """
    members = np.flatnonzero(labels == label)
    shown = np.where(votes[members].max(1) >= config.filled_confidence, votes[members].argmax(1), -1)
    found = np.zeros(len(members), bool)
    for other in range(votes.shape[1]):
        group = shown == other
        if group.sum() >= max(2.0, config.outsider_share * len(members)):
            found |= group & (fisher_separation(features[members], group, 2) >= config.outsider_separation)
    return members[found]


def discriminate(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    votes: np.ndarray,
    config: ContentConfig,
    *,
    features: np.ndarray | None = None,
    generator: torch.Generator,
    device: torch.device,
    odds: np.ndarray | None = None,
) -> np.ndarray:
    """Return the trigger score, float32 (n,): log odds of an intruder against honest images; NaN in honest classes.

    features: (n, d), of the infected model, to find outsiders by. odds: (n,), a purified model's intruder odds
    (pud.detectors.pud): with the last score they part a class in two.
    """
    scores = np.full(len(labels), np.nan, np.float32)
    shows = votes.argmax(1)
    for label in range(votes.shape[1]):
        suspects = intruders(votes, labels, label, config)
        if not len(suspects) and features is not None:
            suspects = outsiders(features, votes, labels, label, config)
        if not len(suspects):
            continue
        matched = min(config.matched, config.matched_limit / len(suspects))
        honest = []
        for shown, count in enumerate(np.bincount(shows[suspects], minlength=votes.shape[1])):
            pool = np.flatnonzero(labels == shown)
            chosen = torch.randperm(len(pool), generator=generator)[: math.ceil(matched * count)]
            honest.append(pool[chosen.numpy()])
        members = np.flatnonzero(labels == label)
        innocent = np.empty(0, np.int64)
        for judgement in range(config.judgements):
            if judgement and odds is not None:
                upper = two_modes(scores[members] + config.doubt_weight * odds[members])[2]
                suspects, innocent = members[upper >= 0.5], members[upper <= config.innocence]
            elif judgement:
                lowest = np.argsort(scores[members], kind="stable")[: int(config.innocent_share * len(members))]
                innocent = np.setdiff1d(members[lowest], suspects)
            rows = np.concatenate([suspects, innocent, *honest])
            guilty = (np.arange(len(rows)) < len(suspects)).astype(np.int64)
            judge = fresh(model, generator)
            plain = TrainConfig(epochs=config.judge_epochs, learning_rate=config.judge_learning_rate)
            train(judge, images[rows], guilty, plain, generator=generator, device=device)
            said = logits(judge, images[members], device)
            scores[members] = (said[:, 1] - said[:, 0]).numpy()
    return scores
