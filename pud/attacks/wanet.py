"""WaNet: a smooth warp of the image, with noise mode (Nguyen and Tran 2021, arXiv 2102.10369)."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.base.config import Count, Positive


@dataclass(frozen=True)
class WaNetConfig:
    """The warp, by the paper's k and s, and its noise mode."""

    control_points: Annotated[Count, "Points along a side between which the warp is smooth (the paper's k)."] = 4
    # an image is 2 wide to the sampling grid, so the mean displacement is half of this
    strength: Annotated[Positive, "Twice the mean displacement in pixels (the paper's s)."] = 0.5
    covers: Annotated[float, "Images with a random warp that keep their label, for each poisoned one."] = 2.0


def warp_field(height: int, width: int, config: WaNetConfig, generator: torch.Generator) -> Tensor:
    """Return a random smooth displacement (1, h, w, 2) in units of the sampling grid."""
    points = 2 * torch.rand(1, 2, config.control_points, config.control_points, generator=generator) - 1
    points /= points.abs().mean()
    field = functional.interpolate(points, (height, width), mode="bicubic", align_corners=True)
    return config.strength * field.permute(0, 2, 3, 1) / torch.tensor([width, height])


def warped(images: Tensor, field: Tensor) -> Tensor:
    """Return images (n, c, h, w) sampled where the field, (1 or n, h, w, 2) in sampling units, points to."""
    height, width = images.shape[-2:]
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    identity = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], 2)[None]
    grid = (identity + field).clamp(-1, 1).to(images).expand(len(images), -1, -1, -1)
    return functional.grid_sample(images, grid, align_corners=True).clamp_(0, 1)


def wanet(knowledge: AttackerKnowledge, config: WaNetConfig) -> Attack:
    """Return the attack; in noise mode a warp with random jitter of one pixel keeps the true label."""
    height, width = knowledge.shape[-2:]
    field = warp_field(height, width, config, knowledge.pattern_stream())

    def jittered(images: Tensor) -> Tensor:
        jitter = 2 * torch.rand(len(images), height, width, 2, generator=knowledge.generator) - 1
        return warped(images, field + jitter / torch.tensor([width, height]))

    return Attack(partial(warped, field=field), cover=jittered, covers=config.covers)


ATTACKS = {"wanet": AttackMethod(wanet, WaNetConfig)}
