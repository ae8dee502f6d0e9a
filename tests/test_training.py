"""Training: every image once an epoch, and a real model that learns, twice the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import small_classifier
from torch.nn import functional

from pud.data.images import LabelledImages
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, batches, one_cycle, train, warn_of_few_steps

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "batch_size", "per_epoch"), [(10, 5, 2), (10, 4, 2), (3, 8, 1), (1, 1, 1)])
def test_an_epoch_is_a_new_order_in_equal_batches(n: int, batch_size: int, per_epoch: int) -> None:
    order = batches(n, batch_size, 3, torch.Generator().manual_seed(0))
    assert len(order) == 3 * per_epoch
    assert {len(batch) for batch in order} == {min(batch_size, n)}
    for epoch in range(3):
        seen = torch.cat(order[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert len(seen.unique()) == len(seen)
        assert seen.max() < n


def test_each_epoch_is_a_permutation_and_no_two_are_alike() -> None:
    epochs = torch.stack(batches(100, 100, 2, torch.Generator().manual_seed(0)))
    assert torch.equal(epochs.sort(1).values, torch.arange(100).expand(2, 100))
    assert not torch.equal(epochs[0], epochs[1])


def test_the_order_depends_on_the_generator_alone() -> None:
    one, two, other = (torch.cat(batches(50, 7, 2, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 100])
def test_the_learning_rate_is_torch_s_one_cycle(steps: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    expected = []
    for _ in range(steps):
        expected += schedule.get_last_lr()
        optimiser.step()
        if len(expected) < steps:
            schedule.step()
    assert one_cycle(0.1, steps) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "batch_size", "told"), [(2000, 100_000, True), (2000, 600, True), (2000, 128, False)])
def test_batches_that_leave_few_steps_are_told(
    n: int, batch_size: int, told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    warn_of_few_steps(n, batch_size)
    assert ("give a smaller batch_size" in capfd.readouterr().err) == told


def fresh() -> Classifier:
    return small_classifier(0)


def trained(split: LabelledImages, seed: int) -> Classifier:
    model = fresh()
    torch.seed()  # must not matter
    config = TrainConfig(epochs=3, batch_size=50)
    generator = torch.Generator().manual_seed(seed)
    train(model, np.array(split.images[:600]), split.labels[:600], config, generator=generator, device=CPU)
    return model


def test_a_tiny_run_lowers_the_loss_and_is_the_same_twice(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    labels = torch.from_numpy(test_split.labels)
    images = np.array(test_split.images)

    def loss(model: Classifier) -> float:
        return float(functional.cross_entropy(logits(model, images, CPU), labels))

    model = trained(train_split, 0)
    again = trained(train_split, 0)
    assert not model.training
    assert loss(model) < 0.7 * loss(fresh().eval())
    for (name, tensor), same in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(tensor, same), name
    assert not torch.equal(model.head.weight, trained(train_split, 1).head.weight)


def test_dropout_is_the_same_twice_and_leaves_the_global_numbers_alone(train_split: LabelledImages) -> None:
    def trained() -> torch.Tensor:
        torch.manual_seed(5)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(784, 10))
        torch.seed()  # must not matter
        before = torch.get_rng_state()
        config, numbers = TrainConfig(epochs=1, batch_size=50), torch.Generator().manual_seed(0)
        train(model, train_split.images, train_split.labels, config, generator=numbers, device=CPU)
        assert torch.equal(before, torch.get_rng_state())
        return model[2].weight.detach()

    assert torch.equal(trained(), trained())


def test_sharpness_aware_minimisation_descends_from_the_worst_weights_nearby(train_split: LabelledImages) -> None:
    images, labels = train_split.images[:50], train_split.labels[:50].copy()
    radius, rate = 0.5, 0.01 * 25e4  # one step is the schedule's last, at nearly nothing
    plain = TrainConfig(epochs=1, batch_size=50, learning_rate=rate, weight_decay=0.0, crop=0.0, flip=False)

    def step_from(model: Classifier, config: TrainConfig) -> torch.Tensor:
        before = torch.cat([weight.detach().flatten().clone() for weight in model.parameters()])
        train(model, images, labels, config, generator=torch.Generator().manual_seed(0), device=CPU)
        return torch.cat([weight.detach().flatten() for weight in model.parameters()]) - before

    descent = step_from(fresh(), plain)
    worst = fresh()
    climbs = (-radius * descent / descent.norm()).split([weight.numel() for weight in worst.parameters()])
    with torch.no_grad():
        for weight, climb in zip(worst.parameters(), climbs, strict=True):
            weight.add_(climb.view(weight.shape))
    aware = fresh()
    step = step_from(aware, replace(plain, sam_radius=radius))
    torch.testing.assert_close(step, step_from(worst, plain), rtol=0.05, atol=float(descent.abs().max()) / 100)
    assert (step - descent).norm() > 0.1 * descent.norm()
    once = fresh()
    step_from(once, plain)
    for name, buffer in once.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffer, dict(aware.named_buffers())[name])
