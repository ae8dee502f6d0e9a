"""Robust accuracy under attacks of libraries that people trust, always in float32: foolbox and AutoAttack."""

import contextlib
import io
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pud.errors import InputError
from pud.models import frozen
from pud.progress import say


@dataclass(frozen=True)
class EvaluateConfig:
    """epsilon: L-infinity radius in [0, 1] pixels; the attacks take the first images of the test set,
    the drift the first triggered ones."""

    epsilon: float = 8 / 255
    pgd_steps: int = 20
    pgd_step_size: float = 2 / 255
    pgd_images: int = 1_000
    autoattack_images: int = 64
    drift_images: int = 500
    batch_size: int = 250


def robust_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluateConfig, *, seed: int
) -> dict[str, object]:
    """Return the record of PGD (foolbox's LinfPGD, random start) on images (n, c, h, w) in [0, 1] and labels (n,)."""
    import foolbox

    if not len(images):
        raise InputError("no image to attack: give --pgd-images of at least 1")
    device = images.device
    target = foolbox.PyTorchModel(frozen(model), bounds=(0, 1), device=device)
    attack = foolbox.attacks.LinfPGD(steps=config.pgd_steps, abs_stepsize=config.pgd_step_size, random_start=True)
    robust = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(images), config.batch_size):
            rows = slice(start, start + config.batch_size)
            fooled = attack(target, images[rows], labels[rows], epsilons=config.epsilon)[2]
            robust += int((~fooled).sum())
    return _record("PGD", config.epsilon, config.pgd_steps, 1, len(images), seed, robust)


def autoattack_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluateConfig, *, seed: int
) -> dict[str, object]:
    """Return the record of AutoAttack's standard version (Croce and Hein 2020, arXiv 2003.01690)."""
    from pyautoattack import AutoAttack

    fast = frozen(model)
    attack = AutoAttack(fast, norm="Linf", eps=config.epsilon, version="standard", seed=seed, device=images.device)
    say(f"AutoAttack on {len(images)} images: about a minute on two cores")
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        x_adv, _ = attack.run_standard_evaluation(images, labels, batch_size=config.batch_size)
    with torch.no_grad():
        robust = int((fast(x_adv).argmax(1) == labels).sum())
    return _record("AutoAttack", config.epsilon, 100, 1, len(images), seed, robust)


def _record(
    attack: str, epsilon: float, steps: int, restarts: int, n: int, seed: int, robust: int
) -> dict[str, object]:
    return {
        "attack": attack,
        "epsilon": epsilon,
        "steps": steps,
        "restarts": restarts,
        "n": n,
        "seed": seed,
        "value": robust / n,
    }
