"""Probe a model: every pass over the training set, for detection and for what is told of it (paper, round step 1)."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from pud.adversarial.pgd import PGDConfig, pgd
from pud.base.config import Count, Share
from pud.base.device import autocast
from pud.base.processes import gathered, own_batches
from pud.base.progress import track
from pud.data.batches import Batches, RandomStream, slices
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence
from pud.evidence.cross_examination import CrossExaminationConfig, content_odds, cross_examine, heldout_predictions
from pud.evidence.disagreement import contradictions, mislabelling_odds
from pud.evidence.discrimination import (
    DiscriminationConfig,
    discriminate,
    mislabelled,
)
from pud.evidence.inversion import InversionConfig, invert
from pud.evidence.judge import JudgeConfig, examine_labels
from pud.evidence.scenes import scenes
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm


@dataclass(frozen=True)
class ProbeConfig(CrossExaminationConfig, JudgeConfig, InversionConfig, DiscriminationConfig):
    """How a model is probed. Perturbations are of an infected model only; epsilon, steps, step_size: of PGDConfig."""

    noise_draws: Annotated[int, "How often every image is made noisy."] = 3
    noise_level: Annotated[float, "Standard deviation of the noise, pixels in [0, 1]."] = 0.2
    mix_draws: Annotated[int, "How often every image is mixed with another."] = 3
    mix_level: Annotated[Share, "Share of the other image."] = 0.5
    adversarial_images: Annotated[int, "Drawn by chance and attacked, at most."] = 2000
    epsilon: Annotated[float, "L-infinity radius of PGD, pixels in [0, 1]."] = 6 / 255
    steps: Annotated[int, "Of PGD."] = 2
    step_size: Annotated[float, "Of PGD, in epsilon."] = 0.6
    batch_size: Annotated[Count, "Images at a time."] = 250


@dataclass(frozen=True)
class AdversarialOutcome:
    """Where untargeted adversarial examples lead a model.

    share: float64 (k,), of the attacked images, by predicted class; fooled: share that left the given label. Zeros
    where none was attacked.
    """

    share: np.ndarray
    fooled: float


def probe_infected(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: ProbeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[InfectedEvidence, AdversarialOutcome]:
    """Return an infected model's evidence about uint8 images (n, c, h, w) with given labels (n,), and attacks on it."""
    fast = fold_batchnorm(model)
    logits, features = predictions(fast, images, device, config.batch_size)
    noise, mix, entropy = survival(fast, images, labels, config, generator=generator, device=device)
    attacked = attack(fast, images, labels, config, generator=generator, device=device)
    witnesses, classes = (
        cross_examine(model, images, labels, config, generator=generator, device=device),
        logits.shape[1],
    )
    scene, heldout = scenes(images, labels), heldout_predictions(witnesses, labels, classes)
    odds = content_odds(witnesses, labels, scene, classes)
    strange, score, scored = examine_labels(
        model, images, labels, scene, heldout, odds, config, generator=generator, device=device
    )
    changes = invert(model, images, labels, config, generator=generator, device=device, batch_size=config.batch_size)
    evidence = InfectedEvidence(
        labels=labels,
        scene=scene,
        logits=logits,
        features=features,
        noise_survival=noise,
        mix_survival=mix,
        mix_entropy=entropy,
        heldout=heldout,
        strange=strange,
        trigger_score=score,
        scored=scored,
        changes=changes,
    )
    return evidence, attacked


