"""Development and evaluation share no picture, seed or attack that could leak, and the cells keep to their own."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from experiments import plan
from experiments.first_runs_cells import INNOCENT, Cell, infected, innocent, planned, write_data
from experiments.splits import ATTACKS, DEVELOPMENT, EVALUATION, PICTURES, SEEDS, Pictures, Planted, use_of
from pud import attacks
from pud.base.errors import InputError
from pud.data.images import LabelledImages
from pud.data.readers import open_split
from pud.data.readers.npy import write_split


@pytest.fixture(autouse=True)
def _pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of Fashion-MNIST in the place of two sets."""
    some = Pictures(DEVELOPMENT, "a sample", 10, 0, {"resnet8": 1}, validation=0.2)
    monkeypatch.setitem(PICTURES, "fashion-dev", some)
    monkeypatch.setitem(PICTURES, "fashion", dataclasses.replace(some, use=EVALUATION, validation=0.0))


def made(cell: Cell, source: Path, out: Path) -> tuple[LabelledImages, LabelledImages]:
    """Training images and those that are measured on."""
    assert write_data(cell, source, out) == len(open_split(out / "train").labels)
    return open_split(out / "train"), open_split(out / "test")


def images_of(split: LabelledImages) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def test_every_seed_that_was_ever_run_is_for_development_and_none_is_for_both() -> None:
    run = {cell.seed for cell in plan.all_cells()}
    assert run <= set(SEEDS[DEVELOPMENT])
    assert SEEDS[DEVELOPMENT].stop <= SEEDS[EVALUATION].start


def test_every_planned_cell_is_of_one_use_has_a_name_of_its_own_and_is_planned_once() -> None:
    for use in SEEDS:
        cells = planned(use)
        assert {cell.use for cell in cells} == {use}
        assert max(Counter(cell.name for cell in cells).values()) == 1
    assert not {cell.name for cell in planned(DEVELOPMENT)} & {cell.name for cell in planned(EVALUATION)}


@pytest.mark.parametrize(
    ("data", "seed", "attack"),
    [("cifar-dev", 1_000, ""), ("cifar", 5, ""), ("cifar-dev", 0, "sig"), ("cifar-dev", 0, "input-aware")],
)
def test_a_cell_that_mixes_both_is_refused(data: str, seed: int, attack: str) -> None:
    with pytest.raises(InputError, match=f"{data} is for"):
        use_of(data, seed, attack)


def test_evaluation_has_every_attack_that_there_is_and_development_three() -> None:
    assert {one.attack for one in ATTACKS[DEVELOPMENT]} == {"badnets", "blend", "wanet"}
    missing = set(attacks.ATTACKS.names()) - {one.attack for one in ATTACKS[EVALUATION]}
    assert not missing, f"name them in experiments/splits.py: {missing}"


@pytest.mark.parametrize("planted", ATTACKS[EVALUATION], ids=str)
def test_an_attack_that_is_there_takes_its_settings_and_rates(planted: Planted) -> None:
    if planted.attack not in attacks.ATTACKS.names():
        pytest.skip(f"{planted.attack} is planned")
    attacks.attack_config(planted.attack, dict(planted.settings))


def test_thirty_innocent_sets_are_planned_from_2_to_100_classes() -> None:
    cells = [cell for cell in planned(EVALUATION) if not cell.rate and cell.network == "resnet8"]
    assert len(cells) == 30
    classes = {cell.classes or cell.pictures.classes for cell in cells}
    assert (min(classes), max(classes)) == (2, 100)
    assert {cell.noise for cell in cells} >= {0.0, 0.02, 0.05, 0.1}
    assert {cell.imbalance for cell in cells} == {1, 20}
    assert {cell.duplicates for cell in cells} == {0.0, 0.1, 0.3}
    assert all(INNOCENT in cell.name for cell in cells)


