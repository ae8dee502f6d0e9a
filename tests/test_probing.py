"""Probing: the evidence has its shapes, is the same twice, and agrees with what can be worked out."""

import dataclasses

import numpy as np
import pytest
import torch
from small import small_classifier

from pud.adversarial.pgd import PGDConfig, pgd
from pud.base.device import autocast
from pud.data.images import Split, pixels
from pud.evidence.contract import Evidence
from pud.evidence.probing import ProbeConfig, probe
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm

N = 22
CPU = torch.device("cpu")
CONFIG = ProbeConfig(batch_size=8, noise_draws=2, mix_draws=1, splits=1)


@pytest.fixture(scope="module")
def model(train_split: Split) -> Classifier:
    model = small_classifier(4)
    with torch.no_grad():
        for _ in range(20):
            model(pixels(train_split.images[:100].copy()))
        model.head.weight.mul_(5)
    return model.eval()


@pytest.fixture(scope="module")
def sample(train_split: Split) -> tuple[np.ndarray, np.ndarray]:
    return np.array(train_split.images[:N]), train_split.labels[:N]


def probed(model: Classifier, sample: tuple[np.ndarray, np.ndarray], config: ProbeConfig, seed: int = 0) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    return probe(model, *sample, config, generator=generator, device=CPU)


def test_evidence_has_the_shapes_it_promises(model: Classifier, sample: tuple[np.ndarray, np.ndarray]) -> None:
    evidence = probed(model, sample, CONFIG)
    found = {name: (value.shape, value.dtype) for name, value in dataclasses.asdict(evidence).items()}
    assert found == {
        "labels": ((N,), np.int64),
        "logits": ((N, 10), np.float32),
        "features": ((N, 16), np.float32),
        "noise_survival": ((N,), np.float32),
        "mix_survival": ((N,), np.float32),
        "adversarial_labels": ((N,), np.int64),
        "votes": ((N, 10), np.float32),
        "trigger_score": ((N,), np.float32),
    }


def test_a_probe_depends_on_the_generator_alone(model: Classifier, sample: tuple[np.ndarray, np.ndarray]) -> None:
    torch.manual_seed(1)
    first = dataclasses.asdict(probed(model, sample, CONFIG))
    torch.manual_seed(2)
    again, other = (dataclasses.asdict(probed(model, sample, CONFIG, seed)) for seed in (0, 1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert (first["noise_survival"] != other["noise_survival"]).any()
    assert (first["mix_survival"] != other["mix_survival"]).any()


def test_logits_and_features_are_those_of_the_model(model: Classifier, sample: tuple[np.ndarray, np.ndarray]) -> None:
    evidence = probed(model, sample, CONFIG)
    with torch.no_grad():
        np.testing.assert_allclose(evidence.logits, model(pixels(sample[0])), atol=1e-4)
        np.testing.assert_allclose(evidence.features, model.features(pixels(sample[0])), atol=1e-4)
    np.testing.assert_array_equal(evidence.labels, sample[1])


def test_without_draws_survival_is_zero(model: Classifier, sample: tuple[np.ndarray, np.ndarray]) -> None:
    evidence = probed(model, sample, dataclasses.replace(CONFIG, noise_draws=0, mix_draws=0))
    assert not evidence.noise_survival.any()
    assert not evidence.mix_survival.any()


def test_without_a_perturbation_survival_is_the_probability_of_the_given_label(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    evidence = probed(model, sample, dataclasses.replace(CONFIG, noise_level=0.0, mix_level=0.0))
    with torch.no_grad(), autocast(CPU):
        expected = fold_batchnorm(model)(pixels(sample[0])).float().softmax(1).numpy()[np.arange(N), sample[1]]
    np.testing.assert_allclose(evidence.noise_survival, expected, atol=1e-5)
    np.testing.assert_allclose(evidence.mix_survival, expected, atol=1e-5)


def test_adversarial_labels_are_where_pgd_of_the_same_generator_leads(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    config = dataclasses.replace(CONFIG, noise_draws=0, mix_draws=0, batch_size=N)
    evidence = probed(model, sample, config)
    fast = fold_batchnorm(model)
    attack = PGDConfig(config.epsilon, config.steps, config.step_size)
    images, labels = pixels(sample[0]), torch.from_numpy(sample[1])
    generator = torch.Generator().manual_seed(0)
    torch.randperm(N, generator=generator)  # who is attacked: here all
    with autocast(CPU):
        x_adv = pgd(fast, images, labels, attack, generator=generator)
    with torch.no_grad():
        np.testing.assert_array_equal(evidence.adversarial_labels, fast(x_adv).argmax(1))


@pytest.mark.parametrize("count", [0, 5, 20])
def test_no_more_images_are_attacked_than_asked_for(
    count: int, model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    evidence = probed(model, sample, dataclasses.replace(CONFIG, adversarial_images=count))
    attacked = evidence.adversarial_labels >= 0
    assert attacked.sum() == count


def test_after_a_round_the_votes_are_what_the_model_says_against_the_label(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    generator = torch.Generator().manual_seed(0)
    evidence = probe(model, *sample, CONFIG, generator=generator, device=CPU, purified=True)
    probability = torch.from_numpy(evidence.logits).softmax(1).numpy()
    contradicted = probability.argmax(1) != sample[1]
    assert contradicted.any()
    np.testing.assert_allclose(evidence.votes, contradicted[:, None] * probability, rtol=1e-5)


def test_a_probe_leaves_the_model_as_it_was(model: Classifier, sample: tuple[np.ndarray, np.ndarray]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probed(model, sample, CONFIG)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
