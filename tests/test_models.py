"""The model contract: images (n, c, h, w) in [0, 1] in, logits out, the normaliser inside."""

import numpy as np
import pytest
import torch
from torch import nn

from pud.base.errors import InputError
from pud.data.images import Split, pixels
from pud.models.classifier import ARCHITECTURES, ConvNorm, ResNet, frozen, logits, make_model, refreeze

every_architecture = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))


def lived_in(architecture: str, channels: int = 1) -> ResNet:
    """A model whose batch norms hold statistics and affine parameters that are not the initial ones."""
    model = make_model(architecture, (channels, 28, 28), 10, [0.3] * channels, [0.4] * channels)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, channels, 28, 28, generator=generator))
    return model.eval()


@every_architecture
def test_frozen_computes_the_same_logits(architecture: str) -> None:
    model = lived_in(architecture)
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(frozen(model)(images), model(images), atol=1e-5, rtol=1e-5)


def test_frozen_computes_the_same_input_gradients() -> None:
    model = lived_in("resnet8")
    gradients = []
    for network in (model, frozen(model)):
        images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        gradients.append(torch.autograd.grad(network(images)[:, 0].sum(), images)[0])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


def test_frozen_has_no_trainable_parameter_and_no_batch_norm() -> None:
    model = lived_in("resnet8").train()
    fast = frozen(model)
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert not any(isinstance(module, ConvNorm | nn.BatchNorm2d) for module in fast.modules())


def test_frozen_leaves_the_model_as_it_was() -> None:
    model = lived_in("resnet8").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@every_architecture
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_takes_pixels_and_gives_logits(architecture: str, channels: int) -> None:
    model = lived_in(architecture, channels)
    images = torch.rand(3, channels, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output, features = model(images), model.features(images)
    assert output.shape == (3, 10)
    assert features.shape == (3, ARCHITECTURES[architecture][0][-1])
    torch.testing.assert_close(model.head(features), output)
    assert (output.sum(1) - 1).abs().min() > 1e-3  # logits, not probabilities
    assert output.min() < 0


def test_the_normaliser_is_inside() -> None:
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    plain = make_model("resnet8", (1, 28, 28), 10, [0.0], [1.0]).eval()
    inside = make_model("resnet8", (1, 28, 28), 10, [0.3], [0.4]).eval()
    with torch.no_grad():
        torch.testing.assert_close(inside(images), plain((images - 0.3) / 0.4))


def test_logits_of_uint8_images_do_not_depend_on_the_batch_size(train_split: Split) -> None:
    model, images = lived_in("resnet8"), np.array(train_split.images[:30])
    whole = logits(model, images, torch.device("cpu"))
    assert (whole.shape, whole.dtype) == ((30, 10), torch.float32)
    torch.testing.assert_close(logits(model, images, torch.device("cpu"), batch=7), whole, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels(images)), whole, atol=1e-5, rtol=1e-5)


def test_the_seed_alone_makes_the_initial_weights() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, two, other = (make_model("resnet8", (1, 28, 28), 10, [0.0], [1.0], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_an_unknown_architecture_is_refused_with_the_choice() -> None:
    with pytest.raises(InputError, match=r"unknown architecture 'vgg': choose one of resnet18, resnet8"):
        make_model("vgg", (1, 28, 28), 10, [0.0], [1.0])


def test_a_refrozen_copy_is_the_copy_made_anew() -> None:
    model = make_model("resnet8", (1, 28, 28), 10, [0.286], [0.353]).eval()
    fast = frozen(model)
    with torch.no_grad():
        for tensor in (
            *model.parameters(),
            *(norm.running_mean for norm in model.modules() if hasattr(norm, "running_mean")),
        ):
            tensor.add_(0.01)
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(fast(images), frozen(model)(images))
    refreeze(fast, model)
    assert torch.equal(fast(images), frozen(model)(images))
