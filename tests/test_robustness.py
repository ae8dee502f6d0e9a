"""Robust accuracy: a record that says how it was measured, and values that can be worked out."""

import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn
from torch.nn import functional

from pud.adversarial.robustness import (
    EvaluateConfig,
    autoattack_accuracy,
    check_attacks,
    masking_checks,
    robust_accuracy,
)
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels
from pud.models.make import make_model

CONFIG = EvaluateConfig(pgd_steps=5, batch_size=70)


class Constant(nn.Module):
    """Answers class 1 whatever it sees; no attack can move it."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([0.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def linear(train_split: LabelledImages) -> nn.Module:
    """A linear model fitted to the sample: accurate and easily fooled."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    images, labels = pixels(train_split.images[:].copy()), torch.from_numpy(train_split.labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def held_out(test_split: LabelledImages) -> tuple[Tensor, Tensor]:
    return pixels(test_split.images[:].copy()), torch.from_numpy(test_split.labels)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def test_a_record_says_how_it_was_measured() -> None:
    record = robust_accuracy(Constant(), torch.rand(10, 1, 4, 4), torch.ones(10).long(), CONFIG, seed=3)
    assert record == {
        "attack": "PGD",
        "epsilon": 8 / 255,
        "steps": 5,
        "restarts": 1,
        "n": 10,
        "seed": 3,
        "value": 1.0,
    }


@pytest.mark.parametrize(("right", "value"), [(0, 0.0), (4, 0.4), (10, 1.0)])
def test_a_constant_model_keeps_its_clean_accuracy(right: int, value: float) -> None:
    labels = torch.tensor([1] * right + [2] * (10 - right))
    config = EvaluateConfig(pgd_steps=3, batch_size=4)
    assert robust_accuracy(Constant(), torch.rand(10, 1, 4, 4), labels, config, seed=0)["value"] == value


def test_no_images_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError):
        robust_accuracy(Constant(), torch.rand(0, 1, 4, 4), torch.ones(0).long(), CONFIG, seed=0)


