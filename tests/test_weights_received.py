"""A stranger's file of weights becomes a model that knows its data, or is refused with what would mend it."""

import copy
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from taught import MEAN, NAMES, STD, easy_split, taught
from torch import Tensor, nn

from pud.artifacts.model import ModelCard, load_model, save_model
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels
from pud.exchange.export import _plain_network
from pud.exchange.fitting import fit, nearest, shapes, shapes_of
from pud.exchange.models import (
    ModelConfig,
    Received,
    load_origin,
    receive_model,
    reorder,
    save_origin,
    turn_channels,
)
from pud.models.contract import Classifier
from pud.models.make import ARCHITECTURES

CPU = torch.device("cpu")
GIVEN = ModelConfig(mean=MEAN, std=STD)
ORDER = (2, 0, 1, 3)  # the output, in a file, of each class of the data


@pytest.fixture(scope="module")
def split(train_split: LabelledImages) -> LabelledImages:
    return easy_split(train_split)


@pytest.fixture(scope="module")
def model(split: LabelledImages) -> Classifier:
    return taught("resnet8", split)


def weights_of(model: Classifier) -> dict[str, Tensor]:
    return dict(_plain_network(model).state_dict())


def received(weights: dict[str, Any], split: LabelledImages, folder: Path, config: ModelConfig = GIVEN) -> Received:
    torch.save(weights, folder / "weights.pt")
    return receive_model(folder / "weights.pt", split, config, seed=0, device=CPU)


@torch.no_grad()
def logits_of(model: Classifier, split: LabelledImages) -> Tensor:
    return model(pixels(split.images[:50]))


def assert_alike(found: Received, model: Classifier, split: LabelledImages) -> None:
    torch.testing.assert_close(logits_of(found.model, split), logits_of(model, split), rtol=0, atol=1e-5)
    assert not found.model.training


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "net.", "module._orig_mod.model.", "1."])
def test_prefixes_are_understood(prefix: str, model: Classifier, split: LabelledImages, tmp_path: Path) -> None:
    found = received({f"{prefix}{name}": one for name, one in weights_of(model).items()}, split, tmp_path)
    assert (found.origin.prefix, found.origin.architecture) == (prefix, "resnet8")
    assert found.card.architecture == "resnet8"
    assert (found.card.mean, found.card.classes) == (pytest.approx(list(MEAN)), list(NAMES))
    assert_alike(found, model, split)


