"""EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946)."""

from collections.abc import Sequence

from torch import Tensor, nn

from pud.models.architectures.blocks import ConvNorm, InvertedBottleneck, halvings

# (widening, width, blocks, stride of the first block, kernel), table 1 of the paper
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM, LAST = 32, 1280
SQUEEZE = 4  # the excitation's width is that of the block's input by this


class EfficientNetB0(nn.Module):
    """Seven stages of inverted bottlenecks with squeeze and excitation; the stem and the second stage halve only larger
    images' resolution.

    There is neither dropout nor stochastic depth, for what these draw would not come from a run's own random numbers.
    """

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        times = halvings(input_shape)
        layers: list[nn.Module] = [ConvNorm(input_shape[0], STEM, 3, 2 if times else 1), nn.SiLU()]
        channels = STEM
        for stage, (widening, width, count, first, kernel) in enumerate(STAGES):
            for block in range(count):
                layers.append(
                    InvertedBottleneck(
                        channels,
                        width,
                        kernel=kernel,
                        stride=first if not block and (stage != 1 or times == 2) else 1,
                        widening=widening,
                        activation=nn.SiLU,
                        squeezed=channels // SQUEEZE,
                    )
                )
                channels = width
        self.layers = nn.Sequential(*layers, ConvNorm(channels, LAST, 1), nn.SiLU())
        self.head = nn.Linear(LAST, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


ARCHITECTURES = {"efficientnet_b0": EfficientNetB0}
