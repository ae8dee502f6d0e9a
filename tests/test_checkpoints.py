"""Models on disk: bit for bit what was saved, and nothing that a stranger's file could run."""

import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pud.artifacts.model import ModelCard, load_model, load_weights, save_model
from pud.base.errors import InputError
from pud.models.contract import Classifier

CPU = torch.device("cpu")
CARD = ModelCard(
    architecture="resnet8",
    input_shape=[1, 28, 28],
    classes=[str(label) for label in range(10)],
    mean=[0.2860],
    std=[0.3530],
    training={"epochs": 1},
    made_from={"training_images": "0" * 64},
)


def lived_in() -> Classifier:
    model = CARD.build(3).train()
    with torch.no_grad():
        model(torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    return model.eval()


def saved(folder: Path) -> Path:
    folder.mkdir()
    save_model(folder, lived_in(), CARD)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_survives_the_round_trip_bit_for_bit(tmp_path: Path) -> None:
    model = lived_in()
    read, card = load_model(saved(tmp_path / "model"), CPU)
    assert card == CARD
    assert not read.training
    for (name, before), after in zip(model.state_dict().items(), read.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
        assert before.dtype == after.dtype
        assert before.stride() == after.stride(), name  # channels last in memory, contiguous in the file
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(read(images), model(images))


@pytest.mark.parametrize("said", [0.5, 1])  # a whole number must not make whole numbers of the weights'
@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_card_that_says_another_normalisation_than_the_weights_hold_is_refused(
    name: str, said: float, tmp_path: Path
) -> None:
    edit(saved(tmp_path / "model"), **{name: [said]})
    with pytest.raises(
        InputError, match=rf"model.json says a {name} of \[{said:.1f}\], model.safetensors holds \[0\.\d+\]"
    ):
        load_model(tmp_path / "model", torch.device("cpu"))


def test_weights_without_a_normaliser_take_that_of_the_card(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    kept = {key: value for key, value in load_file(folder / "model.safetensors").items() if key not in ("mean", "std")}
    save_file(kept, folder / "model.safetensors")
    edit(folder, sha256=None, mean=[0.25])
    assert load_model(folder, torch.device("cpu"))[0].mean.item() == 0.25


def test_names_in_the_file_are_those_of_the_network_as_in_every_earlier_version(tmp_path: Path) -> None:
    names = load_file(saved(tmp_path / "model") / "model.safetensors").keys()
    assert {"mean", "std", "stem.conv.weight", "stem.norm.running_var", "blocks.2.shortcut.conv.weight"} <= names
    assert {"head.weight", "head.bias"} <= names
    assert not [name for name in names if name.startswith("network")]


def test_larger_images_have_another_stem_than_earlier_and_their_old_weights_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    edit(folder, input_shape=[1, 96, 96])
    with pytest.raises(InputError, match=r"stem.conv.weight is \(16, 1, 3, 3\) in the file, \(16, 1, 7, 7\) in the"):
        load_model(folder, CPU)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    for file in ("model.safetensors", "model.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_model_from_elsewhere_needs_no_digest(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    edit(folder, sha256=None)
    assert load_model(folder, CPU)[1] == CARD


def remove_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def remove_the_card(folder: Path) -> None:
    (folder / "model.json").unlink()


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def truncate_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    edit(folder, sha256=None)


def spoil_a_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["head.bias"][2] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    edit(folder, sha256=None)


def lower_a_variance(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["stem.norm.running_var"][0] = -1
    save_file(tensors, folder / "model.safetensors")
    edit(folder, sha256=None)


def claim_huge_images(folder: Path) -> None:
    edit(folder, input_shape=[3_000_000, 28, 28])


def claim_another_architecture(folder: Path) -> None:
    edit(folder, architecture="resnet18")


def claim_an_unknown_architecture(folder: Path) -> None:
    edit(folder, architecture="vgg")


def claim_code(folder: Path) -> None:
    edit(folder, architecture="os:system")


def claim_fewer_classes(folder: Path) -> None:
    edit(folder, classes=["a", "b"])


def claim_many_channels(folder: Path) -> None:
    edit(folder, input_shape=[1 << 18, 1, 1])


def lose_a_field(folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text())
    del content["mean"]
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_the_weights, "model.safetensors is missing"),
        (remove_the_card, "model.json is missing"),
        (flip_a_byte, "does not match its digest"),
        (truncate_the_weights, "is corrupt"),
        (spoil_a_weight, "weight head.bias holds NaN, infinity"),
        (lower_a_variance, "stem.norm.running_var holds NaN, infinity or a variance below 0"),
        (claim_huge_images, "are too large"),
        (claim_many_channels, "are too large"),
        (
            claim_another_architecture,
            r"blocks.0.first.conv.weight is \(16, 16, 3, 3\) in the file",
        ),
        (claim_an_unknown_architecture, "unknown architecture 'vgg'"),
        (claim_code, "'os:system' is code, and a file may not choose what code runs here"),
        (claim_fewer_classes, r"head.bias is \(10,\) in the file, \(2,\) in the network"),
        (lose_a_field, "model.json has no mean of type list"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        load_model(folder, CPU)


class Trap:
    """What a hostile checkpoint holds: unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("dump", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_a_pickle_in_disguise_is_refused_and_not_run(dump: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    dump(Trap(tmp_path / "sprung"), folder / "model.safetensors")
    edit(folder, sha256=None)
    with pytest.raises(InputError, match="is corrupt"):
        load_model(folder, CPU)
    assert not (tmp_path / "sprung").exists()


def test_nothing_on_disk_is_pickled(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("names", [["head.bias"], ["head.bias", "surplus"]])
def test_weights_that_lack_or_add_names_are_refused(names: list[str], tmp_path: Path) -> None:
    save_file({name: torch.zeros(10) for name in names}, tmp_path / "some.safetensors")
    with pytest.raises(InputError, match=r"some\.safetensors is not of the architecture"):
        load_weights(tmp_path / "some.safetensors", CARD.build())


def test_the_card_says_all_that_building_needs() -> None:
    assert {field.name for field in dataclasses.fields(ModelCard)} >= {"architecture", "input_shape", "classes"}
    assert CARD.build(1).head.out_features == 10


def test_weights_that_would_fill_the_memory_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model")
    monkeypatch.setattr("pud.artifacts.model.MAXIMUM_BYTES", 1000)
    with pytest.raises(InputError, match="more than any file of its kind here"):
        load_model(folder, CPU)
