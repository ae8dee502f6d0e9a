"""Residual networks (He et al. 2015, arXiv 1512.03385)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from pud.models.architectures.blocks import ConvNorm, halvings, pool


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

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
    """Residual network: a stem by size of images, stages of basic blocks, the mean over the image, a linear layer.

    Args:
        input_shape: (c, h, w) of one image.
        classes: number of logits.
        widths: channels of each stage; every stage but the first halves the resolution.
        blocks: residual blocks in each stage.
        small_stride: of the stem for images of at most 64 pixels a side, a 3x3 convolution; larger ones get one of 7x7
            that halves the resolution, and above 128 pixels a pooling that halves it again, as in the paper.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        small_stride: int = 1,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if halvings(input_shape) else (3, small_stride)
        self.stem = ConvNorm(input_shape[0], widths[0], kernel, stride)
        self.pool = pool(input_shape)
        stages: list[nn.Module] = []
        width = widths[0]
        for stage, (out_width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stages.append(BasicBlock(width, out_width, 2 if stage and not block else 1))
                width = out_width
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.stem(x), inplace=True))
        return self.head(self.blocks(x).mean((2, 3)))


ARCHITECTURES = {
    "resnet8": partial(ResNet, widths=(16, 32, 64), blocks=(1, 1, 1)),
    "resnet18": partial(ResNet, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
}
