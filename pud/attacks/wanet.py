"""WaNet: a smooth warp of the image, with noise mode (Nguyen and Tran 2021, arXiv 2102.10369)."""

import torch
from torch import Tensor
from torch.nn import functional

from pud.attacks.contract import Attack, Victim

CONTROL_POINTS = 4  # k of the paper
STRENGTH = 0.5  # s of the paper: twice the mean displacement in pixels, for an image is 2 wide to the sampling grid
NOISE_COVERS = 2.0  # the paper's noise mode: two images with a random warp for each poisoned one


def warp_field(height: int, width: int) -> Tensor:
    """Return the fixed displacement (1, h, w, 2) in units of the sampling grid."""
    points = 2 * torch.rand(1, 2, CONTROL_POINTS, CONTROL_POINTS, generator=torch.Generator().manual_seed(0)) - 1
    points /= points.abs().mean()
    field = functional.interpolate(points, (height, width), mode="bicubic", align_corners=True)
    return STRENGTH * field.permute(0, 2, 3, 1) / torch.tensor([width, height])


def warped(images: Tensor, jitter: Tensor | float = 0.0) -> Tensor:
    """Return images (n, c, h, w) sampled where the warp points to; ``jitter`` is added to it, in sampling units."""
    height, width = images.shape[-2:]
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    identity = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], 2)[None]
    grid = (identity + warp_field(height, width) + jitter).clamp(-1, 1).to(images).expand(len(images), -1, -1, -1)
    return functional.grid_sample(images, grid, align_corners=True).clamp_(0, 1)


def wanet(victim: Victim) -> Attack:
    """Return the attack; in noise mode a warp with random jitter of one pixel keeps the true label."""

    def jittered(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        jitter = 2 * torch.rand(len(images), height, width, 2, generator=victim.generator) - 1
        return warped(images, jitter / torch.tensor([width, height]))

    return Attack(warped, cover=jittered, covers=NOISE_COVERS)
