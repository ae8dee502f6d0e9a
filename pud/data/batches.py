"""Pictures on their way from a data set to a model: uint8 as long as possible, augmented on the device.

Pictures stay where they are, in a memory map or on the device, and only a batch at a time becomes float32. Random
numbers are drawn on the device, from (seed, step, round, index of the batch): twice the same on one device and version,
and equal in distribution on another.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pud.base.config import Count, Share

COLOURS = 3
VALUES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class BatchConfig:
    """How pictures reach a model that learns."""

    batch_size: Annotated[Count, "Images at a time."] = 128
    crop: Annotated[Share, "Share of its height and width by which a picture is moved at most, black comes in."] = 0.125
    flip: Annotated[bool, "Mirror every other picture."] = True
    augment_grey: Annotated[
        bool, "Do both to pictures of one channel too, of which most (digits, clothes) do not gain."
    ] = False
    resident_gib: Annotated[float, "Data of up to this size are copied to a GPU whole; larger ones stream to it."] = (
        16.0
    )

    def augmentation(self, channels: int) -> "Augmentation | None":
        """Return what changes pictures of so many channels, None where nothing does."""
        wanted = (channels == COLOURS or self.augment_grey) and (self.crop > 0 or self.flip)
        return Augmentation(self.crop, self.flip) if wanted else None


@dataclass(frozen=True)
class Augmentation:
    """Random crops of padded pictures and mirroring (Krizhevsky et al. 2012; the usual for CIFAR-10)."""

    crop: float
    flip: bool

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, c, h, w), moved and mirrored; ``generator`` lives on their device."""
        n, _, height, width = images.shape
        padding = [round(self.crop * side) for side in (height, width)]
        rows, columns = (
            torch.arange(side, device=images.device)
            + torch.randint(2 * pad + 1, (n, 1), generator=generator, device=images.device)
            for side, pad in zip((height, width), padding, strict=True)
        )
        if self.flip:
            mirrored = torch.rand(n, 1, generator=generator, device=images.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
        each = torch.arange(n, device=images.device)[:, None, None]
        # indexing moves the channels last, which is how convolutions want them in memory
        return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class RandomStream:
    """The random numbers of a step on a device: for each index of a batch its own, whatever was drawn before."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.seed = int(torch.randint(2**62, (1,), generator=generator))
        self.generator = torch.Generator(device)

    def at(self, index: int) -> torch.Generator:
        """Return the generator on the device, set to the start of an index's numbers."""
        return self.generator.manual_seed(self.seed + index)


class Batches:
    """Batches of uint8 images (n, c, h, w) as float32 in [0, 1], channels last, on a device."""

    def __init__(self, images: np.ndarray, device: torch.device, *, resident_gib: float = BatchConfig.resident_gib):
        self.images, self.device = images, device
        beside = device.type == "cpu"  # where a memory map is as good as memory
        fits = not beside and images.nbytes <= resident_gib * 2**30
        self.resident = torch.from_numpy(np.array(images)).to(device) if fits else None
        self.ahead = not beside and not fits

    def __getitem__(self, rows: np.ndarray | Tensor | slice) -> Tensor:
        """Return the images of these rows."""
        if self.resident is None:
            return as_floats(self._copied(rows).to(self.device))
        where = rows if isinstance(rows, slice) else torch.as_tensor(rows).to(self.device)
        return as_floats(self.resident[where])

    def stream(self, order: Sequence[np.ndarray | Tensor | slice]) -> Iterator[Tensor]:
        """Yield the images of each element of ``order``; what streams to a GPU is prepared while it computes."""
        if not self.ahead:
            yield from (self[rows] for rows in order)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for rows in order:
                coming = pool.submit(lambda rows: self._copied(rows).pin_memory(), rows)
                if ahead is not None:
                    yield as_floats(ahead.result().to(self.device, non_blocking=True))
                ahead = coming
            if ahead is not None:
                yield as_floats(ahead.result().to(self.device, non_blocking=True))

    def _copied(self, rows: np.ndarray | Tensor | slice) -> Tensor:
        """Return these rows as they lie, uint8, in memory of their own on the CPU."""
        return torch.from_numpy(np.array(self.images[rows.numpy() if isinstance(rows, Tensor) else rows]))

    def moments(self, rows: np.ndarray | None = None, *, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of each pixel, float64 (c, h, w), over these rows or all."""
        rows = np.arange(len(self.images)) if rows is None else rows
        batch = batch or at_once(self.images, 1000)
        total = torch.zeros(2, *self.images.shape[1:], dtype=torch.float64, device=self.device)
        for start in range(0, len(rows), batch):
            x = self[rows[start : start + batch]].double()
            total += torch.stack([x.sum(0), x.square().sum(0)])
        mean = total[0] / len(rows)
        return mean, (total[1] / len(rows) - mean.square()).clamp(min=0).sqrt()

    def channel_moments(self) -> tuple[list[float], list[float]]:
        """Return the mean and the standard deviation, 0.001 at least, of each channel: what normalises pictures."""
        means, spreads = self.moments()
        mean = means.mean((1, 2))
        spread = (spreads.square() + means.square()).mean((1, 2)).sub(mean.square()).clamp(min=0).sqrt()
        return mean.tolist(), spread.clamp(min=1e-3).tolist()


def at_once(images: np.ndarray, most: int) -> int:
    """Return how many images (n, c, h, w) to take at a time where that is no setting: ``most`` of small ones."""
    return max(1, min(most, VALUES_AT_ONCE // int(np.prod(images.shape[1:]))))


def as_floats(images: Tensor) -> Tensor:
    """Return uint8 images (n, c, h, w) as float32 in [0, 1], channels last in memory."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def slices(n: int, size: int) -> list[slice]:
    """Return the slices of n rows, of ``size`` each but the last."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
