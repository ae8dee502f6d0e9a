"""Trigger inversion: the smallest change to every image alike that leads to a class, and what it gives away."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pud.data.batches import Batches
from pud.data.images import LabelledImages
from pud.detectors.shortcuts import ShortcutConfig, shortcuts
from pud.evidence.inversion import KINDS, InversionConfig, Patch, Shift, Warp, invert, smallest
from pud.models.contract import Classifier
from pud.models.make import make_model
from pud.models.training import TrainConfig, train

CPU, TARGET, SHAPE = torch.device("cpu"), 1, torch.Size([3, 32, 32])
NULL = ShortcutConfig()


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_a_patch_is_as_large_as_its_mask_and_replaces_what_is_below() -> None:
    patch, images = Patch(1, SHAPE, stream()), torch.rand(1, 2, *SHAPE)
    patch.mask.fill_(-50)
    patch.mask[..., :4, :5] = 50
    patch.pattern.fill_(50)
    assert patch.size().item() == pytest.approx(20)
    shown = patch(images)
    assert (shown[..., :4, :5] == 1).all()
    torch.testing.assert_close(shown[..., 4:, 5:], images[..., 4:, 5:])


@torch.no_grad()
def test_a_shift_is_as_large_as_its_norm() -> None:
    shift = Shift(2, SHAPE, stream())
    shift.values.fill_(0.1)
    np.testing.assert_allclose(shift.size(), 0.1 * np.sqrt(3 * 32 * 32), rtol=1e-5)
    assert shift(torch.full((2, 1, *SHAPE), 0.95)).max() == 1  # a picture stays one


@torch.no_grad()
def test_a_warp_is_as_large_as_it_moves_an_image() -> None:
    warp, images = Warp(1, SHAPE, stream()), torch.rand(1, 2, *SHAPE)
    warp.points.zero_()
    torch.testing.assert_close(warp(images), images)
    warp.points[:, 0] = 3 * 32 / 31  # of the sampling grid's 31 steps from the first pixel to the last
    torch.testing.assert_close(warp(images)[..., :-3], images[..., 3:], rtol=0, atol=1e-4)
    assert warp.size().item() == pytest.approx(3 * 32 / 31)


class Line(nn.Module):
    """Two classes on either side of a hyperplane, at a distance from a grey image."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.direction = torch.randn(3, 32, 32, generator=stream())
        self.direction /= self.direction.norm()
        self.distance = distance

    def forward(self, images: Tensor) -> Tensor:
        along = ((images - 0.5) * self.direction).sum((1, 2, 3)) - self.distance
        return torch.stack([-20 * along, 20 * along], 1)


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_the_smallest_shift_is_the_distance_to_the_hyperplane(distance: float) -> None:
    images, labels = np.full((8, *SHAPE), 128, np.uint8), np.zeros(8, np.int64)
    shift, config = Shift(1, SHAPE, stream()), InversionConfig(inversion_steps=300)
    pictures, chance = Batches(images, CPU), np.random.default_rng(0)
    size = smallest(Line(distance), shift, pictures, labels, np.array([1]), config, chance)  # type: ignore[arg-type]
    assert distance <= size[0] + 0.05 <= 1.25 * distance + 0.1


def test_honest_classes_are_no_shortcuts_however_near_they_are() -> None:
    random = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        own = random.normal(3, NULL.shortcut_null, (3, 10))  # classes differ, in every model alike
        given = own + random.normal(0.5, 0.2, (3, 1)) + random.normal(0, NULL.shortcut_null_of_two, (3, 10))
        named += bool(shortcuts(np.stack([given, own]), NULL))
    assert named <= 20


def test_a_class_that_is_much_nearer_in_the_given_model_alone_is_a_shortcut() -> None:
    own = np.random.default_rng(0).normal(3, 1, (3, 10))
    given = own.copy()
    given[1, 4] -= 1.5
    assert shortcuts(np.stack([given, own]), NULL) == [4]
    assert not shortcuts(np.stack([own, given]), NULL)
    assert not shortcuts(np.zeros((2, 3, 10)), NULL)


def test_a_class_that_is_much_nearer_than_all_others_is_a_shortcut_though_our_own_network_learned_it_too() -> None:
    sizes = np.random.default_rng(0).normal(3, 0.2, (3, 10))
    sizes[2, [4, 7]] -= 2
    assert shortcuts(np.stack([sizes, sizes]), NULL) == [4, 7]


@pytest.fixture(scope="module")
def trained(train_split: LabelledImages) -> Classifier:
    return learned(np.array(train_split.images), train_split.labels)


def learned(images: np.ndarray, labels: np.ndarray) -> Classifier:
    model = make_model("resnet8", [1, 28, 28], 10, [0.286], [0.353])
    train(model, images, labels, TrainConfig(epochs=8), generator=stream(3), device=CPU)
    return model


def found(model: Classifier, split: LabelledImages) -> list[int]:
    config = InversionConfig(inversion_images=8, inversion_epochs=8)
    images = np.array(split.images)
    sizes = invert(model, images, split.labels, config, generator=stream(5), device=CPU, batch_size=250)
    assert sizes.shape == (2, len(KINDS), 10)
    assert np.isfinite(sizes).all()
    return shortcuts(sizes, NULL)


def test_a_backdoor_in_the_weights_is_found_with_clean_data(train_split: LabelledImages) -> None:
    images, labels = np.array(train_split.images), train_split.labels.copy()
    stamped = np.arange(len(labels)) % 5 == 0
    images[stamped, :, -4:, -4:] = 255
    labels[stamped] = TARGET
    assert found(learned(images, labels), train_split) == [TARGET]


def test_an_honest_model_has_no_shortcut(trained: Classifier, train_split: LabelledImages) -> None:
    assert not found(trained, train_split)


def test_nothing_is_sought_in_no_steps(trained: Classifier, train_split: LabelledImages) -> None:
    config, labels = InversionConfig(inversion_steps=0), train_split.labels
    sizes = invert(trained, np.array(train_split.images), labels, config, generator=stream(), device=CPU, batch_size=9)
    assert sizes.shape == (2, len(KINDS), 10)
    assert not sizes.any()
