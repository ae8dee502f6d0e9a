"""Other defences than ours: what is at the heart of each is checked against its definition."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from small import small_classifier
from torch import nn
from torch.nn import functional

from pud.base.errors import InputError
from pud.data.images import LabelledImages
from pud.defences.abl import lowest_losses
from pud.defences.anp import AnpConfig, accuracy, anp, anywhere, learn_masks, prune
from pud.defences.fine_tuning import FineTuningConfig, fine_tune
from pud.defences.ft_sam import FtSamConfig, ft_sam, smooth_cross_entropy
from pud.defences.i_bau import IBauConfig, hypergradients, search, search_loss, within_ball
from pud.defences.repair import LabelledBatches, RepairConfig
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import worst_nearby

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Classifier:
    return small_classifier(3).eval()


def clean_set(split: LabelledImages, config: RepairConfig, n: int = 64) -> LabelledBatches:
    return LabelledBatches(np.array(split.images[:n]), split.labels[:n], config, torch.Generator().manual_seed(0), CPU)


def test_a_repair_leaves_the_given_model_as_it_is(model: Classifier, train_split: LabelledImages) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = FineTuningConfig(epochs=1, batch_size=32)
    fine_tune(model, clean_set(train_split, config), config)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_epoch_holds_every_image_once_but_for_a_short_last_batch(train_split: LabelledImages) -> None:
    clean = clean_set(train_split, RepairConfig(batch_size=20))
    labels = torch.cat([y for _, y in clean.steps(1)])
    assert len(labels) == 20 * clean.steps_per_epoch == 60
    counts = torch.bincount(torch.from_numpy(clean.labels), minlength=10) - torch.bincount(labels, minlength=10)
    assert counts.min() >= 0
    assert counts.sum() == 4


def test_colour_pictures_are_augmented_and_grey_ones_are_not(train_split: LabelledImages) -> None:
    grey = clean_set(train_split, RepairConfig(batch_size=64))
    colour = dataclasses.replace(grey, images=np.repeat(grey.images, 3, 1), generator=torch.Generator().manual_seed(0))
    (one, _), (other, _) = next(grey.steps(1)), next(colour.steps(1))
    in_order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(one.numpy(), grey.images[in_order] / 255, atol=1e-6)
    assert not torch.equal(other[:, :1], one)


@pytest.mark.parametrize("relative", [True, False])
def test_sharpness_aware_steps_have_the_radius_in_their_metric_and_none_climbs_more(relative: bool) -> None:
    weights = nn.ParameterList([nn.Parameter(torch.tensor([2.0, -1.0])), nn.Parameter(torch.tensor([0.5]))])
    (weights[0] * torch.tensor([1.0, 3.0])).sum().add(weights[1].sum() * 2).backward()
    before, slope = torch.cat([*weights]).detach(), torch.tensor([1.0, 3.0, 2.0])
    sizes = before.abs() if relative else torch.ones(3)
    with worst_nearby(weights, 0.7, relative=relative):
        climb = torch.cat([*weights]).detach() - before
    assert float((climb / sizes).norm()) == pytest.approx(0.7)
    assert float(climb @ slope) == pytest.approx(0.7 * float((sizes * slope).norm()))  # the most, by Cauchy and Schwarz
    assert torch.equal(torch.cat([*weights]).detach(), before)


def test_ft_sam_remembers_nothing_of_what_batch_norms_see_at_the_perturbed_weights(
    model: Classifier, train_split: LabelledImages
) -> None:
    """One step of FT-SAM leaves the running statistics of one step of fine-tuning."""
    tuned, sharp = (
        repair(model, clean_set(train_split, config), config)
        for repair, config in (
            (fine_tune, FineTuningConfig(epochs=1, batch_size=64)),
            (ft_sam, FtSamConfig(epochs=1, batch_size=64)),
        )
    )
    assert not torch.equal(tuned.head.weight, sharp.head.weight)
    for (name, one), other in zip(tuned.named_buffers(), sharp.buffers(), strict=True):
        if "num_batches" not in name:
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_smoothing_gives_the_other_classes_a_share_and_the_label_the_rest() -> None:
    logits, labels = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 2])
    targets = torch.full((3, 5), 0.1 / 4).scatter(1, labels[:, None], 0.9)
    torch.testing.assert_close(smooth_cross_entropy(logits, labels, 0.1), functional.cross_entropy(logits, targets))


@pytest.mark.parametrize(("length", "expected"), [(3.0, 3.0), (30.0, 10.0)])
def test_a_perturbation_stays_in_its_ball(length: float, expected: float) -> None:
    delta = torch.ones(1, 1, 2, 2) * length / 2
    assert float(within_ball(delta, 10.0).norm()) == pytest.approx(expected)


def test_a_hypergradient_has_the_response_of_the_perturbation_to_the_weights() -> None:
    """Of a search for the minimum of d'Ad/2 - d'Bw, inv(A)Bw, the loss v'd + u'w has the gradient u + B'inv(A)v."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b, v, u, w = draw(3, 4), draw(3), draw(4), nn.Parameter(draw(4))
    a = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)) + 0.1
    delta = torch.linalg.solve(a, b @ w.detach()).requires_grad_(True)

    def found(steps: int) -> torch.Tensor:
        return hypergradients([w], delta, v @ delta + u @ w, delta - 0.1 * (a @ delta - b @ w), steps)[0]

    torch.testing.assert_close(found(500), u + b.T @ torch.linalg.solve(a, v))
    torch.testing.assert_close(found(1), u + 0.1 * b.T @ v)


