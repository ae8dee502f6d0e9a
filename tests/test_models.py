"""The model contract: images (n, c, h, w) in [0, 1] in, logits out, the normaliser inside."""

import numpy as np
import pytest
import torch

from pud.data.images import LabelledImages, pixels
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm, update_folded
from pud.models.inference import logits
from pud.models.make import make_model


def lived_in(channels: int = 1) -> Classifier:
    """A model whose batch norms hold statistics that are not the initial ones."""
    model = make_model("resnet8", (channels, 28, 28), 10, [0.3] * channels, [0.4] * channels)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, channels, 28, 28, generator=generator))
    return model.eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_takes_pixels_and_gives_logits_not_probabilities(channels: int) -> None:
    model = lived_in(channels)
    images = torch.rand(3, channels, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = model(images)
    assert (output.sum(1) - 1).abs().min() > 1e-3
    assert output.min() < 0


def test_features_work_under_autograd_and_cost_one_pass() -> None:
    model, passes = lived_in(), 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.network.register_forward_hook(count)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    features = model.features(images)
    assert passes == 1
    assert torch.autograd.grad(features.sum(), images)[0].abs().max() > 0


def test_folding_keeps_the_mode_and_the_gradients_of_the_model() -> None:
    model = lived_in().train()
    fold_batchnorm(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_normaliser_is_inside() -> None:
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    plain = make_model("resnet8", (1, 28, 28), 10, [0.0], [1.0]).eval()
    inside = make_model("resnet8", (1, 28, 28), 10, [0.3], [0.4]).eval()
    with torch.no_grad():
        torch.testing.assert_close(inside(images), plain((images - 0.3) / 0.4))


def test_logits_of_uint8_images_do_not_depend_on_the_batch_size(train_split: LabelledImages) -> None:
    model, images = lived_in(), np.array(train_split.images[:30])
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


def test_a_rebuilt_model_is_the_one_that_its_seed_makes() -> None:
    model = make_model("resnet8", (1, 28, 28), 10, [0.286], [0.353], seed=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    rebuilt, made = model.rebuild(7), make_model("resnet8", (1, 28, 28), 10, [0.286], [0.353], seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert rebuilt.training
    for (name, one), other in zip(rebuilt.state_dict().items(), made.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_model_follows_another_one_of_its_kind_by_the_same_steps_as_its_own() -> None:
    """A teacher may be read from disk: what counts is what a tensor is called and its shape."""
    one, other = (make_model("resnet8", (1, 28, 28), 10, [0.3], [0.4], seed=seed).eval() for seed in (1, 2))
    folded, images = fold_batchnorm(one), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    for model in (other, one, other):
        update_folded(folded, model)
        with torch.no_grad():
            torch.testing.assert_close(folded(images), model(images), atol=1e-5, rtol=1e-5)
