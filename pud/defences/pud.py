"""Purify a model: adversarial fine-tuning with a mean teacher, unlearning and recovery in the same steps (paper, 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.adversarial.pgd import PGDConfig, pgd
from pud.base.config import Count, Part, Positive, Share, as_parameters, from_mapping
from pud.base.device import autocast
from pud.base.errors import InputError
from pud.base.progress import track
from pud.data.images import pixels
from pud.defences.contract import Defence, Selection, SelectionRule, State
from pud.detectors.pud import DetectConfig
from pud.models.classifier import frozen, refreeze
from pud.models.training import batches, warn_of_few_steps

T = TypeVar("T")


@dataclass(frozen=True)
class PurifyConfig:
    """Settings of purification; tuples have a number for each round, the last one serves all further rounds.

    keep: share of each class's clean verdicts to train on, the least suspicious first. adversarial_epochs: of a round's
    epochs the first so many attack; later ones train plainly. epsilon: of PGD, in [0, 1] pixels; steps; step_size of
    epsilon. adversarial_fraction: share of a batch that PGD attacks. relabel: give accused images the label of what
    they show, where that is beyond doubt, and unlearn none whose label is right. stamp_rate: share of a batch that
    carries the estimated trigger under its right label; stamp_strength: from once to so many times as strongly as
    estimated, for an attacker may stamp more strongly than the training images show (as adaptive blend does).
    unlearn_fraction, unlearn_weight: accused images added to a batch, as its share, and the weight of their loss.
    unlearn_separation: Ashman's D of a class's two modes from which its accused are unlearned, else only left out: of
    modes that overlap many are honest, and a model that was to forget these contradicts more of them. After a round
    detection is surer.
    consistency_weight, ema_decay: of the mean teacher. reference_weight: of the L1 distance of the weights to those at
    the round's start.
    """

    keep: tuple[Part, ...] = (0.2, 0.95)
    epochs: tuple[int, ...] = (2, 6)
    adversarial_epochs: tuple[int, ...] = (100,)
    learning_rate: tuple[Positive, ...] = (0.05, 0.15)
    momentum: Part = 0.9
    weight_decay: float = 5e-4
    batch_size: Count = 128
    epsilon: tuple[float, ...] = (8 / 255, 9 / 255)
    steps: int = 3
    step_size: float = 0.4
    adversarial_fraction: tuple[Share, ...] = (0.6, 1.0)
    relabel: bool = True
    stamp_rate: Share = 0.1
    stamp_strength: float = 2.0
    unlearn_fraction: float = 0.125
    unlearn_weight: float = 0.3
    unlearn_separation: tuple[float, ...] = (DetectConfig.separation, 0.0)
    consistency_weight: float = 0.05
    ema_decay: Share = 0.99
    reference_weight: float = 0.0


DEFAULT_PRESET = "robust"
PRESETS: dict[str, PurifyConfig] = {
    # adversarial robustness above all
    "robust": PurifyConfig(),
    # clean accuracy above all: what follows the first round is attacked a little
    "erase": PurifyConfig(
        keep=(0.2, 1.0),
        epochs=(2, 4),
        learning_rate=(0.05, 0.1),
        adversarial_fraction=(0.6, 0.1),
        epsilon=(8 / 255, 4 / 255),
    ),
    # the schedule of the paper's reference, without its oracles
    "paper": PurifyConfig(
        keep=(0.05, 0.2, 0.4, 0.7, 0.8),
        epochs=(10, 10, 10, 10, 30),
        adversarial_epochs=(10, 2, 1, 1, 1),
        learning_rate=(0.01,),
        epsilon=(6 / 255, 6 / 255, 6 / 255, 6 / 255, 4 / 255),
        steps=7,
        step_size=0.2,
        adversarial_fraction=(1.0,),
        relabel=False,
        stamp_rate=0.0,
        unlearn_weight=0.003,
        unlearn_separation=(0.0,),
        reference_weight=1e-4,
    ),
    # model repair: adversarial fine-tuning on a clean data set, once
    "aft": PurifyConfig(
        keep=(1.0,),
        epochs=(10,),
        learning_rate=(0.01,),
        epsilon=(6 / 255,),
        steps=7,
        step_size=0.2,
        adversarial_fraction=(1.0,),
        relabel=False,
        stamp_rate=0.0,
        unlearn_weight=0.0,
        consistency_weight=0.0,
    ),
}


def purify_config(settings: Mapping[str, Any]) -> PurifyConfig:
    """Return a preset (``preset``, robust unless said otherwise) with the other settings replaced.

    Raises:
        InputError: an unknown preset or setting, or a value of the wrong type.
    """
    given = dict(settings)
    name = given.pop("preset", DEFAULT_PRESET)
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return from_mapping(PurifyConfig, as_parameters(PRESETS[name]) | given)


def of_round(schedule: tuple[T, ...], round_index: int) -> T:
    """Return the number of a schedule that holds in a round."""
    return schedule[min(round_index, len(schedule) - 1)]


@dataclass(frozen=True)
class AffineTrigger:
    """Per-pixel affine estimate of a trigger: stamped = scale * image + shift, each (c, h, w)."""

    scale: Tensor
    shift: Tensor

    def __call__(self, images: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Return images (n, c, h, w) moved ``strength`` times, a number or (n, 1, 1, 1), as far as the trigger does."""
        return (images + strength * ((self.scale - 1) * images + self.shift)).clamp_(0, 1)


