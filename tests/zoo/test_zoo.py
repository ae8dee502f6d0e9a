"""Networks of torchvision and timm keep the contract of classifiers: ``make zoo-test``, in a separate environment."""

import pytest
import torch
from classifier_contract import CLASSES, ClassifierContract, card_of
from torch import nn

from pud.artifacts.model import ModelCard
from pud.base.errors import InputError
from pud.models.make import make_model

pytest.importorskip("torchvision", reason="torchvision is in .venv-zoo (make zoo-test)")
pytest.importorskip("timm", reason="timm is in .venv-zoo (make zoo-test)")

CONTRACT = {
    "torchvision:resnet18": (3, 64, 64),
    "timm:vit_tiny_patch16_224": (3, 32, 32),  # LayerNorm
    "timm:convnext_atto": (1, 64, 64),  # LayerNorm over channels
}
# of every family one, at sizes and channels that are not those it was made for
TAKEN = {
    "torchvision:vgg11_bn": (1, 32, 32),
    "torchvision:densenet121": (1, 32, 32),
    "torchvision:mobilenet_v3_small": (4, 28, 28),
    "torchvision:shufflenet_v2_x0_5": (1, 48, 48),
    "torchvision:googlenet": (1, 64, 64),
    "torchvision:swin_t": (1, 64, 64),
    "torchvision:vit_b_32": (3, 64, 64),
    "timm:resnet18": (1, 32, 32),
    "timm:mobilenetv3_small_050": (2, 40, 40),
    "timm:swin_tiny_patch4_window7_224": (3, 112, 112),
    "timm:mixer_s32_224": (3, 64, 64),
}


class TestLibraries(ClassifierContract):
    """The contract."""

    @pytest.fixture(scope="class", params=CONTRACT)
    @classmethod
    def card(cls, request: pytest.FixtureRequest) -> ModelCard:
        return card_of(request.param, CONTRACT[request.param])


@pytest.mark.parametrize("name", TAKEN)
def test_a_network_of_every_family_is_taken(name: str) -> None:
    shape = TAKEN[name]
    model = make_model(name, shape, CLASSES, [0.5], [0.5]).eval()
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.head(model.features(images)), model(images))


def test_one_of_them_has_a_layer_norm() -> None:
    model = make_model("timm:vit_tiny_patch16_224", (3, 32, 32), CLASSES, [0.5], [0.5])
    assert any(isinstance(module, nn.LayerNorm) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("torchvision:resnet19", r"torchvision has no network 'resnet19': choose one that torchvision's list_models"),
        ("timm:resnet19", r"timm has no network 'resnet19': choose one that timm's list_models"),
        ("torchvision:squeezenet1_0", r"straight from a linear layer \(it has no torch\.nn\.Linear\)"),
        ("torchvision:inception_v3", r"torchvision:inception_v3 does not take images of shape \(3, 32, 32\)"),
        ("torchvision:vit_b_16", r"torchvision:vit_b_16 cannot be made for images of shape \(3, 30, 30\)"),
    ],
)
def test_what_is_not_to_be_had_is_said(name: str, sentence: str) -> None:
    side = 30 if name.endswith("b_16") else 32
    with pytest.raises(InputError, match=sentence):
        make_model(name, (3, side, side), CLASSES, [0.5], [0.5])
