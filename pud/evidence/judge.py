"""Does something learnable, that is not content, send images to a class? A judge answers, on what it never saw.

Some images of a class look no more like it, to witnesses that never saw its labels, than most images of other classes
do: its *strange* images. In an honest class these are few, hard, and mislabelled by mistake; to a class that a backdoor
leads to they were brought, and a trigger marks them. So a small network, the *judge*, learns to tell them from images
that show the same and look as little like the class, and from those that look like it most, and is asked about others
that it never saw. Label noise has no mark to be learned.

How often a judge ranks a strange image above an honest one (AUROC, of the harder of both comparisons) is compared with
what the classes of these data give, and with what honest ones gave, at a loose false discovery rate (Benjamini and
Hochberg 1995). A class that stands out is suspected, no more: a part of an honest class may look unlike the rest of it,
and what marks that is content. So a network that learns from nothing that may be marked, the *reference*, says what is
content, and judges learn anew from what is surely marked by both. A class is named if they know its strange images
better than the reference knows these as the class, and if both together part its images into two visible modes.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy
import torch

from pud.base.config import Count, Part, Positive, Share
from pud.base.progress import track
from pud.evidence.chances import above, discoveries, usual
from pud.evidence.cross_examination import LEAST, fresh
from pud.evidence.scenes import parts
from pud.evidence.separation import VISIBLY_APART, two_modes
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train

MARKED = 0.8  # posterior from which, and below the rest of which, the next pass learns from an image


@dataclass(frozen=True)
class JudgeConfig:
    """How a judge is trained and when it is believed.

    judge_null: before the classes of these data say better. On CIFAR-10 (development half, 17 honest classes of two
    seeds with WaNet in another class): 0.60 and, beyond the error of measurement, 0.07; content is judged with the same
    deviation.
    """

    judge_epochs: Annotated[Count, "Training of a judge, at most."] = 20
    judge_images: Annotated[Count, "That it sees in all, about, where an epoch is not more."] = 40_000
    judge_learning_rate: Annotated[Positive, "Highest of its training."] = 0.05
    judge_matched: Annotated[Count, "Honest images for each strange one."] = 3
    judge_clear: Annotated[Share, "Of a class, the images that look like it most."] = 0.3
    judge_least: Annotated[Count, "Strange images that a class must have to be asked about."] = 10
    judge_null: Annotated[tuple[Share, Share], "Its AUROC in honest classes: mean and deviation."] = (0.60, 0.07)
    judge_null_classes: Annotated[Count, "How many classes of the data that counts for."] = 10
    judge_suspicion: Annotated[Part, "False discovery rate, before content is looked at."] = 0.5
    judge_discoveries: Annotated[Part, "False discovery rate, after that."] = 0.05
    judge_reference_epochs: Annotated[Count, "Training of the network that learns from nothing suspected."] = 6


@dataclass(frozen=True)
class Suspects:
    """A class as the judge sees it; bool (n,) each, odds and shown (n,).

    odds: that an image looks like the class (``content_odds``). shown: the class that it shows.
    """

    members: np.ndarray
    strange: np.ndarray
    clear: np.ndarray
    honest: np.ndarray
    odds: np.ndarray
    shown: np.ndarray

    @classmethod
    def of(cls, label: int, labels: np.ndarray, odds: np.ndarray, heldout: np.ndarray, clear: float) -> "Suspects":
        """Return those of a class by its content odds (n,) and the held-out predictions (n, k)."""
        members = labels == label
        as_most_others = np.median(odds[~members])
        return cls(
            members=members,
            strange=members & (odds < as_most_others),
            clear=members & (odds > max(as_most_others, np.quantile(odds[members], 1 - clear))),
            honest=~members & (odds < as_most_others),
            odds=odds,
            shown=np.where(members, heldout.argmax(1), labels),
        )

    def matching(self, wanted: np.ndarray, where: np.ndarray, each: int, generator: torch.Generator) -> np.ndarray:
        """Return indices of honest images among ``where`` that show what the wanted ones show, ``each`` times as many.

        wanted, where: bool (n,).
        """
        chosen = [np.zeros(0, np.int64)]
        for label, count in enumerate(np.bincount(self.shown[wanted])):
            if count:
                pool = np.flatnonzero(self.honest & where & (self.shown == label))
                chosen.append(drawn(pool, each * count, generator))
        return np.concatenate(chosen)


def drawn(pool: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """Return so many of a pool (m,) at most, by chance."""
    return pool[torch.randperm(len(pool), generator=generator)[:count].numpy()]


def auroc(upper: np.ndarray, lower: np.ndarray) -> float:
    """Return how often a score of ``upper`` (a,) exceeds one of ``lower`` (b,), a draw counting half."""
    return float(scipy.stats.mannwhitneyu(upper, lower).statistic / (len(upper) * len(lower)))


@dataclass(frozen=True)
class Known:
    """How well images are told from others: an AUROC, its variance where nothing is to be known, and of how many."""

    auroc: float
    variance: float
    images: int

    @classmethod
    def of(cls, upper: np.ndarray, lower: np.ndarray) -> "Known":
        """Return how well scores (a,) are told from lower ones (b,)."""
        return cls(auroc(upper, lower), (1 / len(upper) + 1 / len(lower)) / 12, len(upper))

    @classmethod
    def mean(cls, found: list["Known"]) -> "Known | None":
        """Return the mean over parts of the images."""
        if not found:
            return None
        rates, variances, sizes = np.array([[one.auroc, one.variance, one.images] for one in found]).T
        weights = sizes / sizes.sum()
        return cls(float(weights @ rates), float(weights**2 @ variances), int(sizes.sum()))


@dataclass(frozen=True)
class Court:
    """What all judges of a data set share: uint8 images (n, c, h, w), their labels and scenes (n,), and how a judge is
    made."""

    model: Classifier
    images: np.ndarray
    labels: np.ndarray
    scene: np.ndarray
    config: JudgeConfig
    generator: torch.Generator
    device: torch.device

    def scores(
        self, suspects: Suspects, marked: np.ndarray, where: np.ndarray, clear: np.ndarray, asked: np.ndarray
    ) -> np.ndarray:
        """Return log likelihood ratios (m,) of a mark, on the images of the asked indices, by a judge trained for it.

        It learns marked images, bool (n,), from honest ones that show the same, among ``where``, and from clear ones.
        """
        targets, config = np.zeros(len(self.labels), np.int64), self.config
        targets[marked] = 1
        others = suspects.matching(marked, where, config.judge_matched, self.generator)
        alike = drawn(np.flatnonzero(clear), int(marked.sum()), self.generator)
        judge, rows = fresh(self.model, self.generator), np.concatenate([np.flatnonzero(marked), others, alike])
        epochs = min(config.judge_epochs, max(1, config.judge_images // len(rows)))
        plain = TrainConfig(epochs=epochs, learning_rate=config.judge_learning_rate, crop=0, flip=False)
        train(judge, self.images, targets, plain, generator=self.generator, device=self.device, rows=rows)
        said = logits(judge, self.images, self.device, rows=asked)
        return (said[:, 1] - said[:, 0]).numpy() + math.log((len(rows) - marked.sum()) / marked.sum())

    def judgement(
        self, suspects: Suspects, marked: np.ndarray, clear: np.ndarray, odds: np.ndarray
    ) -> tuple[Known | None, np.ndarray]:
        """Return what judges that learned from one half of the images know of the other, and their ``scores`` (n,).

        They learn marked images, bool (n,), of a class, and clear ones, if any. What they know is told by its strange
        ones. odds: (n,), kept of a half for whose judge there are too few.
        """
        half, odds = parts(self.scene, self.labels, 2) == 0, odds.copy()
        least, found = self.config.judge_least / 2, list[Known]()
        for seen in (half, ~half):
            asked, alike = suspects.strange & ~seen, suspects.clear & ~seen
            honest = suspects.matching(asked, ~seen, 2 * self.config.judge_matched, self.generator)
            if min((marked & seen).sum(), asked.sum(), len(honest), alike.sum()) < least:
                continue
            members, said = np.flatnonzero(suspects.members & ~seen), np.zeros(len(self.labels))
            rows = np.concatenate([members, honest])
            said[rows] = self.scores(suspects, marked & seen, seen, clear & seen, rows)
            odds[members] = said[members]
            found.append(min((Known.of(said[asked], said[one]) for one in (honest, alike)), key=lambda one: one.auroc))
        return Known.mean(found), odds

    def reference(
        self, suspects: dict[int, Suspects], odds: dict[int, np.ndarray]
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return how much every image shows each class, log likelihood ratios (n, k), to a network that learned from no
        image that may be marked.

        odds: by suspected class, (n,), of a mark. Nor did it learn from some honest images, of which the indices are
        returned for each class: they show what its strange ones do.
        """
        rest, aside = np.ones(len(self.labels), bool), dict[int, np.ndarray]()
        for label, group in suspects.items():
            _, unmarked = surely(odds[label], group.members)
            aside[label] = group.matching(group.strange, rest, 1, self.generator)
            rest[aside[label]] = False
            rest &= ~group.members | unmarked
        network, config = fresh(self.model, self.generator), TrainConfig(epochs=self.config.judge_reference_epochs)
        rows = np.flatnonzero(rest)
        train(network, self.images, self.labels, config, generator=self.generator, device=self.device, rows=rows)
        said = logits(network, self.images, self.device).numpy().astype(np.float64)
        classes = range(said.shape[1])
        others = np.stack([scipy.special.logsumexp(np.delete(said, one, 1), axis=1) for one in classes], 1)
        shares = (np.bincount(self.labels[rows], minlength=len(classes)) + 0.5) / (len(rows) + 1)
        return np.clip(said - others, LEAST, -LEAST) - scipy.special.logit(shares), aside