def estimate_trigger(accused: Tensor, clean: Tensor) -> AffineTrigger:
    """Estimate the trigger that leads from clean to accused images, (n, c, h, w) and (m, c, h, w), by their moments.

    A stamp a * x + b has the standard deviation a * std(x) and the mean a * mean(x) + b; pixels that are constant in
    the clean images are taken as shifted only.
    """
    spread = clean.std(0)
    scale = torch.where(spread > 1e-3, accused.std(0) / spread.clamp(min=1e-3), torch.ones_like(spread)).clamp(0, 1)
    return AffineTrigger(scale, accused.mean(0) - scale * clean.mean(0))


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher's parameters and buffers to the student's (Tarvainen and Valpola 2017, arXiv 1703.01780)."""
    for old, new in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def forget(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log(1.001 - p(label)), from logits (n, k) and the labels of accused images, (n,).

    A push of at most 6.9 away from these labels.
    """
    given = logits.softmax(1).gather(1, labels[:, None])
    return -torch.log1p(1e-3 - given).mean()


def purify(
    state: State,
    images: np.ndarray,
    labels: np.ndarray,
    config: PurifyConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    unlearned: np.ndarray | None = None,
) -> None:
    """Run one round in place on ``state``, whose masks say which uint8 images (n, c, h, w) are clean or accused.

    unlearned: bool (n,), the images whose given label is to be forgotten, none by default. Other accused ones are left
    out: to train on them would teach their trigger, to unlearn a right label that a triggered image is not what it is.

    Every step makes PGD examples of a part of a clean batch, of which a share carries the estimated trigger, and trains
    the student on (image, right label), on agreeing with its teacher, on forgetting accused images' labels, and on
    staying near what it was.
    """
    student, teacher = state.student, state.teacher
    done = state.rounds_done
    epochs, learning_rate = of_round(config.epochs, done), of_round(config.learning_rate, done)
    clean = np.flatnonzero(state.clean)
    rejected = np.flatnonzero(unlearned) if unlearned is not None else clean[:0]
    accused, trusted = np.flatnonzero(state.accused), np.flatnonzero(state.clean & ~state.accused)
    given = torch.from_numpy(labels)
    attack = PGDConfig(of_round(config.epsilon, done), config.steps, config.step_size)
    trigger = None
    if len(accused) > 1 and len(trusted) > 1:
        estimate = estimate_trigger(pixels(images[accused]), pixels(images[trusted]))
        trigger = AffineTrigger(estimate.scale.to(device), estimate.shift.to(device))
    optimiser = torch.optim.SGD(
        student.parameters(),
        lr=learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
    )
    order = batches(len(clean), config.batch_size, epochs, generator)
    attacked_steps = len(order) * min(1.0, of_round(config.adversarial_epochs, done) / epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, 1.4 * (1 - step / len(order))))
    attacked_model, elder = frozen(student), frozen(teacher)
    reference = [parameter.detach().clone() for parameter in student.parameters()]
    for step, index in enumerate(track(order, "purify")):
        chosen = clean[index.numpy()]
        x, target = pixels(images[chosen]).to(device), given[chosen].to(device)
        if trigger is not None:
            stamped = torch.rand(len(x), generator=generator) < config.stamp_rate
            stamped &= ~torch.from_numpy(state.accused[chosen])  # a relabelled image carries the trigger itself
            strength = 1 + (config.stamp_strength - 1) * torch.rand(len(x), 1, 1, 1, generator=generator)
            x = torch.where(stamped.to(device)[:, None, None, None], trigger(x, strength.to(device)), x)
        extra = rejected[:0]
        if len(rejected):
            drawn = torch.randint(len(rejected), (int(config.unlearn_fraction * len(x)),), generator=generator)
            extra = rejected[drawn.numpy()]
        attacked = int(of_round(config.adversarial_fraction, done) * len(x)) if step < attacked_steps else 0
        if attacked:
            refreeze(attacked_model, student)
            with autocast(device):
                x_adv = pgd(attacked_model, x[:attacked], target[:attacked], attack, generator=generator)
            x = torch.cat([x_adv, x[attacked:]])
        student.train()
        with autocast(device):
            output = student(torch.cat([x, pixels(images[extra]).to(device)]) if len(extra) else x)
        output = output.float()
        right, wrong = output[: len(x)], output[len(x) :]
        loss = functional.cross_entropy(right, target)
        if config.consistency_weight:
            refreeze(elder, teacher)
            with torch.no_grad(), autocast(device):
                agreed = elder(x).float().softmax(1)
            loss = loss + config.consistency_weight * (right.softmax(1) - agreed).square().sum(1).mean()
        if len(extra):
            loss = loss + config.unlearn_weight * forget(wrong, given[extra].to(device))
        if config.reference_weight:
            moved = zip(student.parameters(), reference, strict=True)
            loss = loss + config.reference_weight * sum(functional.l1_loss(*pair, reduction="sum") for pair in moved)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        update_teacher(teacher, student, config.ema_decay)
    student.eval()
    state.rounds_done += 1


def ask(config: PurifyConfig, round_index: int) -> SelectionRule:
    """Return which images a round wants."""
    return SelectionRule(of_round(config.keep, round_index), config.relabel)


def run(
    state: State,
    images: np.ndarray,
    selection: Selection,
    config: PurifyConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> None:
    """Run a round as the pipeline does; one of no epochs leaves the models as they are."""
    if of_round(config.epochs, state.rounds_done) == 0:
        state.rounds_done += 1
        return
    warn_of_few_steps(int(selection.clean.sum()), config.batch_size)
    unlearned = selection.unlearned
    purify(state, images, selection.labels, config, generator=generator, device=device, unlearned=unlearned)


DEFENCES = {"pud": Defence("pud", purify_config, ask, run)}
