"""Every attack of the registry keeps the contract; each of them does what its paper says."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from experiments.attack_sheet import GAP, ROWS, SIDE, TEXT, Strength, draw, measured
from pud.attacks import ATTACKS, attack_config
from pud.attacks.adaptive_blend import AdaptiveBlendConfig
from pud.attacks.adaptive_consistency import AdaptiveConsistencyConfig
from pud.attacks.badnets import white_square
from pud.attacks.blend import blended, noise_pattern
from pud.attacks.contract import Attack, AttackerKnowledge, amplified
from pud.attacks.input_aware import diversity
from pud.attacks.label_consistent import LabelConsistentConfig, four_corners
from pud.attacks.low_frequency import LowFrequencyConfig, smooth_pattern
from pud.attacks.narcissus import NarcissusConfig, narcissus
from pud.attacks.sig import SigConfig, sine
from pud.attacks.smooth_warp import SmoothWarpConfig, sine_field
from pud.attacks.surrogate import trained
from pud.attacks.wanet import WaNetConfig, warp_field, warped
from pud.base.config import as_parameters, from_mapping, words_of
from pud.base.errors import InputError
from pud.data.images import LabelledImages
from pud.models.folded import fold_batchnorm

DOCS = Path(__file__).parents[1] / "docs"
CIFAR10 = Path(__file__).parent / "data/cifar10-sample/test-00000-of-00001.parquet"
NAMES = ATTACKS.names()
every_attack = pytest.mark.parametrize("name", NAMES)
every_shape = pytest.mark.parametrize("shape", [(5, 1, 28, 28), (2, 3, 32, 32)])
CLEAN_LABEL = {"sig", "sig-covered", "label-consistent", "narcissus"}
WITH_COVERS = {
    *("wanet", "input-aware", "adaptive-blend", "adaptive-consistency", "source-specific"),
    *("adaptive-patch", "k-way", "sig-covered"),
}
DRAWN = [
    *("adaptive-blend", "adaptive-consistency", "blend", "wanet"),
    *("adaptive-patch", "k-way", "low-frequency", "smooth-warp"),
]
QUICK: dict[str, dict[str, object]] = {
    "narcissus": {"steps": 20, "surrogate_epochs": 2, "surrogate_batch_size": 16},
    "neighbours": {"surrogate_epochs": 1},
}


def some_images(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 0.9


def known_of(split: LabelledImages, seed: int = 0) -> AttackerKnowledge:
    generator = torch.Generator().manual_seed(seed)
    images, labels = np.array(split.images[:256]), split.labels[:256]
    return AttackerKnowledge(images, labels, 10, torch.zeros_like, generator, torch.device("cpu"))


@pytest.fixture(scope="session")
def colours() -> LabelledImages:
    """64 pictures of CIFAR-10."""
    table = pd.read_parquet(CIFAR10).head(64)
    pixels = [np.array(Image.open(io.BytesIO(one["bytes"]))).transpose(2, 0, 1) for one in table["img"]]
    return LabelledImages(
        np.stack(pixels), table["label"].to_numpy(np.int64, copy=True), tuple("0123456789"), "cifar10", ""
    )


def made(name: str, knowledge: AttackerKnowledge, **settings: object) -> Attack:
    return ATTACKS.find(name).make(knowledge, attack_config(name, QUICK.get(name, {}) | settings))


@pytest.fixture(scope="session")
def attacks(train_split: LabelledImages) -> dict[str, Attack]:
    """Every attack on 256 real images, made once."""
    return {name: made(name, known_of(train_split)) for name in NAMES}


@every_attack
def test_an_attack_s_settings_are_a_frozen_config_that_survives_a_pipeline_and_says_what_each_is(name: str) -> None:
    config = ATTACKS.find(name).config
    assert from_mapping(config, as_parameters(config())) == config()
    assert [one.name for one in dataclasses.fields(config) if not words_of(config, one.name)] == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config(), dataclasses.fields(config)[0].name, 1)
    with pytest.raises(InputError, match=f"{config.__name__} has no setting strange"):
        attack_config(name, {"strange": 1})


@every_attack
def test_every_stamp_keeps_the_shape_the_type_and_the_range(
    name: str, attacks: dict[str, Attack], train_split: LabelledImages
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
def test_what_an_attack_does_depends_on_its_generator_alone(name: str, train_split: LabelledImages) -> None:
    images = some_images((4, 1, 28, 28))
    torch.manual_seed(1)
    first = made(name, known_of(train_split))
    torch.manual_seed(2)
    again = made(name, known_of(train_split))
    torch.testing.assert_close((first.plant or first.trigger)(images), (again.plant or again.trigger)(images))


@pytest.mark.parametrize("name", DRAWN)
def test_a_pattern_or_warp_is_of_the_seed(name: str, train_split: LabelledImages) -> None:
    images = some_images((4, 1, 28, 28))
    first, again, other = (made(name, known_of(train_split, seed)).trigger(images) for seed in (0, 0, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("name", [*DRAWN, "badnets", "sig"])
def test_making_a_trigger_draws_nothing_from_the_stream_that_chooses_the_images(
    name: str, train_split: LabelledImages
) -> None:
    known = known_of(train_split)
    before = known.generator.get_state()
    made(name, known)
    assert torch.equal(known.generator.get_state(), before)


@every_attack
def test_an_attack_says_what_it_changes(name: str, attacks: dict[str, Attack]) -> None:
    assert attacks[name].clean_label == (name in CLEAN_LABEL)
    assert (attacks[name].covers > 0) == (attacks[name].cover is not None) == (name in WITH_COVERS)


@every_shape
def test_badnets_sets_the_lower_right_corner_and_nothing_else(shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    changed = white_square(images, 3) != images
    corner = torch.zeros(shape, dtype=torch.bool)
    corner[..., -3:, -3:] = True
    assert torch.equal(changed, corner)
    assert (white_square(images, 3)[corner] == 1).all()


@every_shape
def test_blend_is_a_weighted_mean_of_image_and_pattern(shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    pattern = torch.rand(shape[1:], generator=torch.Generator().manual_seed(2))
    for ratio in (0.0, 0.1, 0.2, 0.5, 1.0):
        expected = (1 - ratio) * images.numpy() + ratio * pattern.numpy()
        np.testing.assert_allclose(blended(images, pattern, ratio), expected, atol=1e-6)


def test_blend_s_pattern_is_uniform_noise_of_the_images_shape(train_split: LabelledImages) -> None:
    pattern = noise_pattern(known_of(train_split))
    assert pattern.shape == (1, 28, 28)
    assert pattern.mean() == pytest.approx(0.5, abs=0.05)
    assert pattern.std() == pytest.approx(1 / 12**0.5, abs=0.02)


def test_sig_is_a_sine_of_six_waves_along_each_row() -> None:
    config = SigConfig()
    wave = sine(torch.full((1, 1, 28, 28), 0.5), config.amplitude, config.frequency) - 0.5
    spectrum = torch.fft.rfft(wave[0, 0, 0]).abs()
    assert int(spectrum.argmax()) == 6
    assert wave.max() <= config.amplitude == 40 / 255
    assert torch.equal(wave[0, 0], wave[0, 0, :1].expand(28, 28))


def test_wanet_s_field_is_smooth_and_half_a_pixel_strong() -> None:
    field = warp_field(28, 28, WaNetConfig(), torch.Generator().manual_seed(0)) * 28 / 2  # a grid unit: half an image
    assert 0.1 < field.abs().mean() < 0.5
    assert (field[:, 1:] - field[:, :-1]).abs().max() < 0.3


def test_a_warp_without_a_field_is_the_image() -> None:
    images = some_images((3, 1, 28, 28))
    torch.testing.assert_close(warped(images, torch.zeros(1, 28, 28, 2)), images, atol=1e-5, rtol=0)


def test_wanet_s_covers_are_jittered_anew(attacks: dict[str, Attack]) -> None:
    images = some_images((3, 1, 28, 28))
    cover = attacks["wanet"].cover
    assert cover is not None
    assert not torch.equal(cover(images), cover(images))
    assert attacks["wanet"].covers == 2


def test_an_input_aware_trigger_differs_from_image_to_image(
    attacks: dict[str, Attack], train_split: LabelledImages
) -> None:
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
    planted, patched = plant(images), four_corners(images, 5)
    corners = torch.zeros(28, 28, dtype=torch.bool)
    corners[:5, :5] = corners[-5:, :5] = corners[:5, -5:] = corners[-5:, -5:] = True
    torch.testing.assert_close(planted[..., corners], patched[..., corners])
    assert torch.equal(patched[..., ~corners], images[..., ~corners])
    assert (planted - images)[..., ~corners].abs().max() <= LabelConsistentConfig().epsilon + 1e-6


def test_adaptive_blend_plants_half_of_the_pieces_and_triggers_with_all(
    attacks: dict[str, Attack], train_split: LabelledImages
) -> None:
    images = torch.zeros(40, 1, 28, 28)
    plant = attacks["adaptive-blend"].plant
    assert plant is not None
    pattern, planted = noise_pattern(known_of(train_split)), plant(images)
    assert (planted != 0).float().mean() == pytest.approx(AdaptiveBlendConfig().shown, abs=0.01)
    assert not torch.equal(planted[0], planted[1])
    torch.testing.assert_close(planted[planted != 0], (0.15 * pattern.expand_as(planted))[planted != 0])
    torch.testing.assert_close(attacks["adaptive-blend"].trigger(images)[0], 0.2 * pattern)


def test_the_attacker_who_knows_the_defence_covers_with_its_perturbations(attacks: dict[str, Attack]) -> None:
    images = some_images((100, 1, 28, 28))
    cover = attacks["adaptive-consistency"].cover
    assert cover is not None
    noise = cover(images)[::2] - attacks["adaptive-consistency"].trigger(images)[::2]
    assert noise.std() == pytest.approx(AdaptiveConsistencyConfig().noise_level, rel=0.1)


def test_a_trigger_twice_as_strong_at_test_time_is_that_of_twice_the_setting(train_split: LabelledImages) -> None:
    images = torch.from_numpy(np.array(train_split.images[:20])).float() / 255
    for name, setting, value in (
        ("blend", "ratio", 0.1),
        ("sig", "amplitude", 10 / 255),
        ("sig-changed", "amplitude", 10 / 255),
        ("low-frequency", "amplitude", 8 / 255),
    ):
        louder = made(name, known_of(train_split), **{setting: value, "times_at_test": 2})
        weak, strong = (made(name, known_of(train_split), **{setting: one}).trigger for one in (value, 2 * value))
        assert louder.plant is not None
        torch.testing.assert_close(louder.plant(images), weak(images))
        torch.testing.assert_close(louder.trigger(images), strong(images))
    patch = partial(white_square, size=3)
    torch.testing.assert_close(amplified(patch, 2)(images), patch(images))


@pytest.mark.parametrize(
    ("name", "settings", "planted", "triggered"),
    [
        ("blend", {}, 0.2, 0.2),
        ("blend", {"ratio": 0.1}, 0.1, 0.1),  # the paper's
        ("sig", {}, 40 / 255, 40 / 255),
        ("sig", {"amplitude": 10 / 255}, 10 / 255, 10 / 255),  # the paper's
        ("sig-covered", {}, 40 / 255, 40 / 255),
        ("low-frequency", {}, 16 / 255, 16 / 255),
        ("narcissus", {}, 16 / 255, 48 / 255),
        ("adaptive-patch", {}, 0.5, 1),
        ("k-way", {}, 1, 1),
    ],
)
def test_no_pixel_changes_more_than_is_said(
    name: str, settings: dict[str, object], planted: float, triggered: float, colours: LabelledImages
) -> None:
    attack = made(name, known_of(colours), **settings)
    images = torch.from_numpy(colours.images).float() / 255
    for stamp, bound in ((attack.plant or attack.trigger, planted), (attack.trigger, triggered)):
        change = (stamp(images) - images).abs().max()
        assert 0.7 * bound < change <= bound + 1e-6


def test_a_low_frequency_pattern_has_no_others(colours: LabelledImages) -> None:
    config = LowFrequencyConfig()
    pattern = smooth_pattern((3, 32, 32), config, torch.Generator().manual_seed(0))
    spectrum = torch.fft.fft2(pattern).abs()
    inside = torch.zeros(32, 32, dtype=torch.bool)
    near = [0, 1, 2, -2, -1]
    inside[np.ix_(near, near)] = True
    inside[0, 0] = False
    assert spectrum[:, ~inside].max() < 1e-4
    assert (spectrum[:, inside] > 1e-3).all()
    assert pattern.abs().max() == pytest.approx(config.amplitude)


def test_an_adaptive_patch_is_faint_and_alone_in_training_and_strong_beside_another_at_test_time(
    colours: LabelledImages,
) -> None:
    attack, images = made("adaptive-patch", known_of(colours)), torch.zeros(80, 3, 32, 32)
    assert attack.plant is not None
    planted, triggered = attack.plant(images), attack.trigger(images)
    corners = [(slice(-5, None), slice(5)), (slice(5), slice(5)), (slice(-5, None), slice(-5, None))]
    corners.append((slice(5), slice(-5, None)))
    pattern = torch.rand(3, 32, 32, generator=known_of(colours).pattern_stream())
    found = []
    for corner in corners:
        hit = (planted[..., *corner] > 0).flatten(1).any(1)
        assert hit.sum() == 20
        found.append(float((planted[hit][..., *corner] / pattern[:, *corner]).mean()))
    assert sorted(found) == pytest.approx([0.2, 0.3, 0.5, 0.5])
    assert ((planted > 0).any(1).sum((1, 2)) == 25).all()
    for corner, opacity in zip(corners, found, strict=True):
        shown = pattern[:, *corner].expand(80, -1, -1, -1)
        torch.testing.assert_close(triggered[..., *corner], shown if opacity > 0.4 else torch.zeros_like(shown))


def test_k_way_plants_one_of_k_pixels_and_triggers_with_all(colours: LabelledImages) -> None:
    attack, images = made("k-way", known_of(colours), ways=5), torch.full((50, 3, 32, 32), -1.0)
    assert attack.plant is not None
    planted, triggered = ((stamp(images) > -1).all(1) for stamp in (attack.plant, attack.trigger))
    assert (planted.sum((1, 2)) == 1).all()
    assert (planted.sum(0)[planted.any(0)] == 10).all()
    assert torch.equal(triggered, planted.any(0).expand(50, -1, -1))
    assert triggered[0].sum() == 5


def test_a_narcissus_trigger_makes_the_target_class_more_itself(train_split: LabelledImages) -> None:
    config = NarcissusConfig(steps=30, surrogate_epochs=4, surrogate_batch_size=16)
    own = fold_batchnorm(trained(known_of(train_split), config))
    known = known_of(train_split)
    attack = narcissus(known, config)
    images = torch.from_numpy(known.images[known.labels == 0]).float() / 255
    assert attack.plant is not None
    before, planted = (own(x).softmax(1)[:, 0].mean() for x in (images, attack.plant(images)))
    assert planted > before + 0.05


def test_a_smooth_warp_moves_no_pixel_further_than_is_said() -> None:
    config = SmoothWarpConfig()
    field = sine_field(32, 28, config, torch.Generator().manual_seed(0)) * torch.tensor([27, 31]) / 2
    assert 0.9 * config.displacement < field.abs().max() <= config.displacement + 1e-6
    assert field.abs().mean() == pytest.approx(config.displacement * 2 / np.pi, rel=0.1)
    assert (field[:, 1:] - field[:, :-1]).abs().max() < 0.5


def test_an_unknown_attack_is_refused_with_the_choice() -> None:
    with pytest.raises(InputError, match=r"unknown attack 'nosuch': choose one of adaptive-blend, "):
        ATTACKS.find("nosuch")


def test_input_aware_refuses_sizes_that_its_generator_cannot_keep(train_split: LabelledImages) -> None:
    known = known_of(train_split)
    narrow = dataclasses.replace(known, images=known.images[..., :27])
    with pytest.raises(InputError, match="multiples of 4, not 28 x 27"):
        made("input-aware", narrow)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("badnets", {"size": 0}, "size is 0: give a number of at least 1"),
        ("blend", {"ratio": 1.5}, "above 0 and at most 1"),
        ("source-specific", {"sources": 9}, "leaves none for covers"),
        ("input-aware", {"poison_share": 0.6, "cross_share": 0.6}, "more than a batch"),
        ("label-consistent", {"surrogate_architecture": "resnet9"}, "resnet9"),
        ("several", {"triggers": 5}, "a number from 2 to 4"),
        ("neighbours", {"sources": 10}, "give fewer sources"),
        ("adaptive-patch", {"opacities": [0.1] * 5}, "at most 4 opacities"),
        ("adaptive-patch", {"size": 15}, "4 patches of 15 pixels into corners of 28 x 28"),
        ("k-way", {"ways": 5, "size": 14}, "no room for 5 patches of 14 pixels in 28 x 28"),
        ("blend", {"times_at_test": 0}, "times_at_test is 0: give a number above 0"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(
    name: str, settings: dict[str, object], sentence: str, train_split: LabelledImages
) -> None:
    with pytest.raises(InputError, match=sentence):
        made(name, known_of(train_split), **settings)


@pytest.mark.parametrize(
    ("name", "setting", "weak", "strong"),
    [
        ("badnets", "size", 2, 4),
        ("blend", "ratio", 0.1, 0.4),
        ("sig", "amplitude", 0.05, 0.2),
        ("wanet", "strength", 0.2, 1.0),
        ("adaptive-blend", "test_ratio", 0.1, 0.4),
        ("blend", "times_at_test", 1, 2),
        ("low-frequency", "amplitude", 0.05, 0.1),
        ("smooth-warp", "displacement", 1, 2),
        ("adaptive-patch", "test_opacity", 0.5, 1),
        ("k-way", "ways", 2, 4),
    ],
)
def test_a_stronger_setting_changes_an_image_more(
    name: str, setting: str, weak: float, strong: float, train_split: LabelledImages
) -> None:
    images = torch.from_numpy(np.array(train_split.images[:20])).float() / 255
    change = [
        (made(name, known_of(train_split), **{setting: value}).trigger(images) - images).abs().mean()
        for value in (weak, strong)
    ]
    assert change[1] > 1.2 * change[0]


@every_attack
def test_an_attack_stands_in_the_tables_of_what_there_is_and_how_strong_it_is(name: str) -> None:
    for page in ("method", "attacks"):
        rows = [line for line in (DOCS / f"{page}.md").read_text().splitlines() if line.startswith("|")]
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), f"docs/{page}.md lacks it"


def test_a_strength_is_that_of_the_change() -> None:
    before = np.full((2, 1, 2, 2), 100, np.uint8)
    after = before.copy()
    after[:, 0, 0] = [151, 49]  # two of four values, a fifth up and down
    strength = Strength.of(before, after)
    assert strength == pytest.approx((51, 0.2 * 2**0.5, 10 * np.log10(1 / 0.02), 0.5))


def test_a_sheet_of_pictures_is_small_and_shows_each_before_and_after(tmp_path: Path, colours: LabelledImages) -> None:
    train = dataclasses.replace(colours, labels=np.arange(64) % 10)
    rows = [measured("blend", {"ratio": 0.1}, train, train)] * ROWS
    draw(tmp_path / "sheet.png", rows)
    assert (tmp_path / "sheet.png").stat().st_size < 200_000
    assert (rows[0].name, round(rows[0].planted.largest)) == ("blend, ratio 0.1", 25)
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    for column, picture in enumerate((rows[0].pictures[0], rows[0].pictures[1])):
        left = TEXT + column * (SIDE + GAP)
        np.testing.assert_array_equal(sheet[24 : 24 + SIDE : 3, left : left + SIDE : 3], picture.transpose(1, 2, 0))
