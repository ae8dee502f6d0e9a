"""Fine-tuning on clean images: the plainest repair, with which every other one is compared."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from pud.base.config import Count, Part, Positive
from pud.defences.repair import LabelledBatches, RepairConfig, repair_defence
from pud.models.contract import Classifier


@dataclass(frozen=True)
class FineTuningConfig(RepairConfig):
    """SGD with momentum, the learning rate falling to zero by a cosine."""

    epochs: Annotated[Count, "Over the clean images."] = 100
    learning_rate: Annotated[Positive, "Of SGD at the start."] = 0.01
    momentum: Annotated[Part, "Of SGD."] = 0.9
    weight_decay: Annotated[float, "Of SGD."] = 5e-4


def optimiser_of(
    model: Classifier, clean: LabelledBatches, config: FineTuningConfig
) -> tuple[torch.optim.SGD, CosineAnnealingLR]:
    """Return the optimiser of a model's parameters and the schedule of its learning rate."""
    optimiser = torch.optim.SGD(
        model.parameters(), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return optimiser, CosineAnnealingLR(optimiser, config.epochs * clean.steps_per_epoch)


def fine_tune(model: Classifier, clean: LabelledBatches, config: FineTuningConfig) -> Classifier:
    """Return a copy of the model, fine-tuned on the clean images."""
    repaired = copy.deepcopy(model).requires_grad_(True).train()
    optimiser, schedule = optimiser_of(repaired, clean, config)
    for x, y in clean.steps(config.epochs):
        optimiser.zero_grad()
        functional.cross_entropy(repaired(x), y).backward()
        optimiser.step()
        schedule.step()
    return repaired.eval()


DEFENCES = {"fine-tuning": repair_defence("fine-tuning", FineTuningConfig, fine_tune)}