def test_a_search_raises_the_loss_within_the_ball_and_a_penalty_shortens_it(
    model: Classifier, train_split: LabelledImages
) -> None:
    config = IBauConfig(batch_size=32, radius=3.0)
    clean = clean_set(train_split, config)
    x = next(clean.steps(1))[0]
    said = model(x).argmax(1)
    found = search(model, [x] * 4, config)
    assert float(found.norm()) <= 3 + 1e-5
    assert search_loss(model, x, said, found, 0.0) < search_loss(model, x, said, torch.zeros_like(found), 0.0)
    shorter = search(model, [x] * 4, dataclasses.replace(config, radius=1e6, penalty=0.02))
    assert shorter.norm() < search(model, [x] * 4, dataclasses.replace(config, radius=1e6)).norm()


def test_learning_masks_leaves_weights_and_statistics_and_stays_between_0_and_1(
    model: Classifier, train_split: LabelledImages
) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items() if "num_batches" not in key}
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    config = AnpConfig(steps=6, batch_size=32)
    masks, means = learn_masks(model.requires_grad_(False), norms, clean_set(train_split, config), config)
    assert len(masks) == len(means) == sum(norm.num_features for norm in norms.values())
    assert 0 <= masks.min() < masks.max() <= 1
    assert 0 <= means.min() < means.max() <= 1
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_a_perturbation_of_neurons_starts_anywhere_in_its_range() -> None:
    start = anywhere(torch.zeros(10_000), 0.4, torch.Generator().manual_seed(0))
    assert start.is_leaf
    assert start.requires_grad
    drawn = start.detach()
    assert -0.4 <= drawn.min() < -0.39
    assert 0.39 < drawn.max() <= 0.4
    assert abs(float(drawn.mean())) < 0.01


def test_pruning_takes_channels_of_all_layers_in_order_past_a_dip_as_far_as_is_allowed() -> None:
    norms, answers = [nn.BatchNorm2d(3), nn.BatchNorm2d(2)], iter([True, False, True, False])
    nn.init.constant_(norms[0].bias, 5)
    prune(norms, np.array([1, 3, 0, 4, 2]), np.array([1, 2, 3, 4]), lambda: next(answers))
    assert [norm.weight.tolist() for norm in norms] == [[0, 0, 1], [0, 1]]
    assert norms[0].bias.tolist() == [5, 5, 5]
    prune(norms, np.arange(5), np.array([4]), lambda: False)
    assert [norm.weight.tolist() for norm in norms] == [[0, 0, 1], [0, 1]]


def test_anp_costs_no_more_than_its_share_of_the_clean_accuracy(model: Classifier, train_split: LabelledImages) -> None:
    """At the authors' learning rate too, at which many masks of a small network are zero alike."""
    config = AnpConfig(steps=8, batch_size=32, learning_rate=0.2, cuts=10, accuracy_drop=0.03)
    clean = clean_set(train_split, config)
    pruned = anp(model, clean, config)
    assert accuracy(pruned, clean) >= accuracy(model, clean) - 0.03
    weights = [module.weight for module in pruned.modules() if isinstance(module, nn.BatchNorm2d)]
    assert any((weight == 0).any() for weight in weights)


def test_a_network_without_batch_norms_cannot_be_pruned_by_anp(train_split: LabelledImages) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(InputError, match="anp prunes channels of batch norms, and this network has none"):
        anp(plain, clean_set(train_split, AnpConfig()), AnpConfig())


def test_abl_isolates_what_surprises_least(model: Classifier, train_split: LabelledImages) -> None:
    images = np.array(train_split.images[:50])
    said = logits(model, images, CPU).softmax(1)
    labels = np.where(np.arange(50) < 5, said.argmax(1), said.argmin(1))
    assert sorted(lowest_losses(model, images, labels, 0.1, CPU)) == [0, 1, 2, 3, 4]
    assert [len(lowest_losses(model, images, labels, share, CPU)) for share in (0.001, 1)] == [1, 49]
