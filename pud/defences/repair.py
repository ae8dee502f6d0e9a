"""Model repair with a small clean set, as a round: what fine-tuning, FT-SAM, I-BAU and ANP have in common.

Their papers give each a separate set of clean images. In a pipeline nobody has one, so a round takes the images that
detection suspects least: of each class's clean verdicts the share ``clean_share``, so at most that share of the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pud.base.config import Count, Part, from_mapping
from pud.base.progress import track
from pud.data.images import pixels
from pud.defences.contract import Defence, Selection, SelectionRule, State
from pud.models.training import batches, warn_of_few_steps

C = TypeVar("C", bound="RepairConfig")


@dataclass(frozen=True)
class RepairConfig:
    """clean_share: of each class's clean verdicts, the least suspicious first; batch_size: images in a step."""

    clean_share: Part = 0.05
    batch_size: Count = 128


@dataclass(frozen=True)
class CleanSet:
    """Clean uint8 images (m, c, h, w) with int64 labels (m,), in batches on a device, shuffled by a generator."""

    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    generator: torch.Generator
    device: torch.device

    @property
    def steps_per_epoch(self) -> int:
        """The batches of an epoch: the short last one is left out, but for the only one."""
        return max(1, len(self.labels) // self.batch_size)

    def steps(self, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of images in [0, 1] and labels."""
        targets = torch.from_numpy(self.labels)
        for index in track(batches(len(self.labels), self.batch_size, epochs, self.generator), "repair"):
            yield pixels(self.images[index.numpy()]).to(self.device), targets[index].to(self.device)


class Repair(Protocol[C]):
    """Returns a repaired copy of a model, in evaluation mode; the given model stays as it is."""

    def __call__(self, model: nn.Module, clean: CleanSet, config: C) -> nn.Module: ...


def repair_defence(name: str, config_type: type[C], repair: Repair[C]) -> Defence:
    """Return the registry's entry for a repair."""

    def run(
        state: State,
        images: np.ndarray,
        selection: Selection,
        config: C,
        *,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        chosen = np.flatnonzero(selection.clean)
        warn_of_few_steps(len(chosen), config.batch_size)
        clean = CleanSet(images[chosen], selection.labels[chosen], config.batch_size, generator, device)
        state.replace_model(repair(state.student, clean, config))

    return Defence(
        name,
        configure=partial(from_mapping, config_type),
        ask=lambda config, round_index: SelectionRule(config.clean_share, relabel=False),
        run=run,
    )
