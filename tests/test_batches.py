"""Pictures on their way to a model: the same from a map, from a device and streamed, augmented by known shifts."""

import numpy as np
import pytest
import torch

from pud.base.captured import CapturedStep
from pud.data.batches import Augmentation, BatchConfig, Batches, RandomStream
from pud.data.images import LabelledImages

CPU = torch.device("cpu")


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, channels: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


ORDER = [np.array([3, 1, 2]), np.array([0, 0, 4]), np.array([5])]


def test_a_batch_is_its_rows_between_0_and_1_channels_last(train_split: LabelledImages) -> None:
    batch = Batches(train_split.images, CPU)[ORDER[0]]
    assert torch.equal(batch, torch.from_numpy(np.array(train_split.images[ORDER[0]])).float() / 255)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_streamed_resident_and_mapped_pictures_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways of a GPU, walked on a CPU: without pinned memory, which only a GPU's driver gives."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    images = pictures(6)
    mapped, resident, streamed = (Batches(images, CPU) for _ in range(3))
    resident.resident, streamed.ahead = torch.from_numpy(images), True
    ways = [[batch.clone() for batch in way.stream(ORDER)] for way in (mapped, resident, streamed)]
    assert [len(way) for way in ways] == [3, 3, 3]
    for one, two, three in zip(*ways, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert list(streamed.stream([])) == []


def test_moments_are_those_of_all_pictures_at_once() -> None:
    images, rows = pictures(2500), np.arange(0, 2500, 2)
    mean, spread = Batches(images, CPU).moments(rows, batch=100)
    every = images[rows] / 255
    np.testing.assert_allclose(mean, every.mean(0), atol=1e-12)
    np.testing.assert_allclose(spread, every.std(0), atol=1e-12)
    channel_mean, channel_spread = Batches(images, CPU).channel_moments()
    np.testing.assert_allclose(channel_mean, (images / 255).mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(channel_spread, (images / 255).std((0, 2, 3)), atol=1e-12)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    assert Batches(np.zeros((5, 1, 4, 4), np.uint8), CPU).channel_moments() == ([0.0], [1e-3])


def test_every_augmented_picture_is_a_shift_of_its_own_with_black_coming_in() -> None:
    images = torch.from_numpy(pictures(64)).float() + 1
    moved = Augmentation(0.25, flip=True)(images, numbers())
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for before, after in zip(padded, moved, strict=True):
        found = [
            (row, column, flipped)
            for row in range(5)
            for column in range(5)
            for flipped in (False, True)
            if torch.equal(
                before[:, row : row + 8, column : column + 8].flip(2)
                if flipped
                else before[:, row : row + 8, column : column + 8],
                after,
            )
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert {flipped for *_, flipped in seen} == {False, True}
    assert len({shift[:2] for shift in seen}) > 15
    assert moved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("config", "channels", "augments"),
    [
        (BatchConfig(), 3, True),
        (BatchConfig(), 1, False),
        (BatchConfig(augment_grey=True), 1, True),
        (BatchConfig(crop=0.0, flip=False), 3, False),
        (BatchConfig(crop=0.0), 3, True),
    ],
)
def test_only_colour_is_augmented_unless_told(config: BatchConfig, channels: int, augments: bool) -> None:
    assert (config.augmentation(channels) is not None) is augments


def test_a_batch_has_its_own_numbers_whatever_was_drawn_before() -> None:
    one, two = (RandomStream(numbers(7), CPU) for _ in range(2))
    torch.rand(1000, generator=one.at(3))
    assert torch.equal(torch.rand(5, generator=one.at(4)), torch.rand(5, generator=two.at(4)))
    assert not torch.equal(torch.rand(5, generator=one.at(4)), torch.rand(5, generator=two.at(5)))
    other = RandomStream(numbers(8), CPU)
    assert not torch.equal(torch.rand(5, generator=one.at(4)), torch.rand(5, generator=other.at(4)))


def test_numbers_of_neighbouring_batches_are_uncorrelated() -> None:
    stream = RandomStream(numbers(), CPU)
    drawn = torch.stack([torch.rand(5000, generator=stream.at(index)) for index in range(20)])
    correlation = torch.corrcoef(drawn) - torch.eye(20)
    assert correlation.abs().max() < 5 / 5000**0.5


def test_a_step_on_a_cpu_runs_as_it_is() -> None:
    total = torch.zeros(2)
    step = CapturedStep(lambda x: total.add_(x), CPU)
    for _ in range(6):
        step(torch.ones(2))
    assert total.tolist() == [6, 6]
