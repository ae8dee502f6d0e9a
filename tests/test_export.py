"""What goes back is the repaired model in the form it came in: loaded by plain torch, it gives the same logits."""

import copy
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from taught import MEAN, NAMES, STD, easy_split, taught
from torch import Tensor, nn

from pud.artifacts.model import ModelCard, save_weights
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels
from pud.exchange.export import (
    _plain_network,
    check_formats,
    export_as,
    export_onnx,
    export_pt2,
    export_weights,
    model_card,
)
from pud.exchange.models import ModelConfig, Received, load_origin, receive_model, reorder, save_origin, turn_channels
from pud.exchange.weights import read_weights
from pud.models.architectures.preactresnet import PreActResNet18
from pud.models.architectures.resnet import ARCHITECTURES
from pud.models.contract import Classifier

CPU = torch.device("cpu")
GIVEN = ModelConfig(mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def split(train_split: LabelledImages) -> LabelledImages:
    return easy_split(train_split)


@pytest.fixture(scope="module")
def model(split: LabelledImages) -> Classifier:
    return taught("resnet8", split)


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return ModelCard("resnet8", [3, 14, 14], list(NAMES), list(MEAN), list(STD), {}, {"weights": "ab12"})


def repaired(model: Classifier) -> Classifier:
    """Another model of the same kind, in every weight."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in other.parameters():
            one += 0.002 * torch.randn(one.shape, generator=generator)
    return other


def came(path: Path, split: LabelledImages, config: ModelConfig = GIVEN) -> Received:
    """Receive a model; its origin passes through a folder, as between two steps."""
    found = receive_model(path, split, config, seed=0, device=CPU)
    save_origin(path.parent, found.origin)
    origin = load_origin(path.parent)
    assert origin is not None
    return dataclasses.replace(found, origin=origin)


def normalised(split: LabelledImages, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Pictures as their owner's own code feeds them to the network."""
    columns = [torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std)]
    return (pixels(split.images[:50]) - columns[0]) / columns[1]


@torch.no_grad()
def assert_same_logits(
    network: nn.Module, images: Tensor, model: Classifier, split: LabelledImages, dtype: torch.dtype = torch.float32
) -> None:
    given = copy.deepcopy(network).to(dtype).eval()(images.to(dtype))
    expected = copy.deepcopy(model).to(dtype)(pixels(split.images[:50]).to(dtype))
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


