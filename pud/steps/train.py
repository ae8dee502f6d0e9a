"""Step train: a data set in, an infected model out."""

import dataclasses
from pathlib import Path

from pud.artifacts.model import ModelCard, save_model
from pud.artifacts.timing import timed_folder
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.memory import halving_batches
from pud.data.batches import Batches
from pud.data.readers import open_training_split
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train, warn_of_few_steps


def train_step(dataset: Path, config: TrainConfig, *, seed: int, device: str = "auto", model: Path) -> dict[str, float]:
    """Train a model on the training images of ``dataset`` into the folder ``model``."""
    prepare_process()
    where = resolve_device(device)
    split = open_training_split(dataset)
    images, labels = split.images, split.labels
    warn_of_few_steps(len(labels), config.batch_size)
    mean, std = Batches(images, where, resident_gib=0).channel_moments()
    card = ModelCard(
        architecture=config.architecture,
        input_shape=list(images.shape[1:]),
        classes=list(split.classes),
        mean=mean,
        std=std,
        training={},
        made_from={"training_images": split.digest, "training_labels": split.labels_digest},
    )
    with timed_folder(model, "train", "model.json", dataset) as folder:

        def trained(config: TrainConfig) -> Classifier:
            network = card.build(seed, architecture=config.architecture).to(where)  # the user's own choice
            train(network, images, labels, config, generator=random_stream(seed, "train"), device=where)
            return network

        network, used = halving_batches(trained, config)
        save_model(folder, network, dataclasses.replace(card, training={**dataclasses.asdict(used), "seed": seed}))
        given = logits(network, images, where).argmax(1).numpy()
    return {"training_accuracy": float((given == labels).mean())}
