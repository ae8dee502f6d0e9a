"""What holds for every classifier: tests to be run on the networks built in, and on those of libraries (tests/zoo)."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.artifacts.model import ModelCard, load_model, save_model
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm, update_folded

CLASSES = 5


def some_images(model: Classifier, n: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(n, *model.input_shape, generator=torch.Generator().manual_seed(seed))


def train_some_steps(model: Classifier) -> None:
    """Take two steps, from weights of which every one was moved a little, so that no initial value is left."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter += 0.01 * (torch.rand(parameter.shape, generator=generator) - 0.5)
    optimiser = torch.optim.SGD(model.train().parameters(), 0.05)
    for step in range(2):
        images = some_images(model, 4, seed=step)
        with torch.random.fork_rng(devices=[]):
            loss = functional.cross_entropy(model(images), torch.arange(4) % CLASSES)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


class ClassifierContract:
    """Subclasses say which network: a fixture ``card``, its description without weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, card: ModelCard) -> Classifier:
        """A network with weights and statistics that are not the initial ones; no test may change it."""
        model = card.build(seed=3)
        train_some_steps(model)
        return model

    def test_features_are_what_the_head_takes(self, model: Classifier) -> None:
        images = some_images(model, 3)
        with torch.no_grad():
            features, logits = model.features(images), model(images)
            assert torch.equal(model.head(features), logits)
        assert features.shape == (3, model.head.in_features)
        assert logits.shape == (3, CLASSES) == (3, model.classes)

    def test_folding_gives_the_same_logits_and_changes_nothing(self, model: Classifier) -> None:
        images, before = some_images(model), tensors_of(model)
        folded = fold_batchnorm(model)
        with torch.no_grad():
            assert_close(folded(images), model(images))
            assert_close(folded.features(images), model.features(images))
        assert not folded.training
        assert not any(parameter.requires_grad for parameter in folded.parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(model).items())

    def test_input_gradients_of_the_folded_copy_are_those_of_autograd_on_the_plain_network(
        self, model: Classifier
    ) -> None:
        gradients, exact = [], copy.deepcopy(model).double()  # else rounding could move a ReLU across its kink
        for network in (exact, fold_batchnorm(exact)):
            images = some_images(model).double().requires_grad_(True)
            loss = functional.cross_entropy(network(images), torch.tensor([0, 1]))
            gradients.append(torch.autograd.grad(loss, images)[0])
        assert gradients[0].abs().max() > 0
        torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-8 * float(gradients[0].abs().max()))

    def test_an_updated_copy_is_the_copy_made_anew(self, model: Classifier, card: ModelCard) -> None:
        other = card.build(seed=4).eval()
        folded = fold_batchnorm(other)
        update_folded(folded, model)  # of another model of the same kind
        fresh = tensors_of(fold_batchnorm(model))
        assert tensors_of(folded).keys() == fresh.keys()
        assert [name for name, tensor in tensors_of(folded).items() if not torch.equal(tensor, fresh[name])] == []

    def test_an_update_raises_on_any_tensor_that_it_did_not_take_over(self, card: ModelCard) -> None:
        model = card.build()
        folded = fold_batchnorm(model)
        update_folded(folded, model)
        model.network.register_buffer("surplus", torch.zeros(2))
        with pytest.raises(ValueError, match=r"does not hold what the model has in network\.surplus: fold it again"):
            update_folded(folded, model)
        del model.network.surplus
        model.network.register_parameter("surplus", nn.Parameter(torch.zeros(2)))
        with pytest.raises(ValueError, match=r"network\.surplus"):
            update_folded(folded, model)
        del model.network.surplus
        update_folded(folded, model)
        first = next(iter(dict(model.network.named_parameters()).values()))
        first.data = torch.zeros(1, *first.shape)
        with pytest.raises(ValueError, match=r"network\."):
            update_folded(folded, model)

    def test_nothing_that_was_trained_is_in_a_rebuilt_network(self, card: ModelCard) -> None:
        model = card.build(seed=3)
        initial = tensors_of(model)
        train_some_steps(model)
        trained = tensors_of(model)
        changed = {name for name, tensor in trained.items() if not torch.equal(tensor, initial[name])}
        rebuilt = tensors_of(model.rebuild(5))
        assert {name for name, tensor in rebuilt.items() if torch.equal(tensor, trained[name])} & changed == set()
        assert {name: tensor.shape for name, tensor in rebuilt.items()} == {
            name: tensor.shape for name, tensor in trained.items()
        }
        weights = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert weights - changed == set()  # else the first claim could hold of nothing
        assert torch.equal(model.rebuild(5).head.weight, rebuilt["head.weight"])
        assert torch.equal(rebuilt["mean"], trained["mean"])

    def test_weights_survive_the_round_trip_bit_for_bit(
        self, model: Classifier, card: ModelCard, tmp_path: Path
    ) -> None:
        save_model(tmp_path, model, card)
        read, _ = load_model(tmp_path, torch.device("cpu"))
        before, after = model.state_dict(), read.state_dict()
        assert before.keys() == after.keys()
        assert [name for name in before if not torch.equal(before[name], after[name])] == []
        assert [name for name in before if before[name].dtype != after[name].dtype] == []


def card_of(architecture: str, input_shape: tuple[int, int, int]) -> ModelCard:
    """Return the description of an untrained model of this kind."""
    classes, channels = [f"class {label}" for label in range(CLASSES)], input_shape[0]
    return ModelCard(architecture, list(input_shape), classes, [0.4] * channels, [0.3] * channels, {}, {})
