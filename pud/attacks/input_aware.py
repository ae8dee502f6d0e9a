"""Input-aware dynamic: every image gets a trigger of its own, from a generator trained with a model (Nguyen and Tran
2020, arXiv 2010.08138)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.attacks.contract import Attack, AttackerKnowledge, AttackMethod
from pud.attacks.surrogate import SurrogateConfig, untrained
from pud.base.config import Count, Part, Positive
from pud.base.errors import InputError
from pud.base.progress import track
from pud.data.batches import Batches
from pud.models.contract import channels_last
from pud.models.training import batches


@dataclass(frozen=True)
class InputAwareConfig(SurrogateConfig):
    """The trigger's generators, and how they are trained together with the attacker's model."""

    surrogate_epochs: Annotated[Count, "Of the training of pattern generator and model."] = 4
    mask_epochs: Annotated[Count, "Of the training of the mask generator, which comes first."] = 1
    density: Annotated[Part, "Share of the pixels that a mask may cover."] = 0.032
    density_weight: Annotated[float, "Weight of what exceeds it."] = 100.0
    poison_share: Annotated[Part, "Share of a batch with its own trigger and the target label (the paper's)."] = 0.1
    cross_share: Annotated[Part, "Share of a batch with another image's trigger and its own label."] = 0.1
    width: Annotated[Count, "Channels of the generators' first layer."] = 16
    generator_learning_rate: Annotated[Positive, "Of both generators."] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.poison_share + self.cross_share > 1:
            raise InputError(
                f"poison_share {self.poison_share:g} and cross_share {self.cross_share:g} are more than a batch: give "
                "shares that are at most 1 together"
            )


def make_generator(channels: int, out_channels: int, width: int) -> nn.Module:
    """Return an encoder and decoder that keeps height and width, multiples of four."""

    def layer(inside: int, outside: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]

    return channels_last(
        nn.Sequential(
            *layer(channels, width),
            *layer(width, 2 * width, 2),
            *layer(2 * width, 4 * width, 2),
            nn.Upsample(scale_factor=2),
            *layer(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, out_channels, 3, padding=1),
            nn.Sigmoid(),
        )
    )


def diversity(images: Tensor, others: Tensor, made: Tensor, made_of_others: Tensor) -> Tensor:
    """Return the paper's diversity loss: distance of images over that of what was made for them.

    Each (n, c, h, w); the mean over the n pairs.
    """
    apart = (images - others).square().flatten(1).mean(1).sqrt()
    made_apart = (made - made_of_others).square().flatten(1).mean(1).sqrt()
    return (apart / (made_apart + 1e-3)).mean()


def sharp(mask: Tensor) -> Tensor:
    """Return a mask in [0, 1], of any shape, pushed to its ends (the paper's scaled tanh)."""
    return (torch.tanh(20 * (mask - 0.5)) + 1) / 2


def stamped(images: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    """Return images (n, c, h, w) with the pattern, as large, where the mask, (n, 1, h, w) in [0, 1], is."""
    return images + mask * (pattern - images)


def train_masks(masker: nn.Module, knowledge: AttackerKnowledge, config: InputAwareConfig) -> None:
    """Train in place what draws a mask for each image: sparse, and as different as the images are."""
    optimiser = torch.optim.Adam(masker.parameters(), config.generator_learning_rate, betas=(0.5, 0.9))
    order = batches(len(knowledge.labels), config.surrogate_batch_size, config.mask_epochs, knowledge.generator)
    pictures = Batches(knowledge.images, knowledge.device)
    for x in track(pictures.stream(order), "train the attacker's masks", total=len(order)):
        mask = sharp(masker(x))
        excess = functional.relu(mask.mean((1, 2, 3)) - config.density).mean()
        loss = diversity(x, x.roll(1, 0), mask, mask.roll(1, 0)) + config.density_weight * excess
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    masker.eval().requires_grad_(False)


def train_patterns(
    patterner: nn.Module, masker: nn.Module, model: nn.Module, knowledge: AttackerKnowledge, config: InputAwareConfig
) -> None:
    """Train in place what draws a pattern for each image, together with a model that learns the backdoor."""
    pictures, labels = Batches(knowledge.images, knowledge.device), torch.from_numpy(knowledge.labels)
    rate = config.surrogate_learning_rate
    order = batches(len(labels), config.surrogate_batch_size, config.surrogate_epochs, knowledge.generator)
    optimiser = torch.optim.Adam(patterner.parameters(), config.generator_learning_rate, betas=(0.5, 0.9))
    outer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(outer, rate, total_steps=len(order))
    model.train()
    training = track(pictures.stream(order), "train the attacker's generator and model", total=len(order))
    for index, x in zip(order, training, strict=True):
        y = labels[index]
        poisoned, crossed = (max(1, int(share * len(x))) for share in (config.poison_share, config.cross_share))
        rows = slice(0, poisoned + crossed)
        pattern = patterner(x[rows])
        wrong = torch.cat([torch.arange(poisoned), torch.arange(crossed) % poisoned])  # crossed take another's trigger
        attacked = stamped(x[rows], pattern[wrong], sharp(masker(x[rows]))[wrong])
        y = torch.cat([knowledge.target_of(y[:poisoned]), y[poisoned:]]).to(knowledge.device)
        loss = functional.cross_entropy(model(torch.cat([attacked, x[rows.stop :]])), y)
        loss = loss + diversity(x[rows], x[rows].roll(1, 0), pattern, pattern.roll(1, 0))
        for each in (optimiser, outer):
            each.zero_grad()
        loss.backward()
        for each in (optimiser, outer):
            each.step()
        schedule.step()
    patterner.eval().requires_grad_(False)


def input_aware(knowledge: AttackerKnowledge, config: InputAwareConfig) -> Attack:
    """Return the attack: first the mask generator is trained, then the pattern generator together with a model.

    Raises:
        InputError: height or width that the generators cannot keep.
    """
    channels, height, width = knowledge.shape
    if height % 4 or width % 4:
        raise InputError(
            f"input-aware needs height and width in multiples of 4, not {height} x {width}: choose another"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=knowledge.generator)))
        masker = make_generator(channels, 1, config.width).to(knowledge.device)
        patterner = make_generator(channels, channels, config.width).to(knowledge.device)
    model = untrained(knowledge, config)
    train_masks(masker, knowledge, config)
    train_patterns(patterner, masker, model, knowledge, config)

    def own(images: Tensor) -> Tensor:
        x = images.to(knowledge.device)
        return stamped(x, patterner(x), sharp(masker(x))).to(images)

    def another_s(images: Tensor) -> Tensor:
        x = images.to(knowledge.device)
        return stamped(x, patterner(x).roll(1, 0), sharp(masker(x)).roll(1, 0)).to(images)

    return Attack(own, cover=another_s, covers=config.cross_share / config.poison_share)


ATTACKS = {"input-aware": AttackMethod(input_aware, InputAwareConfig)}
