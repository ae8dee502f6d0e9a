"""The attacker's own models: nothing of the defence, nothing of the victim's training but the architecture."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch.nn import functional

from pud.adversarial.pgd import PGDConfig, pgd
from pud.attacks.contract import AttackerKnowledge
from pud.base.config import Count, Positive, Share
from pud.base.progress import track
from pud.data.batches import Batches
from pud.models.contract import Classifier
from pud.models.folded import fold_batchnorm, update_folded
from pud.models.make import check_architecture, make_model
from pud.models.training import TrainConfig, batches, train


@dataclass(frozen=True)
class SurrogateConfig:
    """The attacker's own model, trained by SGD under a one-cycle learning rate."""

    surrogate_architecture: Annotated[str, "Of the attacker's own model."] = "resnet8"
    surrogate_learning_rate: Annotated[Positive, "Highest of its training."] = 0.1
    surrogate_batch_size: Annotated[Count, "Images at a time in its training."] = 128
    surrogate_epochs: Annotated[Count, "Of its training."] = 2

    def __post_init__(self) -> None:
        check_architecture(self.surrogate_architecture)


@dataclass(frozen=True)
class RobustSurrogateConfig(SurrogateConfig):
    """A surrogate that is trained under PGD."""

    surrogate_epsilon: Annotated[Share, "L-infinity radius of PGD in its training, pixels in [0, 1]."] = 16 / 255
    surrogate_steps: Annotated[int, "Of PGD in its training."] = 3
    surrogate_step_size: Annotated[Positive, "Of PGD in its training, in epsilon."] = 0.5


def untrained(knowledge: AttackerKnowledge, config: SurrogateConfig) -> Classifier:
    """Return a fresh model on the kind of images that the attacker knows."""
    mean, std = Batches(knowledge.images, knowledge.device).channel_moments()
    seed = int(torch.randint(2**31, (1,), generator=knowledge.generator))
    model = make_model(
        config.surrogate_architecture, list(knowledge.shape), knowledge.classes, mean, std, seed=seed, may_import=True
    )
    return model.to(knowledge.device)


def trained(knowledge: AttackerKnowledge, config: SurrogateConfig) -> Classifier:
    """Return a model trained plainly on the clean images."""
    model = untrained(knowledge, config)
    plain = TrainConfig(
        batch_size=config.surrogate_batch_size,
        epochs=config.surrogate_epochs,
        learning_rate=config.surrogate_learning_rate,
    )
    stream, device = knowledge.generator, knowledge.device
    train(model, knowledge.images, knowledge.labels, plain, generator=stream, device=device)
    return model


def adversarially_trained(knowledge: AttackerKnowledge, config: RobustSurrogateConfig) -> Classifier:
    """Return a model trained on the clean images under PGD (Madry et al. 2018, arXiv 1706.06083)."""
    attack = PGDConfig(config.surrogate_epsilon, config.surrogate_steps, config.surrogate_step_size)
    rate = config.surrogate_learning_rate
    model = untrained(knowledge, config)
    attacked = fold_batchnorm(model)
    order = batches(len(knowledge.labels), config.surrogate_batch_size, config.surrogate_epochs, knowledge.generator)
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=len(order))
    pictures, labels = Batches(knowledge.images, knowledge.device), torch.from_numpy(knowledge.labels)
    training = track(pictures.stream(order), "train the attacker's surrogate", total=len(order))
    for index, x in zip(order, training, strict=True):
        y = labels[index].to(knowledge.device)
        update_folded(attacked, model.eval())
        x_adv = pgd(attacked, x, y, attack, generator=knowledge.generator)
        loss = functional.cross_entropy(model.train()(x_adv), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()
