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
    noise = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
    return noise.mul_(2 * epsilon).sub_(epsilon).add_(images).clamp_(0, 1)


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

    ``model`` should be folded (``models.folded``): evaluation mode, no weight gradients.
    """
    return ascend(model, random_start(images, config.epsilon, generator), images, labels, config)


def ascend(model: nn.Module, start: Tensor, images: Tensor, labels: Tensor, config: PGDConfig) -> Tensor:
    """Return what PGD makes of images (n, c, h, w) from a start in their ball; draws no random numbers."""
    low, high = (images - config.epsilon).clamp_(min=0), (images + config.epsilon).clamp_(max=1)
    x_adv = start
    for _ in range(config.steps):
        step = input_gradient(model, x_adv, labels).sign_().mul_(config.step_size * config.epsilon)
        x_adv = torch.minimum(torch.maximum(step.add_(x_adv), low), high)
    return x_adv
