"""What a model says of images that lie as pixels on disk."""

import numpy as np
import torch
from torch import Tensor, nn

from pud.data.images import pixels
from pud.models.folded import fold_batchnorm


@torch.no_grad()
def logits(model: nn.Module, images: np.ndarray, device: torch.device, *, batch: int = 500) -> Tensor:
    """Return float32 logits (n, classes) of uint8 images (n, c, h, w), on the CPU."""
    fast = fold_batchnorm(model)
    return torch.cat([fast(pixels(images[i : i + batch]).to(device)).cpu() for i in range(0, len(images), batch)])
