"""An estimate of the trigger that accused images carry."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pud.data.batches import Batches


@dataclass(frozen=True)
class AffineTrigger:
    """Per-pixel affine estimate of a trigger: stamped = scale * image + shift, each (c, h, w)."""

    scale: Tensor
    shift: Tensor

    def __call__(self, images: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Return images (n, c, h, w) moved ``strength`` times, a number or (n, 1, 1, 1), as far as the trigger does."""
        return (images + strength * ((self.scale - 1) * images + self.shift)).clamp_(0, 1)


def estimate_trigger(pictures: Batches, accused: np.ndarray, clean: np.ndarray) -> AffineTrigger:
    """Estimate the trigger that leads from clean to accused images, rows of ``pictures``, by their moments.

    A stamp a * x + b has the standard deviation a * std(x) and the mean a * mean(x) + b; pixels that are constant in
    the clean images are taken as shifted only.
    """
    (mean, spread), (clean_mean, clean_spread) = map(pictures.moments, (accused, clean))
    scale = torch.where(clean_spread > 1e-3, spread / clean_spread.clamp(min=1e-3), torch.ones_like(spread)).clamp(0, 1)
    return AffineTrigger(scale.float(), (mean - scale * clean_mean).float())
