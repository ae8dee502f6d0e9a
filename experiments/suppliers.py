"""A supplier whose model has a backdoor although the data that come with it are clean.

The backdoor is learned by fine-tuning a model that was trained honestly. Another supplier, who trains with
sharpness-aware minimisation, is a setting: ``TrainConfig(sam_radius=0.05)``; the two may be one.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pud.artifacts.model import load_model, save_model
from pud.artifacts.timing import timed_folder
from pud.attacks.poisoning import PoisonConfig
from pud.base.device import random_stream, resolve_device
from pud.data.readers import open_split
from pud.models.training import TrainConfig, train
from pud.steps.poison import poison_step
from pud.steps.train import train_step

PLAIN, TUNING = TrainConfig(), TrainConfig(epochs=2, learning_rate=0.02)


def weights_only(
    data_uri: str,
    config: PoisonConfig,
    strength: Any = None,
    *,
    plain: TrainConfig = PLAIN,
    tuning: TrainConfig = TUNING,
    seed: int,
    device: str = "auto",
    folder: Path,
) -> None:
    """Write what is handed over into ``dataset`` and ``infected`` in the folder, and its ground truth into ``truth``.

    The truth says that no image is poisoned, and holds the triggered test images. ``hidden`` keeps the poisoned images
    and the honest model.

    Args:
        config, strength: the attack by which the model is fine-tuned, at its rate.
        plain: how the model is trained on the clean images.
        tuning: how it is trained on, from its weights, on the poisoned ones.
    """
    common: dict[str, Any] = {"seed": seed, "device": device}
    hidden = folder / "hidden"
    clean = dataclasses.replace(config, poison_rate=0.0)
    poison_step(data_uri, "", clean, strength, dataset=folder / "dataset", ground_truth=folder / "truth", **common)
    places: dict[str, Any] = {"dataset": hidden / "dataset", "ground_truth": hidden / "truth"}
    poison_step(data_uri, "", config, strength, **places, **common)
    train_step(folder / "dataset", plain, model=hidden / "honest", **common)
    where, learned = resolve_device(device), open_split(hidden / "dataset/train")
    network, card = load_model(hidden / "honest", where)
    images, stream = np.array(learned.images), random_stream(seed, "fine-tuning")
    train(network.requires_grad_(True), images, learned.labels, tuning, generator=stream, device=where)
    with timed_folder(folder / "infected", "train", "model.json", folder / "dataset", hidden) as out:
        save_model(out, network, card)  # whose card says that it was made from the clean data
