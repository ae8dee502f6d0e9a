"""PGD against a NumPy oracle: for a linear softmax model every step can be written down."""

import numpy as np
import pytest
import torch
from torch import nn

from pud.adversarial.pgd import PGDConfig, pgd, project, random_start
from pud.models.make import make_model

SHAPE = (6, 2, 4, 3)


def linear_model() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 5)).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def some_images(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images[0], images[1] = 0, 1  # at both ends of the range
    return images.to(dtype), torch.tensor([0, 1, 2, 3, 4, 0])


def numpy_pgd(
    weight: np.ndarray,
    bias: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray,
    config: PGDConfig,
) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    x = np.clip(flat + config.epsilon * (2 * noise.reshape(flat.shape) - 1), 0, 1)
    for _ in range(config.steps):
        z = x @ weight.T + bias
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = (p - np.eye(len(bias))[labels]) @ weight
        x = x + config.step_size * config.epsilon * np.sign(gradient)
        x = np.clip(np.clip(x, flat - config.epsilon, flat + config.epsilon), 0, 1)
    return x.reshape(images.shape)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_pgd_equals_the_numpy_oracle(steps: int) -> None:
    model, (images, labels) = linear_model(), some_images()
    config = PGDConfig(epsilon=6 / 255, steps=steps, step_size=0.3)
    noise = torch.rand(SHAPE, generator=torch.Generator().manual_seed(9)).double().numpy()
    weight, bias = (parameter.detach().numpy() for parameter in model[1].parameters())  # type: ignore[index]
    expected = numpy_pgd(weight, bias, images.numpy(), labels.numpy(), noise, config)
    found = pgd(model, images, labels, config, generator=torch.Generator().manual_seed(9))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 1 / 255, 8 / 255, 0.5, 2.0])
def test_x_adv_stays_in_the_ball_and_in_the_image_range(epsilon: float) -> None:
    images, labels = some_images(torch.float32)
    config = PGDConfig(epsilon=epsilon, steps=5, step_size=0.9)
    x_adv = pgd(linear_model().float(), images, labels, config, generator=torch.Generator().manual_seed(0))
    assert (x_adv.shape, x_adv.dtype) == (images.shape, images.dtype)
    assert (x_adv - images).abs().max() <= epsilon + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_pgd_raises_the_loss() -> None:
    model, (images, labels) = linear_model(), some_images()
    config = PGDConfig(epsilon=0.1, steps=5)
    x_adv = pgd(model, images, labels, config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), labels, reduction="none") for x in (images, x_adv)]
    assert (losses[1] > losses[0]).all()


def test_pgd_depends_on_the_generator_alone() -> None:
    model, (images, labels) = linear_model(), some_images()
    runs = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(global_seed)
        runs.append(pgd(model, images, labels, PGDConfig(), generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_pgd_touches_neither_weights_nor_their_gradients_nor_the_images() -> None:
    model = make_model("resnet8", (1, 8, 8), 5, [0.5], [0.5]).eval()
    images, labels = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4)
    before, kept = [parameter.clone() for parameter in model.parameters()], images.clone()
    x_adv = pgd(model, images, labels, PGDConfig(), generator=torch.Generator().manual_seed(0))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(images, kept)
    assert not x_adv.requires_grad
    assert not images.requires_grad


def test_the_random_start_fills_the_ball() -> None:
    start = random_start(torch.full((1, 1, 100, 100), 0.5), 0.1, torch.Generator().manual_seed(0)) - 0.5
    assert start.min() < -0.0999
    assert start.max() > 0.0999
    assert start.mean().abs() < 0.002


def test_project_is_the_nearest_point_of_ball_and_range() -> None:
    images = torch.tensor([0.02, 0.5, 0.99])
    torch.testing.assert_close(project(torch.tensor([-1.0, 0.6, 2.0]), images, 0.05), torch.tensor([0.0, 0.55, 1.0]))
    assert torch.equal(project(images, images, 0.05), images)
