"""What several families share: a normalised convolution, the stem by size of images, the inverted bottleneck."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

SMALL, MIDDLE = 64, 128  # pixels along the longer side: up to here the stem keeps, or halves, the resolution


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def halvings(input_shape: Sequence[int]) -> int:
    """Return how often a stem halves the resolution of images (c, h, w): 0 to 2, by their longer side."""
    longer = max(input_shape[1:])
    return (longer > SMALL) + (longer > MIDDLE)


def pool(input_shape: Sequence[int]) -> nn.Module:
    """Return what follows a stem whose convolution halves once at most: pooling where it must halve twice."""
    return nn.MaxPool2d(3, 2, 1) if halvings(input_shape) == 2 else nn.Identity()


class SqueezeExcitation(nn.Module):
    """Scale every channel by what all of the image's channels say (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.excite(self.activation(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * scale.sigmoid()


class InvertedBottleneck(nn.Module):
    """Widen, convolve every channel by itself, narrow (Sandler et al. 2018, arXiv 1801.04381).

    Args:
        widening: the inner width, in input widths. squeezed: width of a squeeze and excitation; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        widening: int,
        activation: Callable[[], nn.Module],
        squeezed: int = 0,
    ) -> None:
        super().__init__()
        inner = widening * in_channels
        layers: list[nn.Module] = []
        if widening > 1:
            layers += [ConvNorm(in_channels, inner, 1), activation()]
        layers += [ConvNorm(inner, inner, kernel, stride, groups=inner), activation()]
        if squeezed:
            layers.append(SqueezeExcitation(inner, squeezed))
        self.layers = nn.Sequential(*layers, ConvNorm(inner, out_channels, 1))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)