def test_backdoorbench_s_weights_come_in_and_go_back_repaired_for_plain_torch(
    split: LabelledImages, tmp_path: Path
) -> None:
    split = dataclasses.replace(split, images=split.images[:150], labels=split.labels[:150])
    weights = {
        f"module.{name}": one for name, one in _plain_network(taught("preactresnet18", split)).state_dict().items()
    }
    content = {"model_name": "preactresnet18", "num_classes": 4, "model": weights, "bd_train": {"x": np.arange(3)}}
    torch.save(content, tmp_path / "attack_result.pt")
    found = came(tmp_path / "attack_result.pt", split)
    assert found.origin.architecture == "preactresnet18"
    mended = repaired(found.model)
    export_weights(mended, found.origin, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    assert back.keys() == {"model_name", "num_classes", "model"}
    assert list(back["model"]) == list(weights)
    assert (back["model_name"], back["num_classes"]) == ("preactresnet18", 4)
    network = nn.DataParallel(PreActResNet18((3, 14, 14), 4))
    network.load_state_dict(back["model"])  # strict: every name is there, and no other
    assert_same_logits(network.module, normalised(split), mended, split)
    assert not torch.equal(back["model"]["module.conv1.weight"], weights["module.conv1.weight"])


@pytest.mark.parametrize("place", [(), ("state_dict",), ("a", "net")])
def test_a_checkpoint_keeps_its_place(
    place: tuple[str, ...], model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    content: Any = dict(_plain_network(model).state_dict())
    for key in reversed(place):
        content = {key: content}
    torch.save(content, tmp_path / "in.pt")
    found = came(tmp_path / "in.pt", split)
    export_weights(repaired(found.model), found.origin, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    for key in place:
        back = back[key]
    network = ARCHITECTURES["resnet8"](input_shape=(3, 14, 14), classes=4)
    network.load_state_dict(back)
    assert_same_logits(network, normalised(split), repaired(found.model), split)


def test_outputs_and_channels_go_back_in_the_model_s_own_order(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    theirs, order = copy.deepcopy(model), [1, 2, 0, 3]
    reorder(theirs, order)
    turn_channels(theirs)
    save_file(
        {f"net.{name}": one for name, one in _plain_network(theirs).state_dict().items()},
        tmp_path / "in.safetensors",
        {"format": "pt"},
    )
    config = dataclasses.replace(GIVEN, classes=tuple(NAMES[label] for label in order), bgr=True)
    found = came(tmp_path / "in.safetensors", split, config)
    mended = repaired(found.model)
    export_weights(mended, found.origin, tmp_path / "out.safetensors")
    network = ARCHITECTURES["resnet8"](input_shape=(3, 14, 14), classes=4)
    back = load_file(tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    network.load_state_dict({name.removeprefix("net."): one for name, one in back.items()})
    ours = copy.deepcopy(mended)
    reorder(ours, order)
    assert_same_logits(network, normalised(split).flip(1), ours, split, torch.float64)  # else sums round another way


@pytest.mark.parametrize("blue_first", [False, True])
def test_a_normaliser_that_came_goes_back_as_it_was(
    blue_first: bool, model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    theirs = copy.deepcopy(model)
    step = -1 if blue_first else 1
    if blue_first:
        turn_channels(theirs)
    normaliser = {"n.mean": torch.tensor(MEAN[::step]).view(3, 1, 1), "n.std": torch.tensor(STD[::step]).view(3, 1, 1)}
    save_file(dict(_plain_network(theirs).state_dict()) | normaliser, tmp_path / "in.safetensors")
    found = came(tmp_path / "in.safetensors", split, ModelConfig(bgr=blue_first))
    export_weights(repaired(found.model), found.origin, tmp_path / "out.safetensors")
    back = load_file(tmp_path / "out.safetensors")
    assert {name: one.shape for name, one in back.items() if name[:2] == "n."} == {
        name: one.shape for name, one in normaliser.items()
    }
    torch.testing.assert_close(back["n.mean"], normaliser["n.mean"])
    torch.testing.assert_close(back["n.std"], normaliser["n.std"])


class Wrapped(nn.Module):
    """A stranger's module with a normaliser of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))
        self.inner = nn.ModuleDict({"net": network})

    def forward(self, images: Tensor) -> Tensor:
        return self.inner["net"]((images - self.mean) / self.std)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_exported_program_goes_back_as_one(
    wrapped: bool, model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    network = Wrapped(_plain_network(model)).eval() if wrapped else _plain_network(model)
    torch.export.save(torch.export.export(network, (normalised(split)[:2],)), tmp_path / "in.pt2")
    found = came(tmp_path / "in.pt2", split, ModelConfig() if wrapped else GIVEN)
    assert found.origin.prefix == ("inner.net." if wrapped else "")
    mended = repaired(found.model)
    export_weights(mended, found.origin, tmp_path / "out.pt2")
    program = torch.export.load(tmp_path / "out.pt2")
    assert program.state_dict.keys() == network.state_dict().keys()
    images = pixels(split.images[:50]) if wrapped else normalised(split)
    torch.testing.assert_close(program.module()(images), mended(pixels(split.images[:50])).detach(), rtol=0, atol=1e-5)


def test_a_model_that_was_made_here_goes_out_as_safetensors(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    export_weights(model, None, tmp_path / "out.safetensors")
    weights = read_weights(tmp_path / "out.safetensors")
    assert weights.form == "safetensors"
    save_weights(tmp_path / "ours.safetensors", model)
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    assert weights.tensors["mean"].flatten().tolist() == pytest.approx(list(MEAN))
    assert receive_model(tmp_path / "out.safetensors", split, ModelConfig(), seed=0, device=CPU).sanity.known


def test_a_file_with_a_name_as_long_as_may_be_goes_back_into_a_new_folder(
    model: Classifier, split: LabelledImages, tmp_path: Path
) -> None:
    path = tmp_path / ("<b>\n\u202e" + "x" * 240 + ".pt")
    torch.save(_plain_network(model).state_dict(), path)
    found = came(path, split)
    export_weights(found.model, found.origin, tmp_path / "out" / found.origin.file)
    assert [one.name for one in (tmp_path / "out").iterdir()] == [path.name]


def test_a_file_that_would_give_other_logits_is_not_kept(
    model: Classifier, split: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(_plain_network(model).state_dict(), tmp_path / "in.pt")
    found = came(tmp_path / "in.pt", split)
    monkeypatch.setattr("pud.exchange.export._alone", lambda tensor: tensor.half().to(tensor.dtype))
    with pytest.raises(InputError, match=r"out\.pt was not kept, for read again it gives other logits"):
        export_weights(found.model, found.origin, tmp_path / "out.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pt", "origin.json"]


def test_pt2_takes_any_number_of_pictures_and_can_be_received_again(
    model: Classifier, card: ModelCard, split: LabelledImages, tmp_path: Path
) -> None:
    assert export_as("pt2", model, card, tmp_path) == tmp_path / "model.pt2"
    about = {"model.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=about).module()
    assert json.loads(about["model.json"]) == dataclasses.asdict(card)
    for n in (1, 7):
        images = pixels(split.images[:n])
        torch.testing.assert_close(program(images), model(images), rtol=0, atol=1e-5)
    found = receive_model(tmp_path / "model.pt2", split, ModelConfig(), seed=0, device=CPU)
    torch.testing.assert_close(found.model(images), model(images), rtol=0, atol=1e-5)


def test_a_full_disk_is_told_as_one(model: Classifier, card: ModelCard, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        export_pt2(model, card, small_disk / "model.pt2")


class Branching(nn.Module):
    """A network that torch cannot export: what it does depends on the numbers."""

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(input_shape[0], classes)

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        return self.head(means if means.sum().item() > 1e6 else 2 * means)


def test_a_network_that_cannot_be_traced_is_named_and_leaves_nothing(card: ModelCard, tmp_path: Path) -> None:
    model = Classifier(Branching, (3, 14, 14), 4, MEAN, STD)
    with pytest.raises(
        InputError, match=r"model\.pt2 cannot be made, for torch cannot trace this network \(.*\): take"
    ):
        export_pt2(model, card, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_onnx_gives_the_same_logits_for_any_number_of_pictures(
    model: Classifier, card: ModelCard, split: LabelledImages, tmp_path: Path
) -> None:
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed, reason="the extra onnx is optional")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is optional")
    export_onnx(model, card, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 7):
        images = pixels(split.images[:n])
        given = session.run(["logits"], {"images": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(given), model(images).detach(), rtol=0, atol=1e-4)
    assert '"trouser"' in session.get_modelmeta().custom_metadata_map["classes"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # the weights are in it


def test_what_onnx_needs_is_named_before_any_work(
    model: Classifier, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (lambda: check_formats(["pt2", "onnx"]), lambda: export_as("onnx", model, card, tmp_path)):
        with pytest.raises(
            InputError, match=r"ONNX needs onnx\w*: install the extra onnx \(pip install 'pud\[onnx\]'\)"
        ):
            call()
    check_formats(["pt2"])
    with pytest.raises(InputError, match=r"unknown form of a model 'tflite': choose of pt2, onnx"):
        check_formats(["tflite"])


def test_a_model_card_says_what_was_done_and_lets_no_name_speak(
    model: Classifier, card: ModelCard, split: LabelledImages, tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script>|[x](javascript:y)\n# title \u202e"
    torch.save(_plain_network(model).state_dict(), tmp_path / "in.pt")
    found = came(tmp_path / "in.pt", split, dataclasses.replace(GIVEN, classes=tuple(NAMES)))
    origin = dataclasses.replace(found.origin, file=hostile, order=(1, 0, 2, 3))
    facts = {"verdict": "backdoor found", "confidence": 0.98765, "unjudged": {"3": hostile}, "target_labels": [0, 2]}
    text = model_card(dataclasses.replace(card, classes=[hostile, *NAMES[1:]]), origin, facts)
    assert "| verdict | backdoor found |" in text
    assert "| confidence | 0.9877 |" in text
    assert "| target\\_labels | 0, 2 |" in text
    assert "stand for sandal, &lt;script&gt;" in text
    assert "who loads the weights normalises as before" in text
    assert origin.sha256 in text
    assert "<script" not in text
    assert "\u202e" not in text
    assert "](" not in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# A repaired model: resnet8",
        "## What it is",
        "## What it was made from",
        "## What was done, and what was measured",
        "## Limits",
    ]
    assert model_card(card, None, {}).count("## ") == 3
