"""What a probe of a model hands to detection: arrays only, so that detection needs neither torch nor a GPU.

n images, k classes, d features. Two types, because an infected model and a purified one are asked different questions.
"""

from dataclasses import dataclass

import numpy as np

from pud.base.config import Share


@dataclass(frozen=True)
class FilledRule:
    """When a class counts as filled with images of the other classes, by what a classifier sees in its images.

    A clean class looks like a few neighbours, one that poison was put into looks like most other classes. confidence: a
    prediction counts from this probability on. For any pair of quantile and share, the quantile over the other classes
    of the counted images that show them must reach this share of the class, and two images.
    """

    confidence: Share
    shares: tuple[Share, Share]
    quantiles: tuple[Share, Share]

    def counts(self, predictions: np.ndarray) -> np.ndarray:
        """Return how many of a class's images show each class, int64 (k,), from their predictions (m, k)."""
        counted = predictions[predictions.max(1) >= self.confidence].argmax(1)
        return np.bincount(counted, minlength=predictions.shape[1])

    def holds(self, counts: np.ndarray, label: int, size: int) -> bool:
        """Tell whether the class ``label`` of ``size`` images is filled, by the images that show each class, (k,)."""
        sent = np.quantile(np.delete(counts, label), self.quantiles)
        return bool((sent >= np.maximum(2.0, np.multiply(self.shares, size))).any())


@dataclass(frozen=True)
class InfectedEvidence:
    """What the infected model, and classifiers that never saw the given label, say of every training image.

    labels: int64 (n,), as given. scene: int64 (n,), of which images are of one (``pud.evidence.scenes``). logits:
    float32 (n, k). features: float32 (n, d). noise_survival, mix_survival:
    float32 (n,), mean probability of the given label under Gaussian noise and under mixing with another image.
    mix_entropy: float32 (n,), mean entropy of the predictions on these mixtures, in nats. All three are zero where the
    probe made no draws. heldout: float32 (n, k), mean probability of each class by held-out classifiers, which were
    trained without the image's class; zero for the given label, and everywhere where there are none.
    strange: bool (n,), the images that look no more like their given class than most images of other classes do.
    scored: bool (k,), the classes whose strange images bear a mark that can be learned; of their images trigger_score,
    float32 (n,), is the log likelihood ratio of a mark on another class and none on this one, zero in other classes.
    changes: float32 (2, kinds, k), logarithms of the smallest changes that lead to each class, in the infected model
    and in one of our own that learned from the same images (``pud.evidence.inversion``); zeros where none was sought.
    """

    labels: np.ndarray
    scene: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    noise_survival: np.ndarray
    mix_survival: np.ndarray
    mix_entropy: np.ndarray
    heldout: np.ndarray
    strange: np.ndarray
    trigger_score: np.ndarray
    scored: np.ndarray
    changes: np.ndarray


@dataclass(frozen=True)
class PurifiedEvidence:
    """What a purified model says of every training image.

    labels: int64 (n,), as given. logits: float32 (n, k). scored: bool (k,), the classes in which it contradicts the
    labels of images of most other classes; of their images trigger_score, float32 (n,), says how much they look like
    those: log odds of a discriminator, zero in other classes. filled_rule: when its contradictions say that a class is
    filled.
    """

    labels: np.ndarray
    logits: np.ndarray
    trigger_score: np.ndarray
    scored: np.ndarray
    filled_rule: FilledRule
