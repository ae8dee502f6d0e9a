"""Model repair with a small clean set, as a round: what fine-tuning, FT-SAM, I-BAU and ANP have in common.

Their papers give each a separate set of clean images. In a pipeline nobody has one, so a round takes the images that
detection suspects least: of each class's clean verdicts the share ``clean_share``, so at most that share of the data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, TypeVar

import numpy as np
import torch
from torch import Tensor

from pud.base.config import Part, from_mapping
from pud.base.progress import track
from pud.data.batches import BatchConfig, Batches, RandomStream
from pud.defences.contract import Defence, Selection, SelectionRule, State
from pud.models.contract import Classifier
from pud.models.training import batches, warn_of_few_steps

C = TypeVar("C", bound="RepairConfig")


@dataclass(frozen=True)
class RepairConfig(BatchConfig):
    """What every repair needs: the clean images."""

    clean_share: Annotated[
        Part, "Share of each class's clean verdicts that serves as the clean set, the least suspicious first."
    ] = 0.05


@dataclass(frozen=True)
class LabelledBatches:
    """Images uint8 (m, c, h, w) with int64 labels (m,), in batches on a device, shuffled by a generator."""

    images: np.ndarray
    labels: np.ndarray
    config: BatchConfig
    generator: torch.Generator
    device: torch.device

    @cached_property
    def pictures(self) -> Batches:
        """The images, on the device where they fit."""
        return Batches(self.images, self.device, resident_gib=self.config.resident_gib)

    @property
    def steps_per_epoch(self) -> int:
        """The batches of an epoch: the short last one is left out, but for the only one."""
        return max(1, len(self.labels) // self.config.batch_size)

    def steps(self, epochs: int, what: str = "repair") -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of images in [0, 1], augmented, and their labels."""
        order = batches(len(self.labels), self.config.batch_size, epochs, self.generator)
        augment = self.config.augmentation(self.images.shape[1])
        random = RandomStream(self.generator, self.device) if augment else None
        targets = torch.from_numpy(self.labels)
        for index, x in enumerate(track(self.pictures.stream(order), what, total=len(order))):
            x = augment(x, random.at(index)) if augment and random else x
            yield x, targets[order[index]].to(self.device)


def repair_defence(
    name: str, config_type: type[C], repair: Callable[[Classifier, LabelledBatches, C], Classifier]
) -> Defence:
    """Return the registry's entry for a repair.

    repair: returns a repaired copy of a model, in evaluation mode; the given model stays as it is.
    """

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
        clean = LabelledBatches(images[chosen], selection.labels[chosen], config, generator, device)
        state.replace_model(repair(state.student, clean, config))

    return Defence(
        name,
        configure=partial(from_mapping, config_type),
        ask=lambda config, round_index: SelectionRule(config.clean_share, relabel=False),
        run=run,
    )
