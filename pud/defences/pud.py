"""Purify a model: adversarial fine-tuning with a mean teacher, unlearning and recovery in the same steps (paper, 3)."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.adversarial.pgd import PGDConfig, ascend, pgd, random_start
from pud.base.captured import CapturedStep
from pud.base.config import Count, Part, Positive, Share, as_parameters, from_mapping
from pud.base.device import autocast, seeded
from pud.base.errors import InputError
from pud.base.processes import add_up, gathered, own, own_batches, shared_norms
from pud.base.processes import count as processes
from pud.base.progress import say, track
from pud.data.batches import BatchConfig, Batches, RandomStream, slices
from pud.defences.contract import Defence, Selection, SelectionRule, State
from pud.defences.trigger import AffineTrigger, estimate_trigger
from pud.models.folded import fold_batchnorm, update_folded
from pud.models.training import batches, set_rate, sgd, warn_of_few_steps

T = TypeVar("T")
STANDARD_ERRORS = 2  # that a gain must exceed for a round to go on


@dataclass(frozen=True)
class PurifyConfig(BatchConfig):
    """Settings of purification; tuples have a number for each round, the last one serves all further rounds.

    An attacker may stamp more strongly than the training images show, as adaptive blend does: hence stamp_strength.
    """

    keep: Annotated[
        tuple[Part, ...], "Share of each class's clean verdicts to train on, the least suspicious first."
    ] = (0.2, 0.95)
    epochs: Annotated[tuple[int, ...], "Of each round, at least."] = (2, 2)
    doublings: Annotated[
        tuple[int, ...], "How often a round goes on for twice as long, while that helps by images set aside."
    ] = (0, 3)
    least_gain: Annotated[Share, "That such a time is worth: of the probability of the right label."] = 0.01
    set_aside: Annotated[Count, "Images, at most a tenth, by which that is known where a round may go on."] = 1000
    from_scratch: Annotated[
        tuple[bool, ...], "Begin a round with new weights, where those that were given are suspect themselves."
    ] = (False,)
    adversarial_epochs: Annotated[tuple[int, ...], "Of these the first so many attack; later ones train plainly."] = (
        100,
    )
    learning_rate: Annotated[tuple[Positive, ...], "Highest of each round."] = (0.05, 0.15)
    momentum: Annotated[Part, "Of SGD."] = 0.9
    weight_decay: Annotated[float, "Of SGD."] = 5e-4
    epsilon: Annotated[tuple[float, ...], "L-infinity radius of PGD, pixels in [0, 1]."] = (8 / 255, 9 / 255)
    steps: Annotated[int, "Of PGD."] = 3
    step_size: Annotated[float, "Of PGD, in epsilon."] = 0.4
    adversarial_fraction: Annotated[tuple[Share, ...], "Share of a batch that PGD attacks."] = (0.6, 1.0)
    relabel: Annotated[bool, "Give accused images the label that detection inferred, and unlearn none of these."] = True
    stamp_rate: Annotated[Share, "Share of a batch that carries the estimated trigger under its right label."] = 0.1
    stamp_strength: Annotated[float, "Up to so many times as strong as estimated, from once."] = 2.0
    unlearn_fraction: Annotated[float, "Accused images added to a batch, as its share."] = 0.125
    unlearn_weight: Annotated[float, "Weight of their loss."] = 0.3
    consistency_weight: Annotated[float, "Weight of the agreement with the mean teacher."] = 0.05
    ema_decay: Annotated[Share, "Decay of the mean teacher."] = 0.99
    reference_weight: Annotated[float, "Weight of the L1 distance to the weights at the round's start."] = 0.0


DEFAULT_PRESET = "robust"
PRESETS: dict[str, PurifyConfig] = {
    # adversarial robustness above all
    "robust": PurifyConfig(),
    # clean accuracy above all: what follows the first round is attacked a little
    "erase": PurifyConfig(
        keep=(0.2, 1.0),
        learning_rate=(0.05, 0.1),
        adversarial_fraction=(0.6, 0.1),
        epsilon=(8 / 255, 4 / 255),
    ),
    # as robust, on new weights: where those that were given are suspect, whatever the data show
    "retrain": PurifyConfig(from_scratch=(False, True)),
    # the schedule of the paper's reference, without its oracles
    "paper": PurifyConfig(
        keep=(0.05, 0.2, 0.4, 0.7, 0.8),
        epochs=(10, 10, 10, 10, 30),
        doublings=(0,),
        adversarial_epochs=(10, 2, 1, 1, 1),
        learning_rate=(0.01,),
        epsilon=(6 / 255, 6 / 255, 6 / 255, 6 / 255, 4 / 255),
        steps=7,
        step_size=0.2,
        adversarial_fraction=(1.0,),
        relabel=False,
        stamp_rate=0.0,
        unlearn_weight=0.003,
        reference_weight=1e-4,
    ),
    # model repair: adversarial fine-tuning on a clean data set, once
    "aft": PurifyConfig(
        keep=(1.0,),
        epochs=(10, 0),
        doublings=(0,),
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


def teacher_update(teacher: nn.Module, student: nn.Module, decay: float) -> Callable[[], None]:
    """Return what moves the teacher's parameters and buffers to the student's (Tarvainen and Valpola 2017, 1703.01780).

    It moves all of them in a few kernels; they must stay the same tensors.
    """
    pairs = list(zip(teacher.state_dict().values(), student.state_dict().values(), strict=True))
    moved = [pair for pair in pairs if pair[0].is_floating_point()]
    counted = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update() -> None:
        torch._foreach_lerp_([old for old, _ in moved], [new for _, new in moved], 1 - decay)
        for old, new in counted:
            old.copy_(new)

    return update


def forget(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log(1.001 - p(label)), (n,), from logits (n, k) and the labels of accused images, (n,).

    A push of at most 6.9 away from these labels.
    """
    return -torch.log1p(1e-3 - logits.softmax(1).gather(1, labels[:, None])[:, 0])


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

    It goes on for twice as long, as often as ``config.doublings`` lets it and the last time was worth it and no chance,
    and keeps the better state: both by images set aside, of which as many are attacked as in a batch.
    """
    done = state.rounds_done
    clean = np.flatnonzero(state.clean)
    if of_round(config.from_scratch, done):
        state.student = state.student.rebuild(int(torch.randint(2**31, (1,), generator=generator)))
        state.teacher = copy.deepcopy(state.student)
    epochs, doublings = of_round(config.epochs, done), of_round(config.doublings, done)
    aside = np.zeros(0, np.int64)
    if doublings:
        trusted = np.flatnonzero(state.clean & ~state.accused)
        order = torch.randperm(len(trusted), generator=generator).numpy()
        aside = trusted[order[: min(config.set_aside, len(trusted) // 10)]]
        clean = np.setdiff1d(clean, aside)
    pictures = Batches(images, device, resident_gib=config.resident_gib)
    rejected = np.flatnonzero(unlearned) if unlearned is not None else clean[:0]
    lesson = _Lesson(state, pictures, labels, clean, rejected, config, generator, device)
    lesson.give(epochs)
    right = lesson.given_right(aside)
    for _ in range(doublings if len(aside) else 0):
        before, models = right, [copy.deepcopy(model.state_dict()) for model in (state.student, state.teacher)]
        epochs *= 2
        say(f"purify: {len(aside)} images set aside get their label at {right.mean():.3f}: go on for {epochs} epochs")
        lesson.give(epochs)
        right = lesson.given_right(aside)
        gain = right.mean() - before.mean()
        if gain < 0:
            for model, weights in zip((state.student, state.teacher), models, strict=True):
                model.load_state_dict(weights)
        if gain <= max(config.least_gain, STANDARD_ERRORS * (right - before).std() / math.sqrt(len(aside))):
            break
    state.rounds_done += 1


@dataclass(frozen=True)
class _Lesson:
    """What the models of a state learn from in a round. labels: (n,); clean, rejected: indices of images."""

    state: State
    pictures: Batches
    labels: np.ndarray
    clean: np.ndarray
    rejected: np.ndarray
    config: PurifyConfig
    generator: torch.Generator
    device: torch.device

    @cached_property
    def trigger(self) -> AffineTrigger | None:
        """What accused images seem to carry, estimated once for however often the round goes on; None of too few."""
        accused = np.flatnonzero(self.state.accused)
        trusted = np.flatnonzero(self.state.clean & ~self.state.accused)
        return estimate_trigger(self.pictures, accused, trusted) if min(len(accused), len(trusted)) > 1 else None

    def give(self, epochs: int) -> None:
        """Train for so many epochs, from the highest learning rate of the round down.

        Every step makes PGD examples of a part of a clean batch, of which a share carries the estimated trigger, and
        trains the student on (image, right label), on agreeing with its teacher, on forgetting accused images' labels,
        and on staying near what it was.
        """
        state, config, device, generator = self.state, self.config, self.device, self.generator
        done, pictures, rejected = state.rounds_done, self.pictures, self.rejected
        random, augment = RandomStream(generator, device), config.augmentation(pictures.images.shape[1])
        trigger = self.trigger
        order = [self.clean[index.numpy()] for index in batches(len(self.clean), config.batch_size, epochs, generator)]
        size = len(order[0])
        forgotten = int(config.unlearn_fraction * size) if len(rejected) else 0
        most = int(of_round(config.adversarial_fraction, done) * size)
        attacked_steps = len(order) * min(1.0, of_round(config.adversarial_epochs, done) / epochs)
        learner = _Learner(state, config, size, forgotten, device)
        steps = {count: CapturedStep(learner.step, device) for count in (0, most)}
        highest = of_round(config.learning_rate, done)
        given, carrying = torch.from_numpy(self.labels).to(device), torch.from_numpy(state.accused).to(device)
        state.student.train()
        with shared_norms(state.student), seeded(generator, device):
            for index, x in enumerate(track(pictures.stream(order), "purify", total=len(order))):
                numbers, chosen = random.at(index), torch.from_numpy(order[index]).to(device)
                if trigger is not None:  # not on a relabelled image, which carries the trigger itself
                    x = stamp_some(x, trigger, ~carrying[chosen], config, numbers)
                x = augment(x, numbers) if augment else x
                extra = rejected[:0]
                if forgotten:
                    extra = rejected[torch.randint(len(rejected), (forgotten,), generator=generator).numpy()]
                wrong = pictures[extra]
                wrong = augment(wrong, numbers) if augment and forgotten else wrong
                count = most if index < attacked_steps else 0
                start = random_start(x[:count], learner.attack.epsilon, numbers)
                target, wrong_target = given[chosen], given[torch.from_numpy(extra).to(device)]
                parts = (x[:count], start, target[:count], x[count:], target[count:], wrong, wrong_target)
                set_rate(learner.optimiser, highest * min(1.0, 1.4 * (1 - index / len(order))))
                steps[count](*map(own, parts))
        state.student.eval()

    def given_right(self, rows: np.ndarray) -> np.ndarray:
        """Return the probability, float64 (m,), that the student gives images' right labels; the first are attacked."""
        config, done, right = self.config, self.state.rounds_done, np.zeros(len(rows))
        attack = PGDConfig(of_round(config.epsilon, done), config.steps, config.step_size)
        model, random = fold_batchnorm(self.state.student), RandomStream(self.generator, self.device)
        attacked = int(of_round(config.adversarial_fraction, done) * len(rows))
        for index, part in own_batches(slices(len(rows), config.batch_size)):
            x, y = self.pictures[rows[part]], torch.from_numpy(self.labels[rows[part]]).to(self.device)
            count = max(0, attacked - part.start)
            with autocast(self.device):
                x[:count] = pgd(model, x[:count], y[:count], attack, generator=random.at(index))
            with torch.no_grad():
                right[part] = model(x).float().softmax(1).gather(1, y[:, None])[:, 0].cpu().numpy()
        gathered(right, device=self.device)
        return right


