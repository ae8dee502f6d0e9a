"""Whether a model knows its training images is told however unequal the classes are; what would mend it, by trying."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from small import small_classifier
from taught import MEAN, STD, easy_split, taught

from pud.data.images import LabelledImages
from pud.exchange.models import reorder, turn_channels
from pud.exchange.sanity import USUAL, Sanity, check_model, find_normalisation, normalise
from pud.models.contract import Classifier
from pud.models.training import TrainConfig, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split(train_split: LabelledImages) -> LabelledImages:
    return easy_split(train_split, side=7)


@pytest.fixture(scope="module")
def model(split: LabelledImages) -> Classifier:
    return taught("resnet8", split)


def checked(model: Classifier, split: LabelledImages) -> Sanity:
    return check_model(model, split, seed=0, device=CPU)


def test_a_model_that_knows_its_images_needs_no_remedy(model: Classifier, split: LabelledImages) -> None:
    found = checked(model, split)
    assert found.known
    assert found.remedy == ""
    assert found.accuracy > 0.9
    assert found.chance == np.bincount(split.labels).max() / len(split.labels)


def test_always_naming_the_commonest_class_is_chance_and_not_knowledge(split: LabelledImages) -> None:
    """Nine tenths of the images are of one class: the accuracy says nothing."""
    labels = np.where(np.arange(len(split.labels)) % 10, 0, split.labels % 3 + 1)
    unequal = dataclasses.replace(split, labels=labels)
    model = taught("resnet8", split)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
    found = checked(model, unequal)
    assert found.accuracy == pytest.approx(0.9, abs=0.02)
    assert found.knowledge == 0
    assert found.at_chance
    assert not found.known


@pytest.mark.parametrize("whose", USUAL)
def test_every_usual_normalisation_is_told_from_the_others(
    whose: str, split: LabelledImages, train_split: LabelledImages
) -> None:
    mean, std = USUAL[whose]
    data = split if len(mean) == 3 or whose in ("none", "that of images from -1 to 1") else easy_split(train_split, 1)
    channels = data.images.shape[1]
    model = taught("resnet8", data, mean=mean * (channels // len(mean)), std=std * (channels // len(mean)))
    own = checked(model, data)
    normalise(model, (-3.0,), (0.2,))
    found, score = find_normalisation(model, data, seed=0, device=CPU)
    assert score > own.accuracy - 0.05
    normalise(model, found.mean, found.std)
    assert checked(model, data).accuracy > own.accuracy - 0.05


def test_what_is_told_mends_the_model_and_the_model_is_left_alone(model: Classifier, split: LabelledImages) -> None:
    wrong = copy.deepcopy(model)
    normalise(wrong, (0.0,), (1 / 255,))
    before = {name: one.clone() for name, one in wrong.state_dict().items()}
    remedy = checked(wrong, split).remedy
    assert "if the normalisation were ImageNet's: give --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (" in remedy
    assert [name for name, one in wrong.state_dict().items() if not torch.equal(one, before[name])] == []


def test_two_faults_at_once_are_told_with_both_flags(model: Classifier, split: LabelledImages) -> None:
    wrong = copy.deepcopy(model)
    normalise(wrong, (0.0,), (1 / 255,))
    turn_channels(wrong)
    assert "and it took blue first: give --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --bgr (" in (
        checked(wrong, split).remedy
    )
    normalise(wrong, MEAN, STD)
    reorder(wrong, (1, 0, 2, 3))
    assert "give --bgr --classes sandal,trouser,bag,boot (" in checked(wrong, split).remedy


def test_where_nothing_helps_nothing_is_told(model: Classifier, split: LabelledImages) -> None:
    labels = np.random.default_rng(0).integers(4, size=len(split.labels))
    found = checked(model, dataclasses.replace(split, labels=labels))
    assert found.at_chance
    assert found.remedy == ""


def test_a_network_that_learned_nothing_is_not_mended_by_luck(model: Classifier, split: LabelledImages) -> None:
    """Its answers fall into groups that some order and normalisation fit: four in ten images, not enough to know."""
    random = copy.deepcopy(model)
    for seed in range(2):
        torch.nn.init.normal_(random.head.weight, generator=torch.Generator().manual_seed(seed))
        assert checked(random, split).remedy == ""


def test_a_model_whose_labels_are_partly_wrong_is_mended_too(model: Classifier, split: LabelledImages) -> None:
    """Of the labels 3 in 10 are wrong, whatever is mended."""
    random = np.random.default_rng(0)
    labels = np.where(random.random(len(split.labels)) < 0.4, random.integers(4, size=len(split.labels)), split.labels)
    wrong = copy.deepcopy(model)
    turn_channels(wrong)
    assert "give --bgr (" in checked(wrong, dataclasses.replace(split, labels=labels)).remedy
    assert checked(model, dataclasses.replace(split, labels=labels)).remedy == ""


def test_an_order_that_only_fits_the_images_it_was_found_on_is_not_told(model: Classifier) -> None:
    """With as many classes as this, some order fits random answers: it is held against other images."""
    random = np.random.default_rng(0)
    k = 100
    images = random.integers(256, size=(1000, 3, 14, 14), dtype=np.uint8)
    split = LabelledImages(images, random.integers(k, size=1000), tuple(map(str, range(k))), "noise", "", "")
    learned = taught("resnet8", split)
    assert checked(learned, dataclasses.replace(split, labels=random.permutation(split.labels))).remedy == ""


def test_the_fault_of_a_trained_model_is_told(train_split: LabelledImages) -> None:
    """Not only of one whose last layer was solved for."""
    model = small_classifier(0)
    data = dataclasses.replace(train_split, images=train_split.images[:900], labels=train_split.labels[:900])
    config = TrainConfig(epochs=5, batch_size=50)
    train(model, np.array(data.images), data.labels, config, generator=torch.Generator().manual_seed(0), device=CPU)
    order = np.random.default_rng(0).permutation(10)
    remedy = checked(model, dataclasses.replace(data, labels=order[data.labels])).remedy
    names = ",".join(data.classes[label] for label in order)
    assert f"another order: give --classes '{names}' (" in remedy
    for mean, std in ((0.0, 1 / 255), (-3.0, 0.35), (0.286, 6.0)):
        wrong = copy.deepcopy(model)
        normalise(wrong, (mean,), (std,))
        remedy = checked(wrong, data).remedy
        assert "if the normalisation were" in remedy
        assert "--mean 0.2" in remedy
