"""Residual networks with activation before convolution (He et al. 2016, arXiv 1603.05027).

Layers are named as in BackdoorBench's ``models/preact_resnet.py``, so that weights trained there load.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pud.models.architectures.blocks import halvings, pool


class PreActBlock(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, twice; where the shape changes, a 1x1 convolution on the shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.bn1(x))
        out = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class PreActResNet18(nn.Module):
    """Four stages of two blocks; no batch norm follows the last one, as in BackdoorBench.

    Images of at most 64 pixels a side get a 3x3 stem, larger ones one of 7x7 that halves the resolution, and above 128
    pixels a pooling that halves it again.
    """

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        kernel, stride = (7, 2) if halvings(input_shape) else (3, 1)
        self.conv1 = nn.Conv2d(input_shape[0], 64, kernel, stride, padding=kernel // 2, bias=False)
        self.pool = pool(input_shape)
        self.layer1 = nn.Sequential(PreActBlock(64, 64, 1), PreActBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PreActBlock(64, 128, 2), PreActBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PreActBlock(128, 256, 2), PreActBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PreActBlock(256, 512, 2), PreActBlock(512, 512, 1))
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.pool(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


ARCHITECTURES = {"preactresnet18": PreActResNet18}