def test_development_never_opens_test_pictures_and_learns_from_none_that_it_measures_on(
    sample_folder: Path, train_split: LabelledImages, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").symlink_to(sample_folder / "train")  # and there is no test
    train, held = made(innocent("fashion-dev", 0), tmp_path / "data", tmp_path / "out")
    assert len(held.labels) == round(0.2 * len(train_split.labels))
    assert len(train.labels) + len(held.labels) == len(train_split.labels)
    assert images_of(train) | images_of(held) == images_of(train_split)
    assert not images_of(train) & images_of(held)


def test_evaluation_measures_on_the_test_pictures(
    sample_folder: Path, test_split: LabelledImages, tmp_path: Path
) -> None:
    _, held = made(innocent("fashion", 1_000), sample_folder, tmp_path / "out")
    assert np.array_equal(held.images, test_split.images)
    assert np.array_equal(held.labels, test_split.labels)


def test_frames_of_one_track_never_stand_on_both_sides() -> None:
    tracks = np.repeat(np.arange(20), 30)[:-1]  # of two classes, ten each; the very last one has 29
    labels = tracks // 10
    learned, held = Pictures(DEVELOPMENT, "", 2, 0, {}, validation=0.2, track=30).split(labels)
    assert set(tracks[learned]) == {*range(8), *range(10, 17)}  # nobody knows which is short: 17 is left out
    assert set(tracks[held]) == {8, 9, 18, 19}


def test_tracks_are_kept_apart_wherever_the_short_one_is() -> None:
    lengths = np.full(10, 30)
    for short in range(10):
        tracks = np.repeat(np.arange(10), lengths - (np.arange(10) == short))
        learned, held = Pictures(DEVELOPMENT, "", 1, 0, {}, validation=0.2, track=30).split(np.zeros_like(tracks))
        assert not set(tracks[learned]) & set(tracks[held])


def test_the_two_parts_of_fashion_mnist_share_no_picture() -> None:
    labels = np.arange(60_000) % 10
    both = [
        np.concatenate(Pictures(DEVELOPMENT, "", 10, 0, {}, rows=rows, validation=share).split(labels))
        for rows, share in (((0, 25_000), 0.2), ((25_000, None), 0.0))
    ]
    assert sorted(np.concatenate(both)) == list(range(60_000))


def test_other_pictures_are_refused_by_their_labels() -> None:
    for name in ("cifar-dev", "cifar", "gtsrb"):
        with pytest.raises(InputError, match="give the folder of these pictures"):
            PICTURES[name].split(np.zeros(100, np.int64))


def test_a_seed_draws_the_same_images_whatever_the_attack(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PICTURES, "fashion-dev", dataclasses.replace(PICTURES["fashion-dev"], images=300))
    planted = Planted("blend", settings=(("ratio", 0.1),))
    cells = [innocent("fashion-dev", 3), infected("fashion-dev", 3, planted, 0.1), innocent("fashion-dev", 4)]
    first, same, other = (made(cell, sample_folder, tmp_path / str(i))[0] for i, cell in enumerate(cells))
    assert cells[1].twin() == cells[0]
    assert first.digest == same.digest != other.digest


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_label_noise_is_as_much_as_is_said_and_never_right(sample_folder: Path, tmp_path: Path, share: float) -> None:
    plain, noisy = (
        made(innocent("fashion-dev", 0, noise=noise), sample_folder, tmp_path / str(noise))[0] for noise in (0, share)
    )
    assert np.array_equal(plain.images, noisy.images)
    assert (plain.labels != noisy.labels).sum() == round(share * len(plain.labels))


def test_duplicates_are_copies_of_other_images_with_their_labels(sample_folder: Path, tmp_path: Path) -> None:
    plain, doubled = (
        made(innocent("fashion-dev", 0, duplicates=share), sample_folder, tmp_path / str(share))[0]
        for share in (0, 0.3)
    )
    right = {image.tobytes(): label for image, label in zip(plain.images, plain.labels, strict=True)}
    assert len(doubled.labels) == len(plain.labels)
    assert len(plain.labels) - len(images_of(doubled)) == round(0.3 * len(plain.labels))
    assert all(right[image.tobytes()] == label for image, label in zip(doubled.images, doubled.labels, strict=True))


def test_the_largest_class_is_twenty_times_the_smallest(sample_folder: Path, tmp_path: Path) -> None:
    train, _ = made(innocent("fashion-dev", 0, imbalance=20), sample_folder, tmp_path / "out")
    sizes = np.bincount(train.labels)
    assert sizes.max() / sizes.min() == pytest.approx(20, rel=0.15)


def test_fewer_classes_are_numbered_anew_in_both_splits(sample_folder: Path, tmp_path: Path) -> None:
    train, held = made(innocent("fashion-dev", 0, classes=3), sample_folder, tmp_path / "out")
    assert len(train.classes) == 3
    assert set(train.labels) == set(held.labels) == {0, 1, 2}


def test_a_folder_of_other_classes_is_refused(sample_folder: Path, tmp_path: Path) -> None:
    split = open_split(sample_folder / "train")
    write_split(tmp_path / "train", split.images, split.labels, classes=list("abcdefghijk"), name="", source="")
    with pytest.raises(InputError, match="11 classes, not the 10"):
        write_data(innocent("fashion-dev", 0), tmp_path, tmp_path / "out")
