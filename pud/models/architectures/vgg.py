"""VGG with batch norms (Simonyan and Zisserman 2015, arXiv 1409.1556), its mean over the image as features."""

from collections.abc import Sequence

from torch import Tensor, nn

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # configuration A


class VGG11(nn.Module):
    """Five stages of 3x3 convolutions, each ending in a pooling that halves the resolution while there is any.

    One linear layer stands in for the paper's three, of which the first would hold most of the weights.
    """

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, resolution = input_shape[0], min(input_shape[1:])
        layers: list[nn.Module] = []
        for widths in STAGES:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            if resolution > 1:
                layers.append(nn.MaxPool2d(2))
            resolution //= 2
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


ARCHITECTURES = {"vgg11_bn": VGG11}
