"""Weights of torchvision's and timm's networks are received by name, by their shapes, and given back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels
from pud.exchange.export import export_pt2, export_weights
from pud.exchange.fitting import nearest, shapes
from pud.exchange.models import ModelConfig, receive_model

torchvision = pytest.importorskip("torchvision", reason="torchvision is in .venv-zoo (make zoo-test)")
timm = pytest.importorskip("timm", reason="timm is in .venv-zoo (make zoo-test)")

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def split() -> LabelledImages:
    """Three classes, each brighter in one colour."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=120)
    images = random.integers(100, size=(120, 3, 32, 32), dtype=np.uint8)
    images[np.arange(120), labels] += 120
    return LabelledImages(images, labels, ("red", "green", "blue"), "colours", "", "")


def normalised(split: LabelledImages) -> torch.Tensor:
    return (pixels(split.images) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@torch.no_grad()
def taught(network: nn.Module, last: nn.Linear, split: LabelledImages) -> nn.Module:
    """Solve for the last layer, so that the network knows the images."""
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network.eval()(normalised(split))
    hook.remove()
    target = 10 * nn.functional.one_hot(torch.from_numpy(split.labels), 3).float() - 5
    last.weight.copy_(torch.linalg.lstsq(seen[0], target, driver="gelsd").solution.T)
    last.bias.zero_()
    return network


@pytest.fixture(scope="module")
def resnet(split: LabelledImages) -> nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    return taught(network, network.fc, split)


@pytest.mark.parametrize("architecture", ["", "torchvision:resnet18", "timm:resnet18"])
def test_a_resnet18_of_torchvision_comes_in_and_goes_back(
    architecture: str, resnet: nn.Module, split: LabelledImages, tmp_path: Path
) -> None:
    weights = {f"module.{name}": one for name, one in resnet.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 9}, tmp_path / "resnet18.pth")
    config = ModelConfig(architecture=architecture, mean=MEAN, std=STD)
    found = receive_model(tmp_path / "resnet18.pth", split, config, seed=0, device=CPU)
    assert found.card.architecture == (architecture or "torchvision:resnet18")
    assert found.sanity.accuracy > 0.9
    with torch.no_grad():
        torch.testing.assert_close(found.model(pixels(split.images)), resnet(normalised(split)), rtol=0, atol=1e-4)
        for one in found.model.parameters():
            one += 1e-4 * torch.ones_like(one)
        export_weights(found.model, found.origin, tmp_path / "out.pth")
        network = torchvision.models.resnet18(num_classes=3)
        back = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix("module."): one for name, one in back.items()})
        given, expected = network.eval()(normalised(split)), found.model(pixels(split.images))
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5 * max(1, float(expected.abs().max())))


def test_a_whole_network_of_torchvision_is_refused_as_code(
    resnet: nn.Module, split: LabelledImages, tmp_path: Path
) -> None:
    torch.save(resnet, tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"holds code \(torchvision\.models\.resnet\.ResNet\)"):
        receive_model(tmp_path / "whole.pt", split, ModelConfig(), seed=0, device=CPU)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "swin_t"])
def test_networks_of_torchvision_are_found_by_their_shapes(name: str) -> None:
    with torch.device("meta"):
        network = torchvision.models.get_model(name, num_classes=7)
    found, fit = nearest(shapes(network.state_dict()), (3, 64, 64), 7)
    assert fit.exact
    assert found == f"torchvision:{name}"


def test_a_network_of_timm_is_found_by_what_its_file_is_called() -> None:
    name = "vit_tiny_patch16_224"
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=7, img_size=(64, 64))
    found, fit = nearest(shapes(network.state_dict()), (3, 64, 64), 7, [name])
    assert fit.exact
    assert found == f"timm:{name}"


def test_a_network_that_is_nearly_one_of_torchvision_names_it() -> None:
    with torch.device("meta"):
        network = torchvision.models.resnet50(num_classes=7)
    almost = {name: shape for name, shape in shapes(network.state_dict()).items() if name != "layer4.2.bn3.weight"}
    found, fit = nearest(almost, (3, 64, 64), 7)
    assert found == "torchvision:resnet50"
    assert fit.reason(7) == "layer4.2.bn3.weight is missing in the file"


def test_torchvision_s_resnet18_goes_out_as_pt2(resnet: nn.Module, split: LabelledImages, tmp_path: Path) -> None:
    torch.save(resnet.state_dict(), tmp_path / "in.pt")
    found = receive_model(tmp_path / "in.pt", split, ModelConfig(mean=MEAN, std=STD), seed=0, device=CPU)
    export_pt2(found.model, found.card, tmp_path / "out.pt2")
    again = receive_model(tmp_path / "out.pt2", split, ModelConfig(), seed=0, device=CPU)
    assert again.sanity == found.sanity
