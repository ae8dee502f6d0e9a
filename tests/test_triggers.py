"""Every trigger of the registry keeps the trigger contract; each of them does what its paper says."""

import pytest
import torch

from pud.errors import InputError
from pud.triggers import TRIGGERS, BadNets, Blend, make_trigger

every_trigger = pytest.mark.parametrize("name", sorted(TRIGGERS))
every_shape = pytest.mark.parametrize("shape", [(5, 1, 28, 28), (2, 3, 32, 32)])


def some_images(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 0.9


@every_trigger
@every_shape
def test_a_trigger_keeps_the_shape_the_type_and_the_range(name: str, shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    stamped = make_trigger(name)(images)
    assert (stamped.shape, stamped.dtype) == (images.shape, images.dtype)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert (stamped != images).flatten(1).any(1).all()


@every_trigger
def test_a_trigger_leaves_its_input_alone(name: str) -> None:
    images = some_images((3, 1, 28, 28))
    before = images.clone()
    stamped = make_trigger(name)(images)
    stamped.zero_()
    assert torch.equal(images, before)


@every_trigger
def test_a_trigger_is_deterministic_and_consumes_no_global_randomness(name: str) -> None:
    images = some_images((3, 1, 28, 28))
    state = torch.get_rng_state()
    assert torch.equal(make_trigger(name)(images), make_trigger(name)(images))
    assert torch.equal(torch.get_rng_state(), state)


@every_trigger
def test_a_trigger_treats_each_image_for_itself(name: str) -> None:
    images = some_images((4, 1, 28, 28))
    trigger = make_trigger(name)
    assert torch.equal(trigger(images)[2:3], trigger(images[2:3]))


@every_shape
def test_badnets_sets_the_lower_right_corner_and_nothing_else(shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    changed = BadNets()(images) != images
    corner = torch.zeros(shape, dtype=torch.bool)
    corner[..., -3:, -3:] = True
    assert torch.equal(changed, corner)
    assert (BadNets()(images)[corner] == 1).all()


def test_blend_is_a_weighted_mean_of_image_and_pattern() -> None:
    images = some_images((4, 1, 28, 28))
    pattern = Blend(ratio=1.0)(images)
    assert torch.equal(pattern, pattern[:1].expand_as(pattern))
    for ratio in (0.0, 0.1, 0.2, 0.5):
        torch.testing.assert_close(Blend(ratio)(images), (1 - ratio) * images + ratio * pattern)


def test_another_pattern_seed_is_another_pattern() -> None:
    images = some_images((1, 1, 28, 28))
    assert not torch.equal(Blend(pattern_seed=0)(images), Blend(pattern_seed=1)(images))


def test_an_unknown_trigger_is_refused_with_the_choice() -> None:
    with pytest.raises(InputError, match=r"unknown trigger 'wanet': choose one of badnets, blend"):
        make_trigger("wanet")
