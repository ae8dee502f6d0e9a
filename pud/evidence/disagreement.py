"""Where a model's predictions disagree with the given labels, and what that says of them. Logits are (n, k)."""

import numpy as np
import scipy

DOUBT_LIMIT = 6.0  # of log odds either way: beyond it a model says no more than how long it was trained


def knowledge(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return Youden's J of each class, (k,): how much oftener a model predicts it for its images than for all others.

    predicted, labels: (n,). At chance it is 0, however unequal the classes are and whatever the model prefers; where
    all is right it is 1; of a class without images, or alone, it is 0 (Youden 1950).
    """
    counts = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    own, sizes, said = np.diag(counts), counts.sum(1), counts.sum(0)
    others = len(labels) - sizes
    share = own / np.maximum(sizes, 1) - (said - own) / np.maximum(others, 1)
    return np.where((sizes > 0) & (others > 0), share, 0)


def label_doubt(logits: np.ndarray, labels: np.ndarray, limit: float = DOUBT_LIMIT) -> np.ndarray:
    """Return (n,): log odds, at most ``limit`` either way, of another than the given label."""
    others = logits.astype(np.float64)
    given = others[np.arange(len(labels)), labels]
    others[np.arange(len(labels)), labels] = -np.inf
    return np.clip(scipy.special.logsumexp(others, axis=1) - given, -limit, limit)


def contradictions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probabilities, float32 (n, k), of a model where it contradicts the given label, zeros elsewhere."""
    contradicted = logits.argmax(1) != labels
    return np.where(contradicted[:, None], scipy.special.softmax(logits, axis=1), 0).astype(np.float32)


def mislabelling_odds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (n,): log odds that an image was put into its class on purpose, by a purified model's logits.

    They are the doubt of its label, less what clean images give rise to: those put there come from every other class in
    about equal numbers m, the median over the others. So of c images in which the model sees one other class, c - m are
    clean, and the odds are m to c - m: a neighbour, such as shirts for T-shirts, has c > 2 m.
    """
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    shown, contradicted = others.argmax(1), logits.argmax(1) != labels
    odds = label_doubt(logits, labels)
    for label in np.unique(labels):
        members = labels == label
        counts = np.bincount(shown[members & contradicted], minlength=logits.shape[1])
        sent = max(1.0, float(np.median(np.delete(counts, label))))
        odds[members] += np.log(sent / np.maximum(counts - sent, sent))[shown[members]]
    return odds
