"""What a probe of a model hands to detection: arrays only, so that detection needs neither torch nor a GPU."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Evidence:
    """One model's view of every training image; n images, k classes, d features.

    labels: int64 (n,), as given. logits: float32 (n, k). features: float32 (n, d).
    noise_survival, mix_survival: float32 (n,), mean probability of the given label under Gaussian noise and under
    mixing with another image; zeros where the probe made no draws.
    adversarial_labels: int64 (n,), predictions on untargeted adversarial examples, -1 where an image was not attacked.
    votes: float32 (n, k), what models that never saw the given label say that the image shows, or what a purified model
    itself says where it contradicts the label; zeros where none spoke.
    trigger_score: float32 (n,), log odds of an intruder against honest images, NaN in classes without intruders.
    """

    labels: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    noise_survival: np.ndarray
    mix_survival: np.ndarray
    adversarial_labels: np.ndarray
    votes: np.ndarray
    trigger_score: np.ndarray
