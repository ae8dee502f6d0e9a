"""FT-SAM: fine-tuning with adaptive sharpness-aware minimisation (Zhu et al. 2023, arXiv 2304.11823).

Settings are those of the authors' code (BackdoorBench), but for one: there the cosine of the learning rate starts again
every 200 steps, whatever the number of steps is, and may end at its height. Here it falls to zero once.
"""

import copy
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from torch.nn import functional

from pud.base.config import Positive, Share
from pud.defences.fine_tuning import FineTuningConfig, optimiser_of
from pud.defences.repair import LabelledBatches, repair_defence
from pud.models.contract import Classifier
from pud.models.training import worst_nearby


@dataclass(frozen=True)
class FtSamConfig(FineTuningConfig):
    """Fine-tuning's settings, the ball, and the smoothing."""

    radius: Annotated[
        Positive, "Of the ball of weights that is searched for the worst (the paper's rho), for small images."
    ] = 2.0
    smoothing: Annotated[Share, "Of the labels: what the other classes share."] = 0.1


def ft_sam(model: Classifier, clean: LabelledBatches, config: FtSamConfig) -> Classifier:
    """Return a copy of the model, fine-tuned on the clean images.

    Every step climbs to the worst weights in a ball whose axes are the weights' own sizes, and descends from there.
    """
    repaired = copy.deepcopy(model).requires_grad_(True).train()
    optimiser, schedule = optimiser_of(repaired, clean, config)

    def find_gradients(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        smooth_cross_entropy(repaired(x), y, config.smoothing).backward()

    for x, y in clean.steps(config.epochs):
        find_gradients(x, y)
        with worst_nearby(repaired, config.radius, relative=True):
            find_gradients(x, y)
        optimiser.step()
        schedule.step()
    return repaired.eval()


def smooth_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy with labels of weight 1 - smoothing, of which the other classes share the rest."""
    classes = logits.shape[1]
    share = smoothing * classes / (classes - 1)  # torch's is shared with the label's own class
    return functional.cross_entropy(logits, labels, label_smoothing=min(1.0, share))


DEFENCES = {"ft-sam": repair_defence("ft-sam", FtSamConfig, ft_sam)}
