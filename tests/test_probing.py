"""Probing: the evidence has its shapes, is the same twice, and agrees with what can be worked out."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from small import small_classifier

from pud.adversarial.pgd import PGDConfig, pgd
from pud.base.device import autocast
from pud.data.batches import Batches, RandomStream
from pud.data.images import LabelledImages, pixels
from pud.evidence.contract import FilledRule, InfectedEvidence
from pud.evidence.probing import ProbeConfig, attack, probe_infected, probe_purified, survival
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm

N = 22
CPU = torch.device("cpu")
CONFIG = ProbeConfig(batch_size=8, noise_draws=2, mix_draws=1, splits=1, inversion_steps=3)


@pytest.fixture(scope="module")
def model(train_split: LabelledImages) -> Classifier:
    model = small_classifier(4)
    with torch.no_grad():
        for _ in range(20):
            model(pixels(train_split.images[:100].copy()))
        model.head.weight.mul_(5)
    return model.eval()


@pytest.fixture(scope="module")
def sample(train_split: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    return np.array(train_split.images[:N]), train_split.labels[:N]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probed(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray], config: ProbeConfig = CONFIG, seed: int = 0
) -> InfectedEvidence:
    return probe_infected(model, *sample, config, generator=stream(seed), device=CPU)[0]


def test_evidence_of_an_infected_model_has_the_shapes_it_promises(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    arrays = vars(probed(model, sample))
    assert {name: (value.shape, value.dtype) for name, value in arrays.items()} == {
        "labels": ((N,), np.int64),
        "scene": ((N,), np.int64),
        "logits": ((N, 10), np.float32),
        "features": ((N, 16), np.float32),
        "noise_survival": ((N,), np.float32),
        "mix_survival": ((N,), np.float32),
        "mix_entropy": ((N,), np.float32),
        "heldout": ((N, 10), np.float32),
        "strange": ((N,), np.bool_),
        "trigger_score": ((N,), np.float32),
        "scored": ((10,), np.bool_),
        "changes": ((2, 3, 10), np.float32),
    }


def test_evidence_of_a_purified_model_has_the_shapes_it_promises(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    evidence, _ = probe_purified(model, *sample, CONFIG, generator=stream(), device=CPU)
    arrays = vars(evidence)
    assert arrays.pop("filled_rule") == FilledRule(0.5, (0.02, 0.0025), (0.375, 0.125))
    assert {name: (value.shape, value.dtype) for name, value in arrays.items()} == {
        "labels": ((N,), np.int64),
        "logits": ((N, 10), np.float32),
        "trigger_score": ((N,), np.float32),
        "scored": ((10,), np.bool_),
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


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the same images give logits that differ by a hundredth from one copy of a model to the next."""
    monkeypatch.setattr("pud.evidence.probing.autocast", lambda device: nullcontext())


def probabilities(model: Classifier, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(pixels(images)).softmax(1).double().numpy()


@pytest.mark.usefixtures("in_float32")
def test_without_a_perturbation_survival_is_the_probability_of_the_given_label(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    evidence = probed(model, sample, dataclasses.replace(CONFIG, noise_level=0.0, mix_level=0.0))
    expected = probabilities(model, sample[0])[np.arange(N), sample[1]]
    np.testing.assert_allclose(evidence.noise_survival, expected, atol=1e-5)
    np.testing.assert_allclose(evidence.mix_survival, expected, atol=1e-5)


def test_attacks_lead_where_pgd_of_the_same_numbers_does(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    config, fast = dataclasses.replace(CONFIG, batch_size=N, epsilon=0.1, steps=3), fold_batchnorm(model)
    found = attack(fast, *sample, config, generator=stream(), device=CPU)
    generator, labels = stream(), torch.from_numpy(sample[1])
    torch.randperm(N, generator=generator)  # which are attacked: here all
    numbers = RandomStream(generator, CPU).at(0)
    with autocast(CPU):
        how = PGDConfig(config.epsilon, config.steps, config.step_size)
        x_adv = pgd(fast, Batches(sample[0], CPU)[slice(None)], labels, how, generator=numbers)
    with torch.no_grad():
        went = fast(x_adv).argmax(1).numpy()
    np.testing.assert_allclose(found.share, np.bincount(went, minlength=10) / N)
    assert found.fooled == pytest.approx(float((went != sample[1]).mean()))


@pytest.mark.parametrize("count", [0, 5, 20])
def test_no_more_images_are_attacked_than_asked_for(
    count: int, model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    config = dataclasses.replace(CONFIG, adversarial_images=count)
    found = attack(fold_batchnorm(model), *sample, config, generator=stream(), device=CPU)
    assert found.share.shape == (10,)
    assert found.share.sum() == pytest.approx(float(count > 0))
    np.testing.assert_allclose(found.share * count, np.round(found.share * count), atol=1e-9)


@pytest.mark.usefixtures("in_float32")
def test_entropy_under_mixing_is_that_of_the_predictions(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    config = dataclasses.replace(CONFIG, mix_level=0.0)
    entropy = survival(fold_batchnorm(model), *sample, config, generator=stream(), device=CPU)[2]
    said = probabilities(model, sample[0])
    np.testing.assert_allclose(entropy, -(said * np.log(said)).sum(1), atol=1e-4)


def test_among_few_classes_a_purified_model_s_contradictions_score_nothing(
    model: Classifier, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    """The same images, of which every class but the first is half put into it, with and without classes enough."""
    labels = np.where(np.arange(N) % 2 == 0, 0, sample[1])
    loose = {"contradiction_filled_confidence": 0.0, "contradiction_filled_shares": (0.0, 0.0)}
    for minimum in (11, 0):
        config = dataclasses.replace(CONFIG, minimum_classes=minimum, discriminator_epochs=1, **loose)
        evidence, _ = probe_purified(model, sample[0], labels, config, generator=stream(), device=CPU)
        assert not evidence.trigger_score[~evidence.scored[labels]].any()
        if minimum:
            assert not evidence.scored.any()


def test_a_probe_leaves_the_model_as_it_was(model: Classifier, sample: tuple[np.ndarray, np.ndarray]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probed(model, sample, CONFIG)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
