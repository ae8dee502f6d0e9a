"""Step poison: a clean data set in, a poisoned data set and its ground truth out."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from pud.artifacts.ground_truth import save_truth
from pud.artifacts.timing import timed_folder
from pud.attacks import attack_config
from pud.attacks.poisoning import PoisonConfig, poison
from pud.base.config import as_parameters
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.errors import InputError
from pud.data.readers import open_split
from pud.data.readers.npy import write_split
from pud.steps.given import given_data


def poison_step(
    data_uri: str,
    data_digest: str,
    config: PoisonConfig,
    strength: Any = None,
    *,
    seed: int,
    device: str = "auto",
    maximum_gib: float = math.inf,
    dataset: Path,
    ground_truth: Path,
) -> dict[str, float]:
    """Poison the data set at ``data_uri`` into the folders ``dataset`` and ``ground_truth``.

    Args:
        data_digest: the digest in ``data.dvc`` that the data must have; empty to skip the check.
        strength: the attack's own config, see ``pud.attacks.attack_config``; None: its defaults.
        maximum_gib: what the disks of the steps that follow have room for.

    Raises:
        InputError: data that are missing, corrupt, too large or of another digest, or settings that cannot be.
    """
    prepare_process()
    where = resolve_device(device)
    strength = strength or attack_config(config.attack, {})
    source, digest = given_data(data_uri, data_digest, maximum_gib)
    train, test = open_split(source / "train"), open_split(source / "test")
    if train.images.shape[1:] != test.images.shape[1:] or train.classes != test.classes:
        raise InputError(
            f"{source}: train and test differ in image shape or classes, give a data set in which both agree"
        )
    with (
        timed_folder(ground_truth, "poison", "ground_truth.json", source, dataset) as truth_folder,
        timed_folder(dataset, "poison", "train/dataset.json", source, ground_truth) as folder,
    ):
        generator = random_stream(seed, "poison")
        images, labels, truth = poison(train, test, config, strength, generator=generator, device=where)
        write_split(folder / "train", images, labels, classes=train.classes, name=train.name, source=digest)
        write_split(folder / "test", test.images, test.labels, classes=test.classes, name=test.name, source=digest)
        how = {**dataclasses.asdict(config), "attack_settings": as_parameters(strength)}
        save_truth(truth_folder, truth, {**how, "seed": seed, "source": digest})
    return {"images": len(labels), "poisoned_images": int(truth.poisoned.sum())}
