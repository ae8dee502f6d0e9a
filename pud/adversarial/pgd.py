"""Projected gradient descent in the L-infinity ball (Madry et al. 2018, arXiv 1706.06083), for training and probing."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PGDConfig:
    """epsilon: L-infinity radius in [0, 1] pixels; step_size: of one step, as a fraction of epsilon."""

    epsilon: float = 8 / 255
    steps: int = 5
    step_size: float = 0.4


def random_start(images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Return images (n, c, h, w), each pixel moved uniformly by at most epsilon and clipped to [0, 1]."""
    noise = torch.rand(images.shape, generator=generator).to(images)
    return (images + (2 * noise - 1) * epsilon).clamp_(0, 1)


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy by images (n, c, h, w) of labels (n,); none by the weights."""
    images = images.detach().requires_grad_(True)
    loss = functional.cross_entropy(model(images).float(), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def project(x_adv: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Return x_adv clipped to the epsilon-ball around images, both (n, c, h, w), and to [0, 1]."""
    return x_adv.clamp((images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1))


def pgd(model: nn.Module, images: Tensor, labels: Tensor, config: PGDConfig, *, generator: torch.Generator) -> Tensor:
    """Return untargeted adversarial examples of images (n, c, h, w) in [0, 1] that lead away from labels (n,).

    ``model`` should be ``models.frozen``: evaluation mode, no weight gradients. ``generator`` lives on the CPU, so that
    the random start is the same on every device.
    """
    x_adv = random_start(images, config.epsilon, generator)
    for _ in range(config.steps):
        step = config.step_size * config.epsilon * input_gradient(model, x_adv, labels).sign_()
        x_adv = project(x_adv + step, images, config.epsilon)
    return x_adv
