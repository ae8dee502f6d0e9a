"""Every network that is built in keeps the contract of classifiers, and what is no such network is refused."""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from classifier_contract import CLASSES, ClassifierContract, card_of
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn

import pud.models.architectures
from pud.artifacts.model import FORMAT, ModelCard, load_model, save_model
from pud.base.errors import InputError
from pud.base.files import write_json
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm
from pud.models.make import ARCHITECTURES, check_architecture, make_model
from pud.models.training import TrainConfig
from pud.platform.cli import app
from pud.steps.train import train_step

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.names())
# batch norms that follow no convolution, or one whose output goes elsewhere too
NOT_FOLDED = {"preactresnet18": 8}


class TestBuiltIn(ClassifierContract):
    """The contract, on small colour images."""

    @pytest.fixture(scope="class", params=ARCHITECTURES.names())
    @classmethod
    def card(cls, request: pytest.FixtureRequest) -> ModelCard:
        return card_of(request.param, (3, 28, 28))


@every_architecture
def test_all_batch_norms_that_can_be_folded_are(architecture: str) -> None:
    folded = fold_batchnorm(make_model(architecture, (1, 28, 28), CLASSES, [0.5], [0.5]))
    left = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert len(left) == NOT_FOLDED.get(architecture, 0)


@every_architecture
@pytest.mark.parametrize("input_shape", [(1, 28, 28), (4, 45, 33), (3, 224, 224)])
def test_networks_take_28_to_224_pixels_and_any_number_of_channels(
    architecture: str, input_shape: tuple[int, int, int]
) -> None:
    make_model(architecture, input_shape, CLASSES, [0.5], [0.5])  # tries the network on two images


def layers_of_backdoorbench() -> dict[str, tuple[int, ...]]:
    """Return the shapes of PreActResNet18's tensors, written down from BackdoorBench's models/preact_resnet.py."""
    expected: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 3, 3)}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.{part}"] = (width,)
        expected[f"{name}.num_batches_tracked"] = ()

    before = 64
    for layer, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            norm(f"{name}.bn1", before)
            expected[f"{name}.conv1.weight"] = (width, before, 3, 3)
            norm(f"{name}.bn2", width)
            expected[f"{name}.conv2.weight"] = (width, width, 3, 3)
            if before != width:
                expected[f"{name}.shortcut.0.weight"] = (width, before, 1, 1)
            before = width
    return expected | {"linear.weight": (CLASSES, 512), "linear.bias": (CLASSES,)}


def test_weights_of_backdoorbench_s_preactresnet18_load(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=generator) for name, shape in layers_of_backdoorbench().items()}
    save_file(weights, tmp_path / "model.safetensors")
    card = card_of("preactresnet18", (3, 32, 32))
    write_json(tmp_path / "model.json", {"format": FORMAT, **dataclasses.asdict(card)})
    model, _ = load_model(tmp_path, torch.device("cpu"))
    assert torch.equal(model.head.weight, weights["linear.weight"])
    assert torch.equal(model.network.layer2[0].shortcut[0].weight, weights["layer2.0.shortcut.0.weight"])
    assert model.mean.flatten().tolist() == pytest.approx(card.mean)