def probe_purified(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: ProbeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[PurifiedEvidence, AdversarialOutcome]:
    """Return a purified model's evidence about uint8 images (n, c, h, w) with given labels (n,), and attacks on it.

    It may say itself what an image shows: where it contradicts the given label, if there are classes enough.
    """
    fast = fold_batchnorm(model)
    logits, _ = predictions(fast, images, device, config.batch_size)
    attacked = attack(fast, images, labels, config, generator=generator, device=device)
    rule, classes = config.of_contradictions, range(logits.shape[1])
    contradicted = contradictions(logits, labels)
    enough = len(classes) >= config.minimum_classes
    found = [mislabelled(contradicted, labels, label, rule) if enough else labels[:0] for label in classes]
    shown, odds = contradicted.argmax(1), mislabelling_odds(logits, labels)
    score, scored = discriminate(model, images, labels, shown, found, odds, config, generator=generator, device=device)
    return PurifiedEvidence(labels, logits, score, scored, rule.filled), attacked


@torch.no_grad()
def predictions(
    model: Classifier, images: np.ndarray, device: torch.device, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n, k) and features (n, d) of uint8 images, both float32, without reduced precision."""
    n, (classes, width) = len(images), model.head.weight.shape
    logits, features = np.zeros((n, classes), np.float32), np.zeros((n, width), np.float32)
    rows = [rows for _, rows in own_batches(slices(n, batch_size))]
    for own, x in zip(rows, Batches(images, device).stream(rows), strict=True):
        seen = model.features(x)
        features[own], logits[own] = seen.cpu().numpy(), model.head(seen).cpu().numpy()
    gathered(logits, features, device=device)
    return logits, features


@torch.no_grad()
def survival(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: ProbeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how well given labels survive noise and mixing, and the entropy under mixing, float32 (n,) each."""
    n, pictures = len(labels), Batches(images, device)
    partners = [torch.randperm(n, generator=generator).numpy() for _ in range(config.mix_draws)]
    random, found = RandomStream(generator, device), np.zeros((3, n), np.float32)
    for index, rows in track(own_batches(slices(n, config.batch_size)), "probe"):
        x, given, numbers = pictures[rows], torch.from_numpy(labels[rows, None]).to(device), random.at(index)
        noise, mix, entropy = torch.zeros(3, len(x), device=device)
        for _ in range(config.noise_draws):
            shift = config.noise_level * torch.randn(x.shape, generator=numbers, device=device)
            said = log_probabilities(model, (x + shift).clamp_(0, 1))
            noise += said.gather(1, given)[:, 0].exp()
        for partner in partners:
            said = log_probabilities(model, torch.lerp(x, pictures[partner[rows]], config.mix_level))
            mix += said.gather(1, given)[:, 0].exp()
            entropy -= (said.exp() * said).sum(1)
        draws = torch.tensor([config.noise_draws, config.mix_draws, config.mix_draws]).clamp(min=1)
        found[:, rows] = (torch.stack([noise, mix, entropy]).cpu() / draws[:, None]).numpy()
    gathered(found, device=device)
    return found[0], found[1], found[2]


def attack(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: ProbeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> AdversarialOutcome:
    """Return where untargeted PGD leads the model on images drawn by chance."""
    how = PGDConfig(config.epsilon, config.steps, config.step_size)
    chosen = torch.randperm(len(labels), generator=generator)[: config.adversarial_images].sort().values.numpy()
    pictures, random, went = Batches(images, device), RandomStream(generator, device), np.zeros(len(chosen), np.int64)
    for index, rows in own_batches(slices(len(chosen), config.batch_size)):
        x, given = pictures[chosen[rows]], torch.from_numpy(labels[chosen[rows]]).to(device)
        with autocast(device):
            x_adv = pgd(model, x, given, how, generator=random.at(index))
        with torch.no_grad():
            went[rows] = model(x_adv).argmax(1).cpu().numpy()
    gathered(went, device=device)
    count = max(1, len(chosen))
    share = np.bincount(went, minlength=model.head.out_features) / count
    return AdversarialOutcome(share, float((went != labels[chosen]).sum() / count))


def log_probabilities(model: Classifier, images: Tensor) -> Tensor:
    """Return float32 log probabilities (n, k) of images in [0, 1], in reduced precision where the device has it."""
    with autocast(images.device):
        return model(images).float().log_softmax(1)
