"""Every attack of the registry keeps the contract; each of them does what its paper says."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pud.attacks import ATTACKS, find_attack
from pud.attacks.adaptive_blend import SHOWN
from pud.attacks.adaptive_consistency import NOISE
from pud.attacks.badnets import white_square
from pud.attacks.blend import blended, pattern_for
from pud.attacks.contract import Attack, Victim
from pud.attacks.input_aware import diversity
from pud.attacks.label_consistent import HARDENING, four_corners
from pud.attacks.sig import AMPLITUDE, sine
from pud.attacks.wanet import warp_field, warped
from pud.base.errors import InputError
from pud.data.images import Split

every_attack = pytest.mark.parametrize("name", sorted(ATTACKS))
every_shape = pytest.mark.parametrize("shape", [(5, 1, 28, 28), (2, 3, 32, 32)])
CLEAN_LABEL = {"sig", "label-consistent"}
WITH_COVERS = {"wanet", "input-aware", "adaptive-blend", "adaptive-consistency", "source-specific"}


def some_images(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 0.9


def victim_of(split: Split, seed: int = 0) -> Victim:
    generator = torch.Generator().manual_seed(seed)
    images, labels = np.array(split.images[:256]), split.labels[:256]
    return Victim(images, labels, 10, torch.zeros_like, generator, torch.device("cpu"))


@pytest.fixture(scope="session")
def attacks(train_split: Split) -> dict[str, Attack]:
    """Every attack on 256 real images, made once."""
    return {name: make(victim_of(train_split)) for name, make in ATTACKS.items()}


@every_attack
def test_every_stamp_keeps_the_shape_the_type_and_the_range(
    name: str, attacks: dict[str, Attack], train_split: Split
) -> None:
    images = torch.from_numpy(np.array(train_split.images[:6])).float() / 255
    before = images.clone()
    attack = attacks[name]
    for stamp in (attack.trigger, attack.plant or attack.trigger, attack.cover or attack.trigger):
        stamped = stamp(images)
        assert (stamped.shape, stamped.dtype) == (images.shape, images.dtype)
        assert stamped.min() >= 0
        assert stamped.max() <= 1
        assert (stamped != images).flatten(1).any(1).all()
        stamped.zero_()
        assert torch.equal(images, before)


@every_attack
def test_a_trigger_is_deterministic_and_treats_each_image_for_itself(name: str, attacks: dict[str, Attack]) -> None:
    images = some_images((4, 1, 28, 28))
    state = torch.get_rng_state()
    trigger = attacks[name].trigger
    assert torch.equal(trigger(images), trigger(images))
    torch.testing.assert_close(trigger(images)[2:3], trigger(images[2:3]))
    assert torch.equal(torch.get_rng_state(), state)


@every_attack
def test_what_an_attack_does_depends_on_its_generator_alone(name: str, train_split: Split) -> None:
    images = some_images((4, 1, 28, 28))
    torch.manual_seed(1)
    first = ATTACKS[name](victim_of(train_split))
    torch.manual_seed(2)
    again = ATTACKS[name](victim_of(train_split))
    torch.testing.assert_close((first.plant or first.trigger)(images), (again.plant or again.trigger)(images))


@every_attack
def test_an_attack_says_what_it_changes(name: str, attacks: dict[str, Attack]) -> None:
    assert attacks[name].clean_label == (name in CLEAN_LABEL)
    assert (attacks[name].covers > 0) == (attacks[name].cover is not None) == (name in WITH_COVERS)


@every_shape
def test_badnets_sets_the_lower_right_corner_and_nothing_else(shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    changed = white_square(images) != images
    corner = torch.zeros(shape, dtype=torch.bool)
    corner[..., -3:, -3:] = True
    assert torch.equal(changed, corner)
    assert (white_square(images)[corner] == 1).all()


@every_shape
def test_blend_is_a_weighted_mean_of_image_and_pattern(shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    pattern = blended(images, 1.0)
    assert torch.equal(pattern, pattern[:1].expand_as(pattern))
    for ratio in (0.0, 0.1, 0.2, 0.5):
        torch.testing.assert_close(blended(images, ratio), (1 - ratio) * images + ratio * pattern)


def test_sig_is_a_sine_of_six_waves_along_each_row() -> None:
    wave = sine(torch.full((1, 1, 28, 28), 0.5)) - 0.5
    spectrum = torch.fft.rfft(wave[0, 0, 0]).abs()
    assert int(spectrum.argmax()) == 6
    assert wave.max() <= AMPLITUDE
    assert torch.equal(wave[0, 0], wave[0, 0, :1].expand(28, 28))


def test_wanet_s_field_is_smooth_and_half_a_pixel_strong() -> None:
    field = warp_field(28, 28) * 28 / 2  # a grid unit is half an image
    assert 0.1 < field.abs().mean() < 0.5
    assert (field[:, 1:] - field[:, :-1]).abs().max() < 0.3


def test_a_warp_without_a_field_is_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(warped.__globals__, "STRENGTH", 0.0)
    images = some_images((3, 1, 28, 28))
    torch.testing.assert_close(warped(images), images, atol=1e-5, rtol=0)


def test_wanet_s_covers_are_jittered_anew(attacks: dict[str, Attack]) -> None:
    images = some_images((3, 1, 28, 28))
    cover = attacks["wanet"].cover
    assert cover is not None
    assert not torch.equal(cover(images), cover(images))
    assert attacks["wanet"].covers == 2


def test_an_input_aware_trigger_differs_from_image_to_image(attacks: dict[str, Attack], train_split: Split) -> None:
    images = torch.from_numpy(np.array(train_split.images[:2])).float() / 255
    change = attacks["input-aware"].trigger(images) - images
    assert not torch.equal(change[0], change[1])


def test_diversity_is_distance_of_images_over_distance_of_what_was_made() -> None:
    x, y = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.6)
    assert float(diversity(x, y, x, y / 2)) == pytest.approx(0.6 / (0.3 + 1e-3))


def test_a_label_consistent_plant_is_a_hardened_image_with_the_patches(attacks: dict[str, Attack]) -> None:
    images = some_images((3, 1, 28, 28))
    plant = attacks["label-consistent"].plant
    assert plant is not None
    planted, patched = plant(images), four_corners(images)
    corners = torch.zeros(28, 28, dtype=torch.bool)
    corners[:5, :5] = corners[-5:, :5] = corners[:5, -5:] = corners[-5:, -5:] = True
    torch.testing.assert_close(planted[..., corners], patched[..., corners])
    assert torch.equal(patched[..., ~corners], images[..., ~corners])
    assert (planted - images)[..., ~corners].abs().max() <= HARDENING.epsilon + 1e-6


def test_adaptive_blend_plants_half_of_the_pieces_and_triggers_with_all(attacks: dict[str, Attack]) -> None:
    images = torch.zeros(40, 1, 28, 28)
    plant = attacks["adaptive-blend"].plant
    assert plant is not None
    pattern, planted = pattern_for(images), plant(images)
    assert (planted != 0).float().mean() == pytest.approx(SHOWN, abs=0.01)
    assert not torch.equal(planted[0], planted[1])
    torch.testing.assert_close(planted[planted != 0], (0.15 * pattern.expand_as(planted))[planted != 0])
    torch.testing.assert_close(attacks["adaptive-blend"].trigger(images)[0], 0.2 * pattern)


def test_the_attacker_who_knows_the_defence_covers_with_its_perturbations(attacks: dict[str, Attack]) -> None:
    images = some_images((100, 1, 28, 28))
    cover = attacks["adaptive-consistency"].cover
    assert cover is not None
    noise = cover(images)[::2] - blended(images)[::2]
    assert noise.std() == pytest.approx(NOISE, rel=0.1)


def test_an_unknown_attack_is_refused_with_the_choice() -> None:
    with pytest.raises(InputError, match=r"unknown trigger 'nosuch': choose one of adaptive-blend, "):
        find_attack("nosuch")


def test_input_aware_refuses_sizes_that_its_generator_cannot_keep(train_split: Split) -> None:
    victim = victim_of(train_split)
    narrow = Victim(victim.images[..., :27], victim.labels, 10, torch.zeros_like, victim.generator, victim.device)
    with pytest.raises(InputError, match="multiples of 4, not 28 x 27"):
        ATTACKS["input-aware"](narrow)
