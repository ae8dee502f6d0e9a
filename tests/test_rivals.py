"""Rival defences keep one contract; what is at the heart of each is checked against its definition."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments import rivals
from experiments.rivals import RIVALS, Given, prune, sam_climb, within_ball
from pud.data.images import Split, pixels
from pud.models.classifier import ResNet

every_rival = pytest.mark.parametrize("name", RIVALS)


@pytest.fixture
def model() -> ResNet:
    torch.manual_seed(3)
    return ResNet((1, 28, 28), 10, [0.286], [0.353], widths=(8, 16), blocks=(1, 1), stem_stride=2).eval()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EPOCHS": 2, "BATCH": 32, "BAU_ROUNDS": 1, "ANP_STEPS": 4}.items():
        monkeypatch.setattr(rivals, name, value)


def repaired(name: str, model: ResNet, split: Split, seed: int = 0) -> ResNet:
    function, (rate, _) = RIVALS[name]
    images, generator = np.array(split.images[:96]), torch.Generator().manual_seed(seed)
    return function(model, Given(images, split.labels[:96], rate, generator, torch.device("cpu")))


@every_rival
def test_a_rival_returns_another_model_and_leaves_the_given_one(name: str, model: ResNet, train_split: Split) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    after = repaired(name, model, train_split)
    assert not after.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert after.state_dict().keys() == before.keys()
    assert torch.isfinite(after(pixels(train_split.images[:8].copy()))).all()


@every_rival
def test_a_rival_depends_on_its_generator_alone(name: str, model: ResNet, train_split: Split) -> None:
    torch.manual_seed(1)
    first = repaired(name, model, train_split)
    torch.manual_seed(2)
    again = repaired(name, model, train_split)
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_sharpness_aware_steps_have_the_radius_in_the_weights_own_metric() -> None:
    weights = [nn.Parameter(torch.tensor([2.0, -1.0])), nn.Parameter(torch.tensor([0.5]))]
    (weights[0] * torch.tensor([1.0, 3.0])).sum().add(weights[1].sum() * 2).backward()
    climbs = sam_climb(weights, 0.7)
    relative = torch.cat([climb / weight.abs() for climb, weight in zip(climbs, weights, strict=True)])
    assert float(relative.norm().detach()) == pytest.approx(0.7)


def test_pruning_takes_the_lowest_masks_of_all_layers_as_far_as_is_allowed() -> None:
    norms, answers = [nn.BatchNorm2d(3), nn.BatchNorm2d(2)], iter([True, True, False])
    nn.init.constant_(norms[0].bias, 5)
    prune(norms, [torch.tensor([0.3, 0.1, 0.9]), torch.tensor([0.2, 0.8])], lambda: next(answers))
    assert [norm.weight.tolist() for norm in norms] == [[1, 0, 1], [0, 1]]
    assert norms[0].bias.tolist() == [5, 5, 5]


@pytest.mark.parametrize(("length", "expected"), [(3.0, 3.0), (30.0, 10.0)])
def test_a_perturbation_stays_in_its_ball(length: float, expected: float) -> None:
    delta = torch.ones(1, 1, 2, 2) * length / 2
    assert float(within_ball(delta, 10.0).norm()) == pytest.approx(expected)
