"""What a model says of images that lie as pixels on disk."""

import numpy as np
import torch
from torch import Tensor, nn

from pud.data.batches import Batches, at_once
from pud.models.folded import fold_batchnorm


@torch.no_grad()
def logits(
    model: nn.Module,
    images: np.ndarray,
    device: torch.device,
    *,
    rows: np.ndarray | None = None,
    batch: int | None = None,
) -> Tensor:
    """Return float32 logits (m, classes) of uint8 images (n, c, h, w), or of these rows of them, on the CPU."""
    fast, rows = fold_batchnorm(model), np.arange(len(images)) if rows is None else rows
    batch = batch or at_once(images, 500)
    order = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return torch.cat([fast(x).cpu() for x in Batches(images, device, resident_gib=0).stream(order)])