def stamp_some(
    images: Tensor, trigger: AffineTrigger, allowed: Tensor, config: PurifyConfig, generator: torch.Generator
) -> Tensor:
    """Return images (n, c, h, w) of which a share of those allowed (bool, (n,)) carries the trigger or a stronger."""
    chance, strength = torch.rand(2, len(images), 1, 1, 1, generator=generator, device=images.device)
    carries = (chance < config.stamp_rate) & allowed[:, None, None, None]
    return torch.where(carries, trigger(images, 1 + (config.stamp_strength - 1) * strength), images)


class _Learner:
    """What a step of purification changes: student and teacher, and the folded copies that stand for them."""

    def __init__(self, state: State, config: PurifyConfig, images: int, forgotten: int, device: torch.device) -> None:
        """images, forgotten: how many of each a step has, over all processes."""
        done, self.config, self.device = state.rounds_done, config, device
        self.images, self.forgotten = images, forgotten
        self.student, self.teacher = state.student, state.teacher
        self.attacked, self.elder = fold_batchnorm(state.student), fold_batchnorm(state.teacher)
        self.attack = PGDConfig(of_round(config.epsilon, done), config.steps, config.step_size)
        rate = of_round(config.learning_rate, done)
        self.optimiser = sgd(state.student, rate, config.momentum, config.weight_decay, device)
        self.update_teacher = teacher_update(state.teacher, state.student, config.ema_decay)
        self.reference = [parameter.detach().clone() for parameter in state.student.parameters()]

    def step(
        self,
        attacked: Tensor,
        start: Tensor,
        attacked_target: Tensor,
        x: Tensor,
        target: Tensor,
        wrong: Tensor,
        wrong_target: Tensor,
    ) -> None:
        """Learn from images that are attacked from their start and from images as they are, under right labels, and
        from images whose labels are to be forgotten; each (n, c, h, w) and (n,), an n of its own."""
        config = self.config
        if len(attacked):
            update_folded(self.attacked, self.student)
            with autocast(self.device):
                x_adv = ascend(self.attacked, start, attacked, attacked_target, self.attack)
            x, target = torch.cat([x_adv, x]), torch.cat([attacked_target, target])
        with autocast(self.device):
            output = self.student(torch.cat([x, wrong]) if len(wrong) else x)
        right, given = output[: len(x)].float(), output[len(x) :].float()
        loss = functional.cross_entropy(right, target, reduction="sum") / self.images
        if config.consistency_weight:
            update_folded(self.elder, self.teacher)
            with torch.no_grad(), autocast(self.device):
                agreed = self.elder(x).float().softmax(1)
            loss = loss + config.consistency_weight * (right.softmax(1) - agreed).square().sum() / self.images
        if len(wrong):
            loss = loss + config.unlearn_weight * forget(given, wrong_target).sum() / self.forgotten
        if config.reference_weight:
            moved = zip(self.student.parameters(), self.reference, strict=True)
            distance = sum(functional.l1_loss(*pair, reduction="sum") for pair in moved)
            loss = loss + config.reference_weight * distance / processes()
        self.optimiser.zero_grad()
        loss.backward()
        add_up(parameter.grad for parameter in self.student.parameters())
        self.optimiser.step()
        self.update_teacher()


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
