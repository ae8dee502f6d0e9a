"""Does something learnable, that is not content, send images to a class? A judge answers, on what it never saw.

Some images of a class look no more like it, to witnesses that never saw its labels, than most images of other classes
do: its *strange* images. In an honest class these are few, hard, and mislabelled by mistake; to a class that a backdoor
leads to they were brought, and a trigger marks them. So a small network, the *judge*, learns to tell them from images
that show the same and look as little like the class, and from those that look like it most. It is asked about strange
images of source classes that it never saw, and about others of those that it saw. Label noise has no mark to be
learned; what is content shows more clearly in the images that look like the class than in the strange ones.

How often a judge ranks a strange image above an honest one (AUROC, of the harder of both comparisons) is compared with
what the other classes of the same data give: an empirical null (Efron 2004), with the false discovery rate over all
classes held (Benjamini and Hochberg 1995). It must know both, images and source classes that it never saw; where most
strange images are from one source, as when a trigger acts on that alone, images.

A part of an honest class may look unlike the rest of it and be strange. So a network that learns from nothing that may
be marked, the *reference*, is asked too: what it knows as the class, better than judges know a mark, is content. In a
class that is left, judges and reference part poison from what was there.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy
import torch

from pud.base.config import Count, Part, Positive, Share
from pud.base.progress import track
from pud.evidence.cross_examination import LEAST, fresh, parts
from pud.evidence.separation import two_modes
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train

SOURCES, IMAGES = "sources", "images"  # what a judge never saw
MARKED = 0.8  # posterior from which, and below the rest of which, the next pass learns from an image
MEDIAN_OF_HALF_NORMAL = 0.6745  # in standard deviations


@dataclass(frozen=True)
class JudgeConfig:
    """How a judge is trained and when it is believed.

    judge_null: before the classes of these data say better. On CIFAR-10 (development half, 17 honest classes of two
    seeds with WaNet in another class): 0.60 and, beyond the error of measurement, 0.07.
    """

    judge_epochs: Annotated[Count, "Training of a judge, at most."] = 20
    judge_images: Annotated[Count, "That it sees in all, about, where an epoch is not more."] = 40_000
    judge_learning_rate: Annotated[Positive, "Highest of its training."] = 0.05
    judge_matched: Annotated[Count, "Honest images for each strange one."] = 3
    judge_clear: Annotated[Share, "Of a class, the images that look like it most."] = 0.3
    judge_least: Annotated[Count, "Strange images that a class must have to be asked about."] = 10
    judge_null: Annotated[tuple[Share, Share], "Its AUROC in honest classes: mean and deviation."] = (0.60, 0.07)
    judge_null_classes: Annotated[Count, "How many classes of the data that counts for."] = 10
    judge_discoveries: Annotated[Part, "False discovery rate, before content is looked at."] = 0.05
    judge_reference_epochs: Annotated[Count, "Training of the network that learns from nothing accused."] = 6
    judge_passes: Annotated[Count, "How often the images of an accused class are parted anew."] = 2


@dataclass(frozen=True)
class Judgement:
    """What a judge knew of a class: ``unseen``, its AUROC and the standard error of that at no mark at all."""

    label: int
    unseen: str
    auroc: float
    error: float


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
class Court:
    """What all judges of a data set share: uint8 images (n, c, h, w), their labels (n,), and how a judge is made."""

    model: Classifier
    images: np.ndarray
    labels: np.ndarray
    config: JudgeConfig
    generator: torch.Generator
    device: torch.device

    def scores(
        self, suspects: Suspects, marked: np.ndarray, where: np.ndarray, clear: np.ndarray, asked: np.ndarray
    ) -> np.ndarray:
        """Return the log odds (m,) of a mark, on the images of the asked indices, by a judge that is trained for it.

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
        return (said[:, 1] - said[:, 0]).numpy()

    def of_images(self, label: int, suspects: Suspects) -> tuple[Judgement | None, np.ndarray]:
        """Return what judges that learned from one half of the images know of the other, and their log odds (n,)."""
        half, odds = parts(self.labels, 2) == 0, np.zeros(len(self.labels))
        return self.judgement(label, IMAGES, suspects, half, half, odds), odds

    def of_sources(self, label: int, suspects: Suspects) -> Judgement | None:
        """Return what judges that learned from some source classes know of the others; None where they are too few, or
        most strange images are from one: a trigger may act on that alone."""
        counts = np.bincount(suspects.shown[suspects.strange], minlength=1 + suspects.shown.max())
        if counts.max() > counts.sum() / 2:
            return None
        place = np.argsort(np.argsort(-counts, kind="stable"))
        by_source = np.isin(place % 4, (0, 3))[suspects.shown]  # the largest source here, the next two there, and so on
        return self.judgement(label, SOURCES, suspects, by_source, parts(self.labels, 2) == 0)

    def judgement(
        self,
        label: int,
        unseen: str,
        suspects: Suspects,
        side: np.ndarray,
        half: np.ndarray,
        odds: np.ndarray | None = None,
    ) -> Judgement | None:
        """Return what judges know of strange images that learned from those on the other side, bool (n,).

        half: the same of what looks like the class. odds: (n,), written for what no judge saw of the class.
        """
        least, results = self.config.judge_least / 2, []
        for learned, seen in ((side, half), (~side, ~half)):
            asked = suspects.strange & ~learned
            clear = suspects.clear & ~seen
            honest = suspects.matching(asked, ~learned, 2 * self.config.judge_matched, self.generator)
            if min((suspects.strange & learned).sum(), asked.sum(), len(honest), clear.sum()) < least:
                continue
            members = np.flatnonzero(asked | clear if odds is None else suspects.members & ~seen)
            said = np.zeros(len(self.labels))
            rows = np.concatenate([members, honest])
            said[rows] = self.scores(suspects, suspects.strange & learned, learned, suspects.clear & seen, rows)
            if odds is not None:
                odds[members] = said[members]
            upper, lower = said[asked], [said[honest], said[clear]]
            variance = (1 / len(upper) + 1 / min(map(len, lower))) / 12  # of an AUROC where nothing is to be known
            results.append((len(upper), min(auroc(upper, one) for one in lower), variance))
        if not results:
            return None
        sizes, rates, variances = map(np.array, zip(*results, strict=True))
        weights = sizes / sizes.sum()
        return Judgement(label, unseen, float(weights @ rates), float(np.sqrt(weights**2 @ variances)))

    def reference(
        self, suspects: dict[int, Suspects], odds: dict[int, np.ndarray]
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return the content log odds (n, k) of a network that learned from no image that may be marked.

        odds: by accused class, (n,), of a mark. Nor did it learn from some honest images, of which the indices are
        returned for each class: they show what its marked ones do.
        """
        rest, aside = np.ones(len(self.labels), bool), dict[int, np.ndarray]()
        for label, group in suspects.items():
            marked, unmarked = surely(odds[label], group.members)
            aside[label] = group.matching(marked, rest, 1, self.generator)
            rest[aside[label]] = False
            rest &= ~group.members | unmarked
        network, config = fresh(self.model, self.generator), TrainConfig(epochs=self.config.judge_reference_epochs)
        rows = np.flatnonzero(rest)
        train(network, self.images, self.labels, config, generator=self.generator, device=self.device, rows=rows)
        said = logits(network, self.images, self.device).numpy().astype(np.float64)
        others = np.stack([scipy.special.logsumexp(np.delete(said, one, 1), axis=1) for one in range(said.shape[1])], 1)
        return np.clip(said - others, LEAST, -LEAST), aside

    def parted(self, suspects: Suspects, odds: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return log odds (n,) that the members of an accused class bear its mark, by judges that learned from others.

        What these odds (n,), less how much an image looks like the class to the reference, known (n,), say is surely
        marked, and surely not, is learned from in the next pass.
        """
        half, odds = parts(self.labels, 2) == 0, odds.copy()
        for _ in range(1, self.config.judge_passes):
            marked, clear = surely(odds - known, suspects.members)
            for seen in (half, ~half):
                if (marked & seen).any() and (clear & seen).any():
                    asked = np.flatnonzero(suspects.members & ~seen)
                    odds[asked] = self.scores(suspects, marked & seen, seen, clear & seen, asked)
        return odds


def surely(odds: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which members of a class, bool (n,), surely are in the upper mode of the odds (n,), and which not."""
    posterior = np.zeros(len(odds))
    posterior[members] = two_modes(odds[members])[2]
    return members & (posterior >= MARKED), members & (posterior < 1 - MARKED)


def discoveries(judgements: list[Judgement], config: JudgeConfig) -> set[int]:
    """Return the classes whose judges know more than those of honest classes do, of all that they never saw.

    What honest classes give is told by ``judge_null`` and, in turn, by the classes that are not discovered: at first by
    none, so that marks in most classes do not hide each other.
    """
    found = {one.label for one in judgements}
    for _ in range(len(judgements)):
        chances = dict[int, float]()
        for kind in (SOURCES, IMAGES):
            asked = [one for one in judgements if one.unseen == kind]
            centre, variance = null([one for one in asked if one.label not in found], config)
            for one in asked:
                tail = scipy.stats.norm.sf((one.auroc - centre) / math.sqrt(one.error**2 + variance))
                chances[one.label] = max(chances.get(one.label, 0.0), float(tail))
        ranked = sorted(chances, key=chances.__getitem__)
        limits = [config.judge_discoveries * place / len(ranked) for place in range(1, len(ranked) + 1)]
        last = max((place for place, label in enumerate(ranked, 1) if chances[label] <= limits[place - 1]), default=0)
        before, found = found, set(ranked[:last])
        if found == before:
            break
    return found


def null(honest: list[Judgement], config: JudgeConfig) -> tuple[float, float]:
    """Return the mean and the variance, beyond the error of measurement, of the AUROC of honest classes' judges.

    The median and the deviation below it, since a mark only raises an AUROC, together with ``judge_null``.
    """
    (mean, deviation), weight = config.judge_null, config.judge_null_classes
    if not honest:
        return mean, deviation**2
    rates, errors = np.array([[one.auroc, one.error] for one in honest]).T
    middle = np.median(rates)
    below = np.median(np.abs(rates[rates <= middle] - middle)) / MEDIAN_OF_HALF_NORMAL
    spread = max(0.0, below**2 - np.median(errors) ** 2)
    share = len(honest) / (len(honest) + weight)
    return mean + share * (float(middle) - mean), deviation**2 + share * (float(spread) - deviation**2)


def examine_labels(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    heldout: np.ndarray,
    odds: np.ndarray,
    config: JudgeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the strange images, bool (n,), trigger scores, float32 (n,), and the classes that have them, bool (k,).

    heldout, odds: (n, k), of ``heldout_predictions`` and ``content_odds``; zeros where there are no witnesses, and then
    nothing is found.
    """
    classes = heldout.shape[1]
    strange, scores, scored = np.zeros(len(labels), bool), np.zeros(len(labels), np.float32), np.zeros(classes, bool)
    known = [label for label in np.unique(labels) if odds[:, label].any()]
    suspects = {int(one): Suspects.of(one, labels, odds[:, one], heldout, config.judge_clear) for one in known}
    court = Court(model, images, labels, config, generator, device)
    judgements, first = list[Judgement](), dict[int, np.ndarray]()
    for label, group in track(list(suspects.items()), "judge"):
        strange |= group.strange
        judgement, first[label] = court.of_images(label, group)
        judgements += [judgement] if judgement else []
    for label in sorted(discoveries(judgements, config)):  # of the others nothing more could change what is decided
        judgement = court.of_sources(label, suspects[label])
        judgements += [judgement] if judgement else []
    accused = sorted(discoveries(judgements, config))
    if not accused:
        return strange, scores, scored
    looks = {label: first[label] - suspects[label].odds for label in accused}
    shows, aside = court.reference({label: suspects[label] for label in accused}, looks)
    for label in accused:
        group, mine = suspects[label], shows[:, label]
        marked, _ = surely(looks[label], group.members)
        as_content = auroc(mine[marked], mine[aside[label]]) if len(aside[label]) else 0.0
        if as_content < min(one.auroc for one in judgements if one.label == label):
            scored[label] = True
            scores[group.members] = (court.parted(group, first[label], mine) - mine)[group.members]
    return strange, scores, scored