def test_an_architecture_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "single_layer.py").write_text(
        "from torch import nn\n\n\n"
        "def single_layer(input_shape, classes):\n"
        "    channels, height, width = input_shape\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))\n\n\n"
        'ARCHITECTURES = {"single_layer": single_layer}\n'
    )
    monkeypatch.setattr(pud.models.architectures, "__path__", [*pud.models.architectures.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pud.models.architectures.single_layer", raising=False)
    assert TrainConfig(architecture="single_layer").architecture == "single_layer"
    model = make_model("single_layer", (1, 4, 4), 3, [0.5], [0.5])
    assert model.features(torch.rand(2, 1, 4, 4)).shape == (2, 16)
    assert model.names_in_network()["head.weight"] == "1.weight"


# --------------------------------------------------------------------------------------------------------- bad input


class Scaled(nn.Module):
    """A linear layer whose output is changed in place before it is returned."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.flatten(1)).mul_(3)


class WithSideOutput(nn.Module):
    """More than logits while it trains."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.last(x.flatten(1))
        return (logits, logits) if self.training else logits


class OwnNormaliser(WithSideOutput):
    """Brings a mean of its own."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_buffer("mean", torch.zeros(1))


def wrong(kind: str, input_shape: tuple[int, ...], classes: int) -> object:
    """Return what a factory may make by mistake."""
    size = input_shape[0] * input_shape[1] * input_shape[2]
    if kind == "raises":
        raise KeyError("no such layer")
    return {
        "nothing": None,
        "softmax": nn.Sequential(nn.Flatten(), nn.Linear(size, classes), nn.Softmax(1)),
        "convolution": nn.Sequential(nn.Conv2d(input_shape[0], classes, 4), nn.Flatten()),
        "scaled": Scaled(size, classes),
        "side output": WithSideOutput(size, classes),
        "own mean": OwnNormaliser(size, classes),
        "many classes": nn.Sequential(nn.Flatten(), nn.Linear(size, 1000)),
        "map": nn.Conv2d(input_shape[0], classes, 1),
        "too deep": nn.Sequential(*[nn.MaxPool2d(2)] * 4, nn.Flatten(), nn.Linear(1, classes)),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("nothing", r"mine makes NoneType, no torch\.nn\.Module: return the network itself"),
        ("raises", r"mine cannot be made for images of shape \(1, 4, 4\) and 3 classes \('no such layer'\)"),
        ("softmax", r"mine does not take its logits straight from a linear layer \(the last torch\.nn\.Linear is 1\)"),
        ("convolution", r"straight from a linear layer \(it has no torch\.nn\.Linear\): end it with one"),
        ("scaled", r"mine changes what its last linear layer last gives: let that layer give the logits"),
        ("side output", r"mine gives tuple for two images: it must give logits of shape \(2, 3\)"),
        ("own mean", r"mine has a weight of its own called mean, the name of the normaliser's: rename it"),
        ("many classes", r"mine gives 1000 logits, there are 3 classes: let its factory take the number"),
        ("map", r"mine gives \(2, 3, 4, 4\) for two images"),
        ("too deep", r"mine does not take images of shape \(1, 4, 4\) \(.*\): choose another architecture or another"),
    ],
)
def test_what_is_no_such_network_is_refused_in_a_sentence(kind: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Classifier(partial(wrong, kind), (1, 4, 4), 3, [0.5], [0.5], name="mine")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("input_shape", "mean", "sentence"),
    [
        ((28, 28), [0.5], r"images of shape \[28, 28\]: give channels, height and width"),
        ((1, 0, 28), [0.5], r"images of shape \[1, 0, 28\]"),
        ((1, 28, 28.0), [0.5], r"images of shape \[1, 28, 28\.0\]"),
        ((3, 28, 28), [0.5, 0.5], r"2 means and 2 standard deviations for 3 channels: give one for each"),
    ],
)
def test_an_impossible_shape_or_normaliser_is_refused(
    input_shape: tuple[int, ...], mean: list[float], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        make_model("resnet8", input_shape, 3, mean, mean)


def test_weights_that_do_not_come_from_the_seed_are_no_start_for_a_rebuilt_network() -> None:
    learned = {"0.weight": torch.rand(1, 1, 3, 3), "0.bias": torch.rand(1), "2.weight": torch.rand(3, 4)}

    def pretrained(input_shape: object, classes: int) -> nn.Module:
        network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(4, classes))
        network.load_state_dict(learned, strict=False)
        return network

    model = Classifier(pretrained, (1, 4, 4), 3, [0.5], [0.5], name="mine")
    with pytest.raises(InputError, match="mine starts with the same weights whatever the seed: make it draw new ones"):
        model.rebuild(1)


# ------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["vgg", "", ":", "timm:", "timm:hf-hub:someone/model", "torchvision:../x", "a b:c", "a:"]
)
def test_an_unknown_architecture_is_refused_with_the_choice(name: str) -> None:
    choice = (
        r"choose one of efficientnet_b0, mobilenet_v2, .*, torchvision:NAME, timm:NAME, or name your own as package"
    )
    with pytest.raises(InputError, match=f"unknown architecture '{name}': {choice}"):
        check_architecture(name)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_that_is_missing_is_named_with_how_to_install_it(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as Python has it where an import of it fails
    check_architecture(f"{library}:resnet18")
    with pytest.raises(InputError, match=rf"needs {library}, .*pip install 'pud\[zoo\]'; in a clone make setup-zoo"):
        make_model(f"{library}:resnet18", (3, 32, 32), 10, [0.5], [0.5])


CODE = """
import pathlib
from torch import nn

pathlib.Path(__file__).with_name("imported").touch()
number = 3


def factory(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], classes))
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python finds, with a module that leaves a mark when it is imported; returns the mark."""
    (tmp_path / "module_of_a_user.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "module_of_a_user", raising=False)
    return tmp_path / "imported"


NAME = "module_of_a_user:factory"


def test_a_file_cannot_choose_what_code_is_imported(code: Path, tmp_path: Path) -> None:
    card = card_of(NAME, (1, 4, 4))
    model = card.build(architecture=NAME)  # the user's own choice
    assert code.exists()
    (folder := tmp_path / "model").mkdir()
    save_model(folder, model, card)
    code.unlink()
    del sys.modules["module_of_a_user"]
    with pytest.raises(InputError, match=f"'{NAME}' is code, and a file may not choose what code runs here"):
        load_model(folder, torch.device("cpu"))
    with pytest.raises(InputError, match=f"the model is of architecture '{NAME}', not 'other:factory'"):
        load_model(folder, torch.device("cpu"), architecture="other:factory")
    assert not code.exists()
    assert "module_of_a_user" not in sys.modules
    read, _ = load_model(folder, torch.device("cpu"), architecture=NAME)
    assert code.exists()
    assert torch.equal(read.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("module_of_a_user:missing", "cannot be imported .AttributeError"),
        ("no_such_module:factory", "cannot be imported .ModuleNotFoundError"),
        ("module_of_a_user:number", "is no function but int: name a function that takes input_shape and classes"),
    ],
)
def test_code_that_cannot_be_used_is_named(name: str, sentence: str, code: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        make_model(name, (1, 4, 4), 3, [0.5], [0.5], may_import=True)


def test_a_network_of_the_user_s_own_is_trained_by_its_name(code: Path, sample_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(architecture=NAME, epochs=1, learning_rate=0.01)
    found = train_step(sample_folder, config, seed=0, device="cpu", model=tmp_path / "model")
    assert found["training_accuracy"] > 0.5
    arguments = [f"--model={tmp_path / 'model'}", f"--dataset={sample_folder}", f"--out={tmp_path / 'probe'}"]
    arguments += ["--splits=0", "--inversion-steps=0", "--noise-draws=0", "--mix-draws=0", "--adversarial-images=10"]
    refused = CliRunner().invoke(app, ["probe", *arguments]).exception
    assert isinstance(refused, InputError)
    assert "a file may not choose what code runs here" in str(refused)
    assert not (tmp_path / "probe").exists()
    assert CliRunner().invoke(app, ["probe", *arguments, f"--architecture={NAME}"]).exit_code == 0
    assert (tmp_path / "probe" / "probe.json").is_file()
