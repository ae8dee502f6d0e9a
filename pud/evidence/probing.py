"""Probe a model: every pass over the training set, for detection and for what is told of it (paper, round step 1)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pud.adversarial.pgd import PGDConfig, pgd
from pud.base.config import Count, Share
from pud.base.device import autocast
from pud.base.progress import track
from pud.data.images import pixels
from pud.detectors.pud import intruder_odds
from pud.evidence.contract import Evidence
from pud.evidence.cross_examination import ContentConfig, contradictions, cross_examine, discriminate
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm


@dataclass(frozen=True)
class ProbeConfig(ContentConfig):
    """draws: how often every image is perturbed, noise_level: standard deviation in [0, 1] pixels, mix_level: share of
    the other image. adversarial_images: at most so many, drawn by chance, are attacked, for what is told of them are
    shares; epsilon, steps, step_size: of the untargeted PGD, as in PGDConfig. The rest: see ContentConfig."""

    noise_draws: int = 3
    noise_level: float = 0.2
    mix_draws: int = 3
    mix_level: Share = 0.5
    adversarial_images: int = 2000
    epsilon: float = 6 / 255
    steps: int = 2
    step_size: float = 0.6
    batch_size: Count = 250


def probe(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    config: ProbeConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    purified: bool = False,
) -> Evidence:
    """Return the model's evidence about uint8 images (n, c, h, w) with given labels (n,).

    purified: whether the model has gone through a round, so that it may itself say what an image shows.
    """
    n = len(labels)
    fast = fold_batchnorm(model)
    given = torch.from_numpy(labels)
    attack = PGDConfig(config.epsilon, config.steps, config.step_size)
    partners = [torch.randperm(n, generator=generator).numpy() for _ in range(config.mix_draws)]
    logits, features, noise, mix = [], [], [], []

    def survival(perturbed: Tensor, target: Tensor) -> Tensor:
        with autocast(device):
            said = fast(perturbed)
        return said.float().softmax(1).gather(1, target[:, None])[:, 0]

    for start in track(range(0, n, config.batch_size), "probe"):
        rows = slice(start, start + config.batch_size)
        x, target = pixels(images[rows]).to(device), given[rows].to(device)
        with torch.no_grad():
            features.append(fast.features(x))
            logits.append(fast.head(features[-1]))
            survived = torch.zeros(len(x), device=device)
            for _ in range(config.noise_draws):
                shift = config.noise_level * torch.randn(x.shape, generator=generator).to(x)
                survived += survival((x + shift).clamp_(0, 1), target) / config.noise_draws
            noise.append(survived)
            survived = torch.zeros(len(x), device=device)
            for partner in partners:
                other = pixels(images[partner[rows]]).to(device)
                survived += survival(torch.lerp(x, other, config.mix_level), target) / config.mix_draws
            mix.append(survived)
    attacked = torch.randperm(n, generator=generator)[: config.adversarial_images].sort().values
    adversarial_labels = np.full(n, -1)
    for chosen in attacked.split(config.batch_size):
        x, target = pixels(images[chosen.numpy()]).to(device), given[chosen].to(device)
        with autocast(device):
            x_adv = pgd(fast, x, target, attack, generator=generator)
        with torch.no_grad():
            adversarial_labels[chosen] = fast(x_adv).argmax(1).cpu().numpy()
    said, seen = torch.cat(logits).cpu().numpy(), torch.cat(features).cpu().numpy()
    content: ContentConfig = config
    odds = None
    if purified:
        content = config.of_contradictions()
        votes = contradictions(said, labels, content)
        odds = intruder_odds(said, labels, config.doubt_limit)
    else:
        votes = cross_examine(model, images, labels, content, generator=generator, device=device)
    known = None if purified else seen
    trigger_score = discriminate(
        model, images, labels, votes, content, features=known, generator=generator, device=device, odds=odds
    )
    return Evidence(
        labels=labels,
        logits=said,
        features=seen,
        noise_survival=torch.cat(noise).cpu().numpy(),
        mix_survival=torch.cat(mix).cpu().numpy(),
        adversarial_labels=adversarial_labels,
        votes=votes,
        trigger_score=trigger_score,
    )
