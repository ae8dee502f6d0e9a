"""Poisoning: exactly the asked-for images change, and the ground truth says which."""

import dataclasses

import numpy as np
import pytest
import torch

from pud.data import Split
from pud.errors import InputError
from pud.ground_truth import GroundTruth
from pud.poisoning import PoisonConfig, poison, stamp
from pud.triggers import TRIGGERS, BadNets, make_trigger

CONFIG = PoisonConfig(poison_rate=0.1, target_label=3, train_size=500)


def poisoned(
    train: Split, test: Split, config: PoisonConfig = CONFIG, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, GroundTruth]:
    generator = torch.Generator().manual_seed(seed)
    return poison(train, test, make_trigger(config.trigger), config, generator=generator)


@pytest.mark.parametrize(("rate", "count"), [(0.1, 50), (0.01, 5), (0.003, 2), (0.5, 250)])
def test_the_rate_is_a_share_of_the_training_set(
    rate: float, count: int, train_split: Split, test_split: Split
) -> None:
    config = dataclasses.replace(CONFIG, poison_rate=rate)
    images, labels, truth = poisoned(train_split, test_split, config)
    assert images.shape == (500, 1, 28, 28)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert truth.poisoned.sum() == count


@pytest.mark.parametrize("name", sorted(TRIGGERS))
def test_only_poisoned_images_change_and_they_carry_the_trigger(
    name: str, train_split: Split, test_split: Split
) -> None:
    config = dataclasses.replace(CONFIG, trigger=name, train_size=len(train_split.labels))  # so nothing is drawn
    images, labels, truth = poisoned(train_split, test_split, config)
    clean, hit = ~truth.poisoned, truth.poisoned
    np.testing.assert_array_equal(truth.true_labels, train_split.labels)
    np.testing.assert_array_equal(images[clean], train_split.images[clean])
    np.testing.assert_array_equal(labels[clean], train_split.labels[clean])
    np.testing.assert_array_equal(images[hit], stamp(np.array(train_split.images[hit]), make_trigger(name)))
    assert (labels[hit] == 3).all()


def test_no_image_of_the_target_class_is_poisoned(train_split: Split, test_split: Split) -> None:
    truth = poisoned(train_split, test_split, dataclasses.replace(CONFIG, poison_rate=0.8))[2]
    assert (truth.true_labels[truth.poisoned] != 3).all()


def test_triggered_test_images_exclude_the_target_class(train_split: Split, test_split: Split) -> None:
    truth = poisoned(train_split, test_split)[2]
    victims = test_split.labels != 3
    np.testing.assert_array_equal(truth.triggered_images, stamp(np.array(test_split.images[victims]), BadNets()))
    np.testing.assert_array_equal(truth.triggered_true_labels, test_split.labels[victims])
    assert set(truth.triggered_target_labels) == {3}
    assert len(truth.triggered_target_labels) == victims.sum() < len(test_split.labels)


def test_poison_depends_on_the_generator_alone(train_split: Split, test_split: Split) -> None:
    torch.manual_seed(1)
    first = poisoned(train_split, test_split)
    torch.manual_seed(2)
    again, other = poisoned(train_split, test_split), poisoned(train_split, test_split, seed=1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[2].poisoned, again[2].poisoned)
    assert (first[2].poisoned != other[2].poisoned).any()


def test_poisoning_does_not_write_into_the_data_set(train_split: Split, test_split: Split) -> None:
    train = dataclasses.replace(train_split, images=np.array(train_split.images), labels=train_split.labels.copy())
    poisoned(train, test_split, dataclasses.replace(CONFIG, train_size=len(train.labels)))
    np.testing.assert_array_equal(train.images, train_split.images)
    np.testing.assert_array_equal(train.labels, train_split.labels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"poison_rate": 0.0}, "poison rate 0.0 is not between 0 and 1"),
        ({"poison_rate": 1.0}, "poison rate 1.0 is not between 0 and 1"),
        ({"poison_rate": -0.1}, "is not between 0 and 1"),
        ({"poison_rate": float("nan")}, "is not between 0 and 1"),
        ({"poison_rate": 0.0001}, "asks for 0 of"),
        ({"poison_rate": 0.99}, "asks for 495 of"),
        ({"target_label": 10}, r"target class 10 is not there: fashion-mnist has classes 0\.\.9"),
        ({"target_label": -1}, "target class -1 is not there"),
        ({"train_size": 1501}, r"train size 1501 is not in 1\.\.1500"),
        ({"train_size": 0}, "train size 0 is not in"),
    ],
)
def test_what_cannot_be_is_refused(
    change: dict[str, float], sentence: str, train_split: Split, test_split: Split
) -> None:
    with pytest.raises(InputError, match=sentence):
        poisoned(train_split, test_split, dataclasses.replace(CONFIG, **change))
