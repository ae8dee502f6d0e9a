"""Where a model's adversarial examples go, and what they look like to it: the paper's observation (section 3.1).

The adversarial examples of an infected model drift towards the backdoor's target class, and to the model they look like
triggered images. Purification should end both. Needs the ground truth, so only evaluation measures it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pud.adversarial.pgd import PGDConfig, pgd
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm


@dataclass(frozen=True)
class Drift:
    """Means over images not of their target class. share_to_target: of the adversarial examples that fool the model,
    those classified as the target. similarity_to_triggered, similarity_to_clean: cosine of an adversarial example's
    features to those of the same image with the trigger, and without; fooled: share of adversarial examples that do."""

    share_to_target: float
    similarity_to_triggered: float
    similarity_to_clean: float
    fooled: float
    n: int


def adversarial_drift(
    model: Classifier, images: Tensor, triggered: Tensor, labels: Tensor, targets: Tensor, *, seed: int
) -> Drift:
    """Measure the drift of untargeted PGD examples (7 steps, 6/255: the paper's probe).

    Args:
        images, triggered: (n, c, h, w) in [0, 1], the same images without and with the trigger.
        labels, targets: (n,), what they are and where the backdoor leads.
    """
    fast = fold_batchnorm(model)
    generator = torch.Generator().manual_seed(seed)
    x_adv = pgd(fast, images, labels, PGDConfig(6 / 255, 7, 0.2), generator=generator)
    with torch.no_grad():
        features = [fast.features(x) for x in (x_adv, triggered, images)]
        predicted = fast.head(features[0]).argmax(1)
    fooled = predicted != labels
    similarity = [functional.cosine_similarity(features[0], other).mean().item() for other in features[1:]]
    return Drift(
        share_to_target=float((predicted == targets)[fooled].float().mean()) if fooled.any() else 0.0,
        similarity_to_triggered=similarity[0],
        similarity_to_clean=similarity[1],
        fooled=float(fooled.float().mean()),
        n=len(labels),
    )