def test_an_attack_lowers_the_accuracy_of_a_linear_model(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    clean = accuracy(linear, *held_out)
    values = [
        robust_accuracy(linear, *held_out, EvaluateConfig(epsilon=epsilon, pgd_steps=10), seed=0)["value"]
        for epsilon in (1e-6, 4 / 255, 16 / 255)
    ]
    assert clean > 0.6
    assert values[0] == pytest.approx(clean)
    assert values[0] > values[1] > values[2]


def test_without_foolbox_our_own_attack_measures_nearly_the_same_and_is_named(
    linear: nn.Module, held_out: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(epsilon=4 / 255, pgd_steps=10)
    by_foolbox = robust_accuracy(linear, *held_out, config, seed=0)
    monkeypatch.setattr("pud.adversarial.robustness.find_spec", lambda name: None)
    ours = robust_accuracy(linear, *held_out, config, seed=0)
    assert (by_foolbox["attack"], ours["attack"]) == ("PGD", "PGD of pud")
    assert ours["value"] == pytest.approx(by_foolbox["value"], abs=0.01)
    with pytest.raises(InputError, match="pip install pyautoattack"):
        check_attacks(autoattack=True)
    check_attacks(autoattack=False)


def test_the_value_depends_on_the_seed_alone(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    first = robust_accuracy(linear, *held_out, CONFIG, seed=0)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert robust_accuracy(linear, *held_out, CONFIG, seed=0) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_measuring_leaves_the_model_trainable(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    before = [parameter.clone() for parameter in linear.parameters()]
    robust_accuracy(linear, *held_out, CONFIG, seed=0)
    assert all(parameter.requires_grad for parameter in linear.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, linear.parameters(), strict=True))


def test_autoattack_is_at_least_as_strong(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    images, labels = held_out[0][:8].contiguous(), held_out[1][:8]
    config = EvaluateConfig(epsilon=16 / 255, pgd_steps=20)
    record, white_box = autoattack_accuracy(linear, images, labels, config, seed=0)
    assert (record["attack"], record["n"], record["epsilon"]) == ("AutoAttack", 8, 16 / 255)
    weaker = robust_accuracy(linear, images, labels, config, seed=0)["value"]
    assert record["value"] <= white_box <= weaker  # type: ignore[operator]


def test_autoattack_in_two_parts_is_the_library_s_own(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    images, labels = held_out[0][4:9].contiguous(), held_out[1][4:9]
    whole = AutoAttack(linear, norm="Linf", eps=8 / 255, version="standard", seed=0)
    x_adv, _ = whole.run_standard_evaluation(images, labels)
    expected = float((linear(x_adv).argmax(1) == labels).float().mean())
    assert 0 < expected < 1
    record, _ = autoattack_accuracy(linear, images, labels, EvaluateConfig(), seed=0)
    assert record["value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "name"),
    [(2, "AutoAttack-untargeted"), (3, "AutoAttack-untargeted"), (4, "AutoAttack"), (5, "AutoAttack")],
)
def test_autoattack_takes_few_classes_and_names_what_it_left_out(
    classes: int, name: str, linear: nn.Module, held_out: tuple[Tensor, Tensor]
) -> None:
    few = nn.Sequential(linear, Chosen(classes))
    known = held_out[1] < classes
    images, labels = held_out[0][known][:8].contiguous(), held_out[1][known][:8]
    config = EvaluateConfig(epsilon=32 / 255)
    record, white_box = autoattack_accuracy(few, images, labels, config, seed=0)
    assert (record["attack"], record["n"]) == (name, 8)
    assert record["value"] <= white_box <= robust_accuracy(few, images, labels, config, seed=0)["value"]  # type: ignore[operator]
    assert record["value"] < accuracy(few, images, labels)  # type: ignore[operator]


def test_autoattack_takes_colour_whose_channels_lie_last() -> None:
    model = make_model("resnet8", (3, 16, 16), 4, [0.5], [0.25]).eval()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    labels = model(images).argmax(1)
    record, white_box = autoattack_accuracy(model, images, labels, EvaluateConfig(epsilon=1 / 255), seed=0)
    assert 0 <= record["value"] <= white_box <= 1  # type: ignore[operator]


class Chosen(nn.Module):
    """Keeps the first logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, : self.classes]


class Quantised(nn.Module):
    """A model whose gradient says nothing about what it answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.model(images)
        steps = answer.mul(4).round().div(4)
        return steps.detach() + 1e-3 * (images - images.detach()).flatten(1).sum(1, keepdim=True)


def test_square_shows_what_masked_gradients_hide(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    images, labels = held_out[0][:16].contiguous(), held_out[1][:16]
    config = EvaluateConfig(epsilon=16 / 255)
    record, white_box = autoattack_accuracy(Quantised(linear), images, labels, config, seed=0)
    assert record["value"] < white_box  # type: ignore[operator]


def test_an_ordinary_model_passes_the_checks_for_gradient_masking(
    linear: nn.Module, held_out: tuple[Tensor, Tensor]
) -> None:
    images, labels = held_out[0][:60], held_out[1][:60]
    assert set(masking_checks(linear, images, labels, CONFIG, seed=0).values()) == {True}


def test_a_model_without_gradients_is_found_out(held_out: tuple[Tensor, Tensor]) -> None:
    images = held_out[0][:20]
    checks = masking_checks(Constant(), images, torch.ones(20).long(), CONFIG, seed=0)
    assert not checks["gradients_are_nowhere_zero"]
    assert not checks["an_unbounded_attack_fools_all"]
    assert checks["outputs_are_logits_not_probabilities"]


def test_probabilities_in_place_of_logits_are_found_out(linear: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    softened = nn.Sequential(linear, nn.Softmax(1))
    checks = masking_checks(softened, held_out[0][:20], held_out[1][:20], CONFIG, seed=0)
    assert not checks["outputs_are_logits_not_probabilities"]
