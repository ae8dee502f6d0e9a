"""STRIP (Gao et al. 2019, arXiv 1902.06531): where a trigger is mixed in, a model's prediction stays sure.

Suspicion is the entropy of the predictions under mixing, the lower the higher. The original superimposes images from a
small clean set, of which it takes the threshold, too. Nobody has one in the pipeline: the probe mixes training images
with each other, half and half, and the threshold is that quantile of a normal distribution whose centre and width are
the median and the median absolute deviation of all training images. It holds where most of them are clean.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy

from pud.base.config import Part
from pud.base.errors import InputError
from pud.detectors.contract import Detection, Detector
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence


@dataclass(frozen=True)
class StripConfig:
    """How much is accused."""

    false_rejection: Annotated[Part, "Share of clean images that is accused; the original's."] = 0.01


def detect(infected: InfectedEvidence, current: PurifiedEvidence | None, config: StripConfig) -> Detection:
    """Return who is surer under mixing than clean images are.

    Raises:
        InputError: the probe mixed nothing.
    """
    entropy = infected.mix_entropy.astype(np.float64)
    if not entropy.any():
        raise InputError("this probe mixed no images, by which strip decides: probe with mix_draws of at least 1")
    width = scipy.stats.median_abs_deviation(entropy, scale="normal")
    threshold = np.median(entropy) + width * scipy.stats.norm.ppf(config.false_rejection)
    return Detection.of_accusations(-entropy, entropy < threshold, infected)


DETECTORS = {"strip": Detector("strip", StripConfig, detect)}
