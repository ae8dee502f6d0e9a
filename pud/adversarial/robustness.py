"""Robust accuracy under attacks of libraries that people trust, always in float32: foolbox and AutoAttack."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

import torch
from torch import Tensor, nn

from pud.adversarial.pgd import PGDConfig, input_gradient, pgd
from pud.base.config import Count
from pud.base.errors import InputError
from pud.base.progress import say, sign, track
from pud.models.folded import fold_batchnorm

AUTOATTACK_GROUP, SQUARE = 32, "square"  # images between two lines of progress; AutoAttack's black-box attack
DLR_CLASSES = 4  # the targeted DLR loss takes the four largest logits


@dataclass(frozen=True)
class EvaluateConfig:
    """How robust accuracy and drift are measured, and on how many images."""

    epsilon: Annotated[float, "L-infinity radius of the attacks, pixels in [0, 1]."] = 8 / 255
    pgd_steps: Annotated[int, "Of PGD."] = 20
    pgd_step_size: Annotated[float, "Of PGD, pixels in [0, 1]."] = 2 / 255
    pgd_images: Annotated[Count, "Test images attacked by PGD, the first ones."] = 1_000
    autoattack_images: Annotated[int, "Test images attacked by AutoAttack, the first ones; 0: none."] = 64
    masking_images: Annotated[int, "Test images for the checks of masked gradients, the first ones."] = 200
    drift_images: Annotated[Count, "Triggered test images whose features are followed, the first ones."] = 500
    batch_size: Annotated[Count, "Images at a time."] = 250


Fooled = Callable[[Tensor, Tensor], Tensor]  # images (n, c, h, w), labels (n,) -> bool (n,), whom the attack fools


def robust_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluateConfig, *, seed: int
) -> dict[str, object]:
    """Return the record of PGD with a random start on images (n, c, h, w) in [0, 1] and labels (n,).

    The attack is foolbox's LinfPGD. Where foolbox is not installed it is our own, and the record says so.
    """
    if not len(images):
        raise InputError("no image to attack: give --pgd-images of at least 1")
    name, attack = ("PGD", _foolbox_pgd) if find_spec("foolbox") else ("PGD of pud", _own_pgd)
    fooled = attack(model, images.device, config, seed)
    robust = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(images), config.batch_size):
            rows = slice(start, start + config.batch_size)
            robust += int((~fooled(images[rows], labels[rows])).sum())
    return _record(name, config.epsilon, config.pgd_steps, 1, len(images), seed, robust)


def _foolbox_pgd(model: nn.Module, device: torch.device, config: EvaluateConfig, seed: int) -> Fooled:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # foolbox imports GitPython, which else wants a git
    import foolbox

    target = foolbox.PyTorchModel(fold_batchnorm(model), bounds=(0, 1), device=device)
    attack = foolbox.attacks.LinfPGD(steps=config.pgd_steps, abs_stepsize=config.pgd_step_size, random_start=True)
    return lambda images, labels: attack(target, images, labels, epsilons=config.epsilon)[2]


def _own_pgd(model: nn.Module, device: torch.device, config: EvaluateConfig, seed: int) -> Fooled:
    say("foolbox is not installed: robust accuracy is measured by PUD's own PGD (pip install foolbox==3.3.4)")
    fast, generator = fold_batchnorm(model), torch.Generator().manual_seed(seed)
    step_size = config.pgd_step_size / config.epsilon if config.epsilon else 0.0
    settings = PGDConfig(config.epsilon, config.pgd_steps, step_size)

    def fooled(images: Tensor, labels: Tensor) -> Tensor:
        x_adv = pgd(fast, images, labels, settings, generator=generator)
        with torch.no_grad():
            return fast(x_adv).argmax(1) != labels

    return fooled


def check_attacks(*, autoattack: bool) -> None:
    """Raise InputError, before anything is measured, where AutoAttack is asked for and is not installed."""
    if autoattack and find_spec("pyautoattack") is None:
        raise InputError(
            "AutoAttack is not installed: pip install pyautoattack==0.2.0, or measure without (--autoattack-images 0)"
        )


def autoattack_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluateConfig, *, seed: int
) -> tuple[dict[str, object], float]:
    """Return the record of AutoAttack's standard version (Croce and Hein 2020, arXiv 2003.01690), and what its attacks
    by gradients alone leave: where Square, which sees no gradient, lowers that further, gradients are masked.

    images: (n, c, h, w) in [0, 1]; labels: (n,). With fewer than ten classes every other class is a target. With fewer
    than four the DLR loss of the targeted attacks does not exist; the untargeted APGD, FAB and Square remain, and the
    record is named AutoAttack-untargeted.
    """
    from pyautoattack import AutoAttack

    fast = fold_batchnorm(model)
    for parameter in fast.parameters():  # the library takes views of gradients
        parameter.data = parameter.data.contiguous()
    fast.register_forward_pre_hook(lambda *_: sign())  # a group of images can take long
    images = images.contiguous()
    attack = AutoAttack(fast, norm="Linf", eps=config.epsilon, version="standard", seed=seed, device=images.device)
    with torch.no_grad():
        classes = fast(images[:1]).shape[1]
    name = "AutoAttack" if classes >= DLR_CLASSES else "AutoAttack-untargeted"
    if classes < DLR_CLASSES:
        attack.attacks_to_run = ["apgd-ce", "fab", SQUARE]
    attack.apgd_targeted.n_target_classes = min(attack.apgd_targeted.n_target_classes, classes - 1)
    attack.fab.n_target_classes = min(attack.fab.n_target_classes, classes - 1)
    by_gradient = [name for name in attack.attacks_to_run if name != SQUARE]

    def withstood(attacks: list[str], x: Tensor, y: Tensor) -> Tensor:
        attack.attacks_to_run = attacks
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            return fast(attack.run_standard_evaluation(x, y, batch_size=config.batch_size)[0]).argmax(1) == y

    white_box, robust = 0, 0
    groups = list(zip(images.split(AUTOATTACK_GROUP), labels.split(AUTOATTACK_GROUP), strict=True))
    for x, y in track(groups, "AutoAttack"):
        left = withstood(by_gradient, x, y)
        white_box += int(left.sum())
        robust += int(withstood([SQUARE], x[left], y[left]).sum()) if left.any() else 0
    return _record(name, config.epsilon, 100, 1, len(images), seed, robust), white_box / len(images)


def masking_checks(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluateConfig, *, seed: int
) -> dict[str, bool]:
    """Return the pre-flight checks against gradient masking, all true where robust accuracy can be believed.

    After what AutoAttack's authors check before an attack (Croce and Hein 2020; arXiv 2010.09670, section 3) and
    Athalye et al. 2018 (arXiv 1802.00420, section 3.1), on images (n, c, h, w) in [0, 1] and labels (n,).
    """
    fast = fold_batchnorm(model)
    with torch.no_grad():
        first, again = fast(images), fast(images)
    gradient = input_gradient(fast, images, labels).flatten(1)

    def robust(epsilon: float, step_size: float) -> float:
        wider = dataclasses.replace(config, epsilon=epsilon, pgd_step_size=step_size)
        return float(robust_accuracy(model, images, labels, wider, seed=seed)["value"])  # type: ignore[arg-type]

    noisy = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    with torch.no_grad():
        blind = fast((images + config.epsilon * (2 * noisy - 1).sign()).clamp(0, 1)).argmax(1)
    within, wider = (robust(scale * config.epsilon, scale * config.pgd_step_size) for scale in (1, 2))
    return {
        "answers_do_not_change_by_chance": bool(torch.equal(first, again)),
        "outputs_are_logits_not_probabilities": bool(first.min() < 0 or (first.sum(1) - 1).abs().max() > 1e-3),
        "gradients_are_nowhere_zero": bool((gradient.abs().amax(1) > 0).all()),
        "the_gradient_beats_chance": within <= float((blind == labels).float().mean()),
        "a_wider_ball_fools_more": wider < within or within == 0,
        "an_unbounded_attack_fools_all": robust(1.0, 0.1) <= 0.01,
    }


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
