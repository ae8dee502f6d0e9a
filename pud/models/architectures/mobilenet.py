"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381)."""

from collections.abc import Sequence

from torch import Tensor, nn

from pud.models.architectures.blocks import ConvNorm, InvertedBottleneck, halvings

# (widening, width, blocks, stride of the first block), table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


class MobileNetV2(nn.Module):
    """Seven stages of inverted bottlenecks; the stem and the second stage halve only larger images' resolution.

    There is no dropout, for what it draws would not come from a run's own random numbers.
    """

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        times = halvings(input_shape)
        layers: list[nn.Module] = [ConvNorm(input_shape[0], STEM, 3, 2 if times else 1), nn.ReLU6()]
        channels = STEM
        for stage, (widening, width, count, first) in enumerate(STAGES):
            for block in range(count):
                stride = first if not block and (stage != 1 or times == 2) else 1
                layers.append(
                    InvertedBottleneck(channels, width, kernel=3, stride=stride, widening=widening, activation=nn.ReLU6)
                )
                channels = width
        self.layers = nn.Sequential(*layers, ConvNorm(channels, LAST, 1), nn.ReLU6())
        self.head = nn.Linear(LAST, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


ARCHITECTURES = {"mobilenet_v2": MobileNetV2}
