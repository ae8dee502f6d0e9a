"""Image classifiers: images (n, c, h, w) in [0, 1] in, logits (n, classes) out; the normaliser lives inside."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from pud.base.errors import InputError
from pud.data.images import pixels


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, 3, stride)
        self.second = ConvNorm(out_channels, out_channels, 3)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else ConvNorm(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(functional.relu(self.first(x), inplace=True))
        out += self.shortcut(x)
        return functional.relu(out, inplace=True)


class ResNet(nn.Module):
    """Residual network for small images, its normaliser inside.

    Args:
        input_shape: (c, h, w) of one image.
        classes: number of logits.
        mean, std: normalisation of each channel of pixels in [0, 1]; c numbers each.
        widths: channels of each stage; every stage but the first halves the resolution.
        blocks: residual blocks in each stage.
        stem_stride: stride of the first convolution.
    """

    mean: Tensor
    std: Tensor
    head: nn.Linear

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.stem = ConvNorm(input_shape[0], widths[0], 3, stem_stride)
        stages: list[nn.Module] = []
        width = widths[0]
        for stage, (out_width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stages.append(BasicBlock(width, out_width, 2 if stage and not block else 1))
                width = out_width
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate representation, (n, widths[-1])."""
        x = self.stem((images - self.mean) / self.std)
        return self.blocks(functional.relu(x, inplace=True)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


M = TypeVar("M", bound=nn.Module)


def channels_last(model: M) -> M:
    """Lay the weights out as the convolutions here run fastest; returns the same model."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs


def frozen(model: M) -> M:
    """Return a copy in evaluation mode for attacks: no weight gradients, batch norms folded into convolutions.

    The copy computes the same logits up to rounding, and its input gradients cost about half.
    """
    copied = copy.deepcopy(model).eval()
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, ConvNorm):
                setattr(module, name, fuse_conv_bn_eval(child.conv, child.norm))
    return channels_last(copied.requires_grad_(False))


@torch.no_grad()
def refreeze(fast: ResNet, model: ResNet) -> None:
    """Bring ``fast``, made by ``frozen(model)``, up to date with the model: a twentieth of the time of a new copy."""
    for name, module in model.named_modules():
        if isinstance(module, ConvNorm):
            folded, norm = fast.get_submodule(name), module.norm
            assert isinstance(folded, nn.Conv2d)
            assert folded.bias is not None
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                module.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            folded.weight.copy_(weight)
            folded.bias.copy_(bias)
    fast.head.load_state_dict(model.head.state_dict())


# name: (widths, blocks)
ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "resnet8": ((16, 32, 64), (1, 1, 1)),
    "resnet18": ((64, 128, 256, 512), (2, 2, 2, 2)),
}


def check_architecture(name: str) -> None:
    """Raise InputError for the name of no architecture."""
    if name not in ARCHITECTURES:
        raise InputError(f"unknown architecture {name!r}: choose one of {', '.join(sorted(ARCHITECTURES))}")


def make_model(
    architecture: str,
    input_shape: Sequence[int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    seed: int = 0,
) -> ResNet:
    """Return a freshly initialised model, channels last, on the CPU.

    Raises:
        InputError: the architecture is unknown.
    """
    check_architecture(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths, blocks = ARCHITECTURES[architecture]
        return channels_last(ResNet(input_shape, classes, mean, std, widths=widths, blocks=blocks))


@torch.no_grad()
def logits(model: nn.Module, images: np.ndarray, device: torch.device, *, batch: int = 500) -> Tensor:
    """Return float32 logits (n, classes) of uint8 images (n, c, h, w), on the CPU."""
    fast = frozen(model)
    return torch.cat([fast(pixels(images[i : i + batch]).to(device)).cpu() for i in range(0, len(images), batch)])
