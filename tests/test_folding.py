"""What a batch norm is folded into, and what it is not: small networks of every awkward kind."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm, update_folded


class Case(nn.Module):
    """A convolution, a batch norm and a linear layer over the mean of the image; subclasses say how data flows."""

    def __init__(self, layer: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer or nn.Conv2d(2, 4, 3, bias=False)
        self.norm = norm or nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def body(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.layer(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class UsedElsewhere(Case):
    def body(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return self.norm(out) + out


class CalledTwice(Case):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)) + self.norm(self.layer(x.flip(3)))


class LayerCalledTwice(Case):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)) + self.layer(2 * x)


class WeightReadElsewhere(Case):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)) + self.layer.weight.sum()


class Between(Case):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(functional.relu(self.layer(x)))


class Before(Case):
    def body(self, x: Tensor) -> Tensor:
        return self.layer(self.norm(torch.cat([x, x], 1)))


class TwoOwners(Case):
    """The weights of one convolution are those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(2, 4, 3, bias=False)
        self.other.weight = self.layer.weight  # type: ignore[assignment]

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)) + self.other(2 * x)


class DependsOnTheData(Case):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x if x.mean() > 0 else -x))


class Subclassed(nn.Conv2d):
    """A convolution whose weights are standardised as it is called."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight / self.weight.std(), self.bias)


class Flat(Case):
    """A batch norm behind a linear layer."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2 * 8 * 8, 4), nn.BatchNorm1d(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.norm(self.layer(x.flatten(1)))))


def parametrised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3))


def hooked() -> nn.Module:
    layer = nn.Conv2d(2, 4, 3)
    layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return layer


# name: (factory of the network, batch norms that are left)
CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (Case, 0),
    "with a bias": (lambda: Case(nn.Conv2d(2, 4, 3)), 0),
    "grouped": (lambda: Case(nn.Conv2d(2, 4, 3, groups=2)), 0),
    "strided, dilated, reflected": (
        lambda: Case(nn.Conv2d(2, 4, 3, 2, padding=2, dilation=2, padding_mode="reflect")),
        0,
    ),
    "no affine map": (lambda: Case(norm=nn.BatchNorm2d(4, affine=False)), 0),
    "behind a linear layer": (Flat, 0),
    "no running statistics": (lambda: Case(norm=nn.BatchNorm2d(4, track_running_stats=False)), 1),
    "transposed": (lambda: Case(nn.ConvTranspose2d(2, 4, 3)), 1),
    "transposed, as many in as out": (lambda: Case(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 4, 3))), 1),
    "used elsewhere": (UsedElsewhere, 1),
    "called twice": (CalledTwice, 1),
    "layer called twice": (LayerCalledTwice, 1),
    "weight read elsewhere": (WeightReadElsewhere, 1),
    "two owners": (TwoOwners, 1),
    "something between": (Between, 1),
    "before the convolution": (lambda: Before(nn.Conv2d(4, 4, 3)), 1),
    "depends on the data": (DependsOnTheData, 1),
    "subclass": (lambda: Case(Subclassed(2, 4, 3)), 1),
    "parametrised": (lambda: Case(parametrised()), 1),
    "hooked": (lambda: Case(hooked()), 1),
}


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def shaken(model: Classifier, seed: int) -> None:
    """Change every tensor of a model; variances stay above zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in ("mean", "std") or not tensor.is_floating_point():
                continue
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if name.endswith("running_var") else tensor + noise - 0.4)


@pytest.mark.parametrize("case", CASES)
def test_what_is_folded_gives_the_same_logits_and_follows_the_model(case: str) -> None:
    network, left = CASES[case]
    model = Classifier(lambda input_shape, classes: network(), (2, 8, 8), 3, [0.5], [0.5], name=case).eval()
    shaken(model, 0)
    folded = fold_batchnorm(model)
    assert len(norms_of(folded)) == left
    images = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    for seed in (1, 2):
        with torch.no_grad():
            torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4)
            shaken(model, seed)
            assert not torch.allclose(folded(images), model(images), rtol=1e-2)
        update_folded(folded, model)
        with torch.no_grad():
            torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4)


def test_where_folding_would_not_give_the_same_logits_it_is_not_done() -> None:
    """A batch norm of tokens (n, t, d) with as many tokens as features: along the wrong one of two equal sizes."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.layer(x[:, 0])).flatten(1))

    model = Classifier(lambda input_shape, classes: Tokens(), (1, 4, 4), 3, [0.5], [0.5], name="tokens").eval()
    shaken(model, 0)
    folded = fold_batchnorm(model)
    assert len(norms_of(folded)) == 1
    shaken(model, 1)
    update_folded(folded, model)
    images = torch.rand(3, 1, 4, 4)
    with torch.no_grad():
        assert torch.equal(folded(images), model(images))


def test_a_copy_of_a_folded_copy_is_not_updated_in_silence() -> None:
    model = Classifier(lambda input_shape, classes: Case(), (2, 8, 8), 3, [0.5], [0.5], name="case")
    folded = fold_batchnorm(model)
    for other in (copy.deepcopy(folded), model):
        with pytest.raises(ValueError, match="was not made by fold_batchnorm, or is a copy of one that was"):
            update_folded(other, model)


def test_an_update_leaves_every_tensor_where_it_lies() -> None:
    """What holds on to addresses, as a captured CUDA graph does, sees the new weights."""
    model = Classifier(lambda input_shape, classes: Case(), (2, 8, 8), 3, [0.5], [0.5], name="case")
    folded = fold_batchnorm(model)
    places = [tensor.data_ptr() for tensor in folded.state_dict().values()]
    shaken(model, 0)
    update_folded(folded, model)
    assert [tensor.data_ptr() for tensor in folded.state_dict().values()] == places


def test_any_other_module_is_copied_for_evaluation_and_left_as_it_was() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).train()
    copied = fold_batchnorm(plain)
    assert not copied.training
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert plain.training
    assert all(parameter.requires_grad for parameter in plain.parameters())