def test_what_a_file_does_not_say_is_found_out_and_said(
    model: Classifier, split: LabelledImages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = received(weights_of(model), split, tmp_path, ModelConfig())
    assert found.card.std == pytest.approx(list(STD))
    assert found.sanity.known
    told = capfd.readouterr().err
    assert "the weights are those of architecture resnet8" in told
    assert "the model takes ImageNet's best (--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)" in told
    assert re.search(r"weights\.pt gives 9\d\.\d % of its training images their label", told)


@pytest.mark.parametrize("names", [("mean", "std"), ("normalize.mean", "normalize.std")])
@pytest.mark.parametrize("shape", [(3,), (1, 3, 1, 1), (3, 1, 1)])
def test_a_normaliser_in_the_file_is_taken(
    names: tuple[str, str], shape: tuple[int, ...], model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    values = {names[0]: torch.tensor(MEAN).view(shape), names[1]: torch.tensor(STD).view(shape)}
    found = received({f"model.{name}": one for name, one in weights_of(model).items()} | values, split, tmp_path)
    assert found.origin.normaliser == {"mean": (names[0], shape), "std": (names[1], shape)}
    assert_alike(found, model, split)


def test_another_order_of_classes_is_turned_into_that_of_the_data(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    theirs = copy.deepcopy(model)
    back = tuple(int(one) for one in np.argsort(ORDER))
    reorder(theirs, back)
    names = tuple(NAMES[label] for label in back)
    with pytest.raises(InputError, match=re.escape(f"in another order: give --classes {','.join(names)} (")):
        received(weights_of(theirs), split, tmp_path)
    found = received(weights_of(theirs), split, tmp_path, dataclasses.replace(GIVEN, classes=names))
    assert found.origin.order == ORDER
    assert_alike(found, model, split)
    wrong = dataclasses.replace(GIVEN, classes=(names[1], names[0], *names[2:]))
    with pytest.raises(InputError, match=re.escape(f"give --classes {','.join(names)} (")):
        received(weights_of(theirs), split, tmp_path, wrong)


def test_a_model_that_takes_blue_first_is_told_and_taken(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    theirs = copy.deepcopy(model)
    turn_channels(theirs)
    with pytest.raises(InputError, match=r"if it took blue first: give --bgr \("):
        received(weights_of(theirs), split, tmp_path)
    found = received(weights_of(theirs), split, tmp_path, dataclasses.replace(GIVEN, bgr=True))
    assert_alike(found, model, split)
    with pytest.raises(InputError, match=r"if it took red first: give no --bgr \("):
        received(weights_of(model), split, tmp_path, dataclasses.replace(GIVEN, bgr=True))


def test_a_wrong_range_is_told_with_the_flags_that_mend_it(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    """The network takes pixels from 0 to 255: its first layer is 255 times smaller."""
    theirs = taught("resnet8", split, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    sentence = r"from 0 to 255: give --mean 0 --std 0\.003922 \("
    with pytest.raises(InputError, match=sentence):
        received(weights_of(theirs), split, tmp_path)
    config = ModelConfig(mean=(0.0,), std=(0.003922,))
    assert received(weights_of(theirs), split, tmp_path, config).sanity.known


def test_a_model_at_chance_is_refused_with_its_figures(
    split: LabelledImages, model: Classifier, tmp_path: Path
) -> None:
    random = copy.deepcopy(model)
    torch.nn.init.normal_(random.head.weight, generator=torch.Generator().manual_seed(3))
    sentence = (
        r"gives \d+\.\d % of its training images their label, where always naming one class would give 26\.2 %: give"
    )
    with pytest.raises(InputError, match=sentence):
        received(weights_of(random), split, tmp_path)


def test_a_model_that_knows_little_is_let_in_and_said_to(
    model: Classifier, split: LabelledImages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What cannot be judged of it, the verdict says: nothing was given wrongly."""
    random = np.random.default_rng(0)
    labels = np.where(random.random(len(split.labels)) < 0.7, random.integers(4, size=len(split.labels)), split.labels)
    found = received(weights_of(model), dataclasses.replace(split, labels=labels), tmp_path)
    assert not found.sanity.known
    assert not found.sanity.at_chance
    assert f"gives {100 * found.sanity.accuracy:.1f} % of its training images their label" in capfd.readouterr().err


def test_one_number_stands_for_all_channels(split: LabelledImages, tmp_path: Path) -> None:
    theirs = taught("resnet8", split, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = received(weights_of(theirs), split, tmp_path, ModelConfig(mean=(0.5,), std=(0.5,)))
    assert found.card.mean == [0.5] * 3
    wrong = ModelConfig(mean=(0.0,), std=(0.001,))
    with pytest.raises(InputError, match=r"give --mean"):
        received(weights_of(theirs), split, tmp_path, wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    value: float, model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    weights = {f"module.{name}": one.clone() for name, one in weights_of(model).items()}
    weights["module.head.bias"][1] = value
    with pytest.raises(InputError, match=r"weight module\.head\.bias holds NaN, infinity"):
        received(weights, split, tmp_path)


def test_missing_and_other_keys_name_the_nearest_architecture(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    weights = weights_of(model)
    short = {name: one for name, one in weights.items() if name != "blocks.0.first.conv.weight"}
    sentence = (
        r"fit no network here; resnet8 is nearest, with 9\d % .*\(blocks\.0\.first\.conv\.weight is missing in the"
    )
    with pytest.raises(InputError, match=sentence):
        received(short, split, tmp_path)
    with pytest.raises(InputError, match=r"fit no network here: give its --architecture"):
        received({"a.weight": torch.ones(3), "b.weight": torch.ones(2)}, split, tmp_path)
    with pytest.raises(InputError, match=r"resnet8 is nearest.*\('extra' in the file has no place in the network\)"):
        received(weights | {"extra": torch.ones(3)}, split, tmp_path)
    with pytest.raises(InputError, match=r"do not fit resnet18 \(.*, and \d+ more\): they fit resnet8"):
        received(weights, split, tmp_path, dataclasses.replace(GIVEN, architecture="resnet18"))
    wide = weights | {"stem.conv.weight": torch.ones(16, 1, 3, 3)}
    with pytest.raises(
        InputError, match=r"stem\.conv\.weight is \[16, 1, 3, 3\] in the file, \[16, 3, 3, 3\] in the net"
    ):
        received(wide, split, tmp_path)


def test_another_number_of_classes_is_told(split: LabelledImages, tmp_path: Path) -> None:
    other = dataclasses.replace(split, classes=(*NAMES, "coat"))
    with pytest.raises(InputError, match=r"resnet8 is nearest.*it tells 5 classes apart, the data set has 4"):
        received(weights_of(taught("resnet8", other)), split, tmp_path)


def test_old_files_without_the_counts_of_batch_norms_are_taken(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    weights = {name: one for name, one in weights_of(model).items() if not name.endswith("num_batches_tracked")}
    assert_alike(received(weights, split, tmp_path), model, split)


def test_weights_of_half_precision_are_taken(model: Classifier, split: LabelledImages, tmp_path: Path) -> None:
    half = {name: one.half() if one.is_floating_point() else one for name, one in weights_of(model).items()}
    found = received(half, split, tmp_path)
    assert found.model.head.weight.dtype == torch.float32
    assert found.sanity.known


def test_code_is_imported_only_where_the_user_names_it(
    model: Classifier, split: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        "from pud.models.architectures.resnet import ARCHITECTURES\nnetwork = ARCHITECTURES['resnet8']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    weights = {"model": {f"{name}": one for name, one in weights_of(model).items()}, "arch": "theirs:network"}
    assert received(weights, split, tmp_path).card.architecture == "resnet8"
    assert "theirs" not in sys.modules
    found = received(weights, split, tmp_path, dataclasses.replace(GIVEN, architecture="theirs:network"))
    assert found.card.architecture == "theirs:network"


def test_a_model_folder_is_taken_as_it_is(model: Classifier, split: LabelledImages, tmp_path: Path) -> None:
    card = ModelCard("resnet8", [3, 14, 14], list(NAMES), list(MEAN), list(STD), {"seed": 3}, {"training_images": "x"})
    save_model(tmp_path, model, card)
    found = receive_model(tmp_path, split, ModelConfig(), seed=0, device=CPU)
    assert found.card == card
    assert_alike(found, model, split)
    with pytest.raises(InputError, match=r"is a model folder, in which model\.json says classes, mean and std"):
        receive_model(tmp_path, split, GIVEN, seed=0, device=CPU)
    other = dataclasses.replace(split, classes=tuple(reversed(NAMES)))
    with pytest.raises(
        InputError, match=r"takes images \[3, 14, 14\] of the classes trouser, .*its classes in the same"
    ):
        receive_model(tmp_path, other, ModelConfig(), seed=0, device=CPU)


def test_its_origin_survives_the_round_trip(model: Classifier, split: LabelledImages, tmp_path: Path) -> None:
    weights = {f"m.{name}": one for name, one in weights_of(model).items()}
    normaliser = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    content = {"state_dict": weights | normaliser, "arch": "resnet8"}
    found = received(content, split, tmp_path, ModelConfig())
    save_model(tmp_path, found.model, found.card)
    save_origin(tmp_path, found.origin)
    assert load_origin(tmp_path) == found.origin
    assert receive_model(tmp_path, split, ModelConfig(), seed=0, device=CPU).origin == found.origin
    load_model(tmp_path, CPU)  # the folder is one like any other
    said = json.loads((tmp_path / "origin.json").read_text())
    for wrong in ({"file": "../weights.pt"}, {"order": [0, 0, 1, 2]}, {"order": ["a"]}, {"normaliser": {"x": 1}}):
        (tmp_path / "origin.json").write_text(json.dumps(said | wrong))
        with pytest.raises(InputError, match=r"origin\.json is corrupt"):
            load_origin(tmp_path)
    assert load_origin(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"classes": ("trouser", "bag")},
            r"classes has 2 names, the data set 4, and 'boot', 'sandal' is not once in both",
        ),
        (
            {"classes": ("trouser",) * 4},
            r"classes has 4 names, the data set 4, and 'bag', 'boot', 'sandal' is not once",
        ),
        ({"mean": (0.5,)}, r"mean and std belong together"),
        ({"mean": (0.5,), "std": (0.0,)}, r"std \[0\.0\] must be above 0"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, r"2 means and 2 standard deviations for 3 channels"),
        ({"architecture": "resnet19"}, r"unknown architecture 'resnet19'"),
    ],
)
def test_wrong_flags_are_told(
    config: dict[str, Any], sentence: str, model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        received(weights_of(model), split, tmp_path, ModelConfig(**config))


def test_blue_first_of_grey_pictures_is_refused(train_split: LabelledImages, tmp_path: Path) -> None:
    grey = easy_split(train_split, channels=1)
    with pytest.raises(InputError, match=r"bgr is of pictures of 3 channels, the data set has 1"):
        received(weights_of(taught("resnet8", grey)), grey, tmp_path, ModelConfig(bgr=True))


def test_every_network_that_is_built_in_is_found_by_its_shapes() -> None:
    for name in ARCHITECTURES.names():
        found = shapes_of(name, (3, 32, 32), 7)
        assert nearest(found, (3, 32, 32), 7)[0] == name


def test_a_fit_counts_what_is_in_both() -> None:
    network = {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4, 2)}
    assert fit(network, network, 3).share == 1
    assert fit({f"x.y.{name}": shape for name, shape in network.items()}, network, 3).prefix == "x.y."
    one = fit({"a.weight": (2, 3), "a.bias": (3,), "c": (1,)}, network, 3)
    assert (one.missing, one.other, one.misshapen) == (("b.weight",), ("c",), {"a.bias": ((3,), (2,))})
    assert one.share == pytest.approx(1 / 5)
    assert fit({}, network, 3).share == 0


def test_the_shapes_of_a_large_network_take_no_memory() -> None:
    assert shapes_of("resnet18", (3, 224, 224), 1000)["head.weight"] == (1000, 512)
    assert shapes(nn.Linear(2, 3).state_dict()) == {"weight": (3, 2), "bias": (3,)}


def test_safetensors_are_received_too(model: Classifier, split: LabelledImages, tmp_path: Path) -> None:
    save_file(weights_of(model), tmp_path / "model.safetensors")
    found = receive_model(tmp_path / "model.safetensors", split, GIVEN, seed=0, device=CPU)
    assert found.origin.form == "safetensors"
    assert_alike(found, model, split)
