"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), as wide as DeiT-Ti (arXiv 2012.12877)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, DEPTH, WIDENING = 192, 3, 12, 4
FINEST_PATCH, PATCHES_A_SIDE = 4, 16
POSITION_DEVIATION = 0.02


class Attention(nn.Module):
    """Self-attention of tokens (n, t, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = self.queries_keys_values(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        return self.out(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two linear layers, each on normalised tokens (n, t, d) and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.linear_norm = nn.LayerNorm(width)
        self.linear = nn.Sequential(nn.Linear(width, WIDENING * width), nn.GELU(), nn.Linear(WIDENING * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.linear(self.linear_norm(x))


def patch_side(input_shape: Sequence[int]) -> int:
    """Return the side of a patch in pixels: a power of two, at least 4, at most 16 of them along an image's side."""
    side = FINEST_PATCH
    while side * PATCHES_A_SIDE < max(input_shape[1:]):
        side *= 2
    return side


class ViT(nn.Module):
    """Square patches as tokens, learned positions, the mean of all tokens as features.

    An image that no whole number of patches fills is padded with zeros on the right and below.
    """

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        side = patch_side(input_shape)
        self.padding = (0, -width % side, 0, -height % side)
        self.patches = nn.Conv2d(channels, WIDTH, side, side)
        self.positions = nn.Parameter(torch.empty(1, -(-height // side) * -(-width // side), WIDTH))
        nn.init.trunc_normal_(self.positions, std=POSITION_DEVIATION)
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(functional.pad(x, self.padding)).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(tokens + self.positions)).mean(1))


ARCHITECTURES = {"vit_tiny": ViT}
