"""Input-aware dynamic: every image gets a trigger of its own, from a generator trained with a model (Nguyen and Tran
2020, arXiv 2010.08138)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.attacks.contract import Attack, Victim
from pud.attacks.surrogate import BATCH, LEARNING_RATE, untrained
from pud.base.errors import InputError
from pud.base.progress import track
from pud.data.images import pixels
from pud.models.classifier import channels_last
from pud.models.training import batches

MASK_EPOCHS, EPOCHS = 1, 4
DENSITY, DENSITY_WEIGHT = 0.032, 100.0  # share of pixels that the mask may cover, and the weight of what exceeds it
POISON_SHARE, CROSS_SHARE = 0.1, 0.1  # of a batch, as in the paper
WIDTH = 16


def make_generator(channels: int, out_channels: int) -> nn.Module:
    """Return an encoder and decoder that keeps height and width, multiples of four."""

    def layer(inside: int, outside: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]

    return channels_last(
        nn.Sequential(
            *layer(channels, WIDTH),
            *layer(WIDTH, 2 * WIDTH, 2),
            *layer(2 * WIDTH, 4 * WIDTH, 2),
            nn.Upsample(scale_factor=2),
            *layer(4 * WIDTH, 2 * WIDTH),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * WIDTH, out_channels, 3, padding=1),
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


def input_aware(victim: Victim) -> Attack:
    """Return the attack: first the mask generator is trained, then the pattern generator together with a model."""
    channels, height, width = victim.images.shape[1:]
    if height % 4 or width % 4:
        raise InputError(
            f"input-aware needs height and width in multiples of 4, not {height} x {width}: choose another"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=victim.generator)))
        masker, patterner = make_generator(channels, 1), make_generator(channels, channels)
    masker, patterner, model = masker.to(victim.device), patterner.to(victim.device), untrained(victim)
    labels = torch.from_numpy(victim.labels)

    def batch(index: Tensor) -> Tensor:
        return pixels(victim.images[index.numpy()]).to(victim.device)

    optimiser = torch.optim.Adam(masker.parameters(), 1e-2, betas=(0.5, 0.9))
    for index in track(batches(len(labels), BATCH, MASK_EPOCHS, victim.generator), "train the attacker's masks"):
        x = batch(index)
        mask = sharp(masker(x))
        excess = functional.relu(mask.mean((1, 2, 3)) - DENSITY).mean()
        loss = diversity(x, x.roll(1, 0), mask, mask.roll(1, 0)) + DENSITY_WEIGHT * excess
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    masker.eval().requires_grad_(False)

    order = batches(len(labels), BATCH, EPOCHS, victim.generator)
    optimiser = torch.optim.Adam(patterner.parameters(), 1e-2, betas=(0.5, 0.9))
    outer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(outer, LEARNING_RATE, total_steps=len(order))
    model.train()
    for index in track(order, "train the attacker's generator and model"):
        x, y = batch(index), labels[index]
        poisoned, crossed = int(POISON_SHARE * len(x)), int(CROSS_SHARE * len(x))
        rows = slice(0, poisoned + crossed)
        pattern = patterner(x[rows])
        wrong = torch.cat([torch.arange(poisoned), torch.arange(crossed) % poisoned])  # crossed take another's trigger
        attacked = stamped(x[rows], pattern[wrong], sharp(masker(x[rows]))[wrong])
        y = torch.cat([victim.target_of(y[:poisoned]), y[poisoned:]]).to(victim.device)
        loss = functional.cross_entropy(model(torch.cat([attacked, x[rows.stop :]])), y)
        loss = loss + diversity(x[rows], x[rows].roll(1, 0), pattern, pattern.roll(1, 0))
        for each in (optimiser, outer):
            each.zero_grad()
        loss.backward()
        for each in (optimiser, outer):
            each.step()
        schedule.step()
    patterner.eval().requires_grad_(False)

    def own(images: Tensor) -> Tensor:
        x = images.to(victim.device)
        return stamped(x, patterner(x), sharp(masker(x))).to(images)

    def another_s(images: Tensor) -> Tensor:
        x = images.to(victim.device)
        return stamped(x, patterner(x).roll(1, 0), sharp(masker(x)).roll(1, 0)).to(images)

    return Attack(own, cover=another_s, covers=CROSS_SHARE / POISON_SHARE)
