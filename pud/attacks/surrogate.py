"""The attacker's own models: nothing of the defence, nothing of the victim's training but the architecture."""

import torch
from torch.nn import functional

from pud.adversarial.pgd import PGDConfig, pgd
from pud.attacks.contract import Victim
from pud.base.progress import track
from pud.data.images import pixels
from pud.models.classifier import ResNet, frozen, make_model, refreeze
from pud.models.training import batches

ARCHITECTURE = "resnet8"
LEARNING_RATE, BATCH, EPOCHS = 0.1, 128, 2
ATTACK = PGDConfig(epsilon=16 / 255, steps=3, step_size=0.5)


def untrained(victim: Victim) -> ResNet:
    """Return a fresh model on the victim's kind of images."""
    sample = pixels(victim.images)
    mean, std = sample.mean((0, 2, 3)).tolist(), sample.std((0, 2, 3)).clamp(min=1e-3).tolist()
    seed = int(torch.randint(2**31, (1,), generator=victim.generator))
    model = make_model(ARCHITECTURE, list(victim.images.shape[1:]), victim.classes, mean, std, seed=seed)
    return model.to(victim.device)


def adversarially_trained(victim: Victim) -> ResNet:
    """Return a model trained on the clean images under PGD (Madry et al. 2018, arXiv 1706.06083)."""
    model = untrained(victim)
    attacked = frozen(model)
    order = batches(len(victim.labels), BATCH, EPOCHS, victim.generator)
    optimiser = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=len(order))
    labels = torch.from_numpy(victim.labels).to(victim.device)
    for index in track(order, "train the attacker's surrogate"):
        x, y = pixels(victim.images[index.numpy()]).to(victim.device), labels[index.to(victim.device)]
        refreeze(attacked, model.eval())
        x_adv = pgd(attacked, x, y, ATTACK, generator=victim.generator)
        loss = functional.cross_entropy(model.train()(x_adv), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()