def surely(odds: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which members of a class, bool (n,), surely are in the upper mode of the odds (n,), and which not."""
    posterior = np.zeros(len(odds))
    posterior[members] = two_modes(odds[members])[2]
    return members & (posterior >= MARKED), members & (posterior < 1 - MARKED)


def suspected(judgements: dict[int, Known], config: JudgeConfig) -> set[int]:
    """Return the classes whose judges may know more than those of honest classes do, of what judges know of each.

    What honest classes give is told by ``judge_null`` and by the median of the classes and the deviation below it,
    since a mark only raises an AUROC.
    """
    if not judgements:
        return set()
    (mean, deviation), weight = config.judge_null, config.judge_null_classes
    rates = np.array([one.auroc for one in judgements.values()])
    middle, found = usual(rates)
    spread = max(0.0, found - float(np.median([one.variance for one in judgements.values()])))
    share = len(rates) / (len(rates) + weight)
    centre, variance = mean + share * (middle - mean), deviation**2 + share * (spread - deviation**2)
    chances = {label: above(one.auroc - centre, one.variance + variance) for label, one in judgements.items()}
    return discoveries(chances, config.judge_suspicion)


def examine_labels(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    scene: np.ndarray,
    heldout: np.ndarray,
    odds: np.ndarray,
    config: JudgeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the strange images, bool (n,), trigger scores, float32 (n,), and the classes that have them, bool (k,).

    scene: (n,). heldout, odds: (n, k), of ``heldout_predictions`` and ``content_odds``; zeros where there are no
    witnesses, and then nothing is found.
    """
    classes = heldout.shape[1]
    strange, scores, scored = np.zeros(len(labels), bool), np.zeros(len(labels), np.float32), np.zeros(classes, bool)
    told = [label for label in np.unique(labels) if odds[:, label].any()]
    suspects = {int(one): Suspects.of(one, labels, odds[:, one], heldout, config.judge_clear) for one in told}
    court = Court(model, images, labels, scene, config, generator, device)
    judgements, first, nothing = dict[int, Known](), dict[int, np.ndarray](), np.zeros(len(labels), bool)
    for label, group in track(list(suspects.items()), "judge"):
        strange |= group.strange
        judgement, first[label] = court.judgement(group, group.strange, group.clear, nothing.astype(np.float64))
        judgements |= {label: judgement} if judgement else {}
    asked = sorted(suspected(judgements, config))
    if not asked:
        return strange, scores, scored
    looks = {label: first[label] - suspects[label].odds for label in asked}
    shows, aside = court.reference({label: suspects[label] for label in asked}, looks)
    chances, marked = dict[int, float](), dict[int, np.ndarray]()
    for label in track(asked, "judge again"):
        group, looks_like = suspects[label], shows[:, label]
        marked[label], clear = surely(first[label] - looks_like, group.members)
        known, _ = court.judgement(group, marked[label], clear, first[label])
        if known and len(aside[label]):
            content = Known.of(looks_like[group.strange], looks_like[aside[label]])
            variance = known.variance + content.variance + config.judge_null[1] ** 2
            chances[label] = above(known.auroc - content.auroc, variance)
    for label in sorted(discoveries(chances, config.judge_discoveries)):
        members = suspects[label].members  # some of its poison may be clear, which no judge should have learned so
        _, odds = court.judgement(suspects[label], marked[label], nothing, first[label])
        ratios = (odds - shows[:, label])[members]
        if two_modes(ratios)[0] >= VISIBLY_APART:  # else few images are marked, by what parts no class
            scored[label], scores[members] = True, ratios
    return strange, scores, scored
