"""Step receive: a model and data from outside in, both in our forms out, looked at before anything is spent."""

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pud.artifacts.model import save_model
from pud.artifacts.timing import timed_folder
from pud.base.device import prepare_process, resolve_device
from pud.base.errors import InputError
from pud.base.files import read_json
from pud.base.progress import say
from pud.data.images import OTHER, TRAINING, UNLABELLED
from pud.data.readers import open_training_split
from pud.data.readers.npy import (
    FORMAT,
    WITHOUT_LABELS,
    describe_split,
    is_unlabelled,
    open_unlabelled,
    refuse_unlabelled,
)
from pud.exchange.models import ModelConfig, receive_model, receive_unlabelled, save_origin
from pud.models.training import TrainConfig
from pud.steps.given import given_data, given_model
from pud.steps.train import train_step

ANY = ""


def receive_step(
    model_uri: str,
    model_digest: str,
    data_uri: str,
    data_digest: str,
    config: ModelConfig,
    training: TrainConfig,
    *,
    seed: int,
    device: str = "auto",
    maximum_gib: float = math.inf,
    pictures: str = TRAINING,
    model: Path,
    dataset: Path,
) -> dict[str, float]:
    """Bring a model and its training data into the folders ``model`` and ``dataset``.

    Args:
        model_uri, model_digest: see ``given_model``; without a model one is trained on the data, with ``training``.
        data_uri, data_digest, maximum_gib: see ``given_data``.
        pictures: TRAINING, or OTHER, labelled ones that the model was not trained on; ANY: TRAINING or, where the data
            set says so, UNLABELLED, which get the label in ``dataset`` that the model gives them.

    Raises:
        InputError: they are missing or do not belong together; the sentence names what would mend it.
    """
    prepare_process()
    where = resolve_device(device)
    if pictures not in (ANY, TRAINING, OTHER):
        raise InputError(f"pictures is {pictures!r}: choose {TRAINING} or {OTHER}, or leave it empty")
    source, _ = given_data(data_uri, data_digest, maximum_gib)
    unlabelled = is_unlabelled(source / "train")
    if unlabelled and pictures == TRAINING:
        refuse_unlabelled(source / "train")
    if not model_uri and (unlabelled or pictures == OTHER):
        raise InputError(
            f"{source} holds pictures that no model is trained on: give the model that is to be looked at, or its "
            "training data with their labels"
        )
    if unlabelled:
        given = (model_uri, model_digest, source, config)
        return _receive_unlabelled(*given, seed=seed, device=where, model=model, dataset=dataset)
    with timed_folder(dataset, "receive", "train/dataset.json", source, model) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=_links)
        split = open_training_split(folder)
        if pictures == OTHER:
            _describe(folder / "train", split.labels, split.classes, OTHER)
        known = {"images": len(split.labels), "classes": len(split.classes)}
    if not model_uri:
        say("receive: no model is given, so one is trained on these data")
        return known | train_step(dataset, training, seed=seed, device=device, model=model)
    split = open_training_split(dataset, of_any=True)
    with (
        tempfile.TemporaryDirectory(dir=model.parent) as scratch,
        timed_folder(model, "receive", "model.json", dataset) as folder,
    ):
        found = receive_model(
            given_model(model_uri, model_digest, Path(scratch)), split, config, seed=seed, device=where
        )
        save_model(folder, found.model, found.card)
        save_origin(folder, found.origin)
    return known | {"given_label_accuracy": found.sanity.accuracy}


def _receive_unlabelled(
    model_uri: str,
    model_digest: str,
    source: Path,
    config: ModelConfig,
    *,
    seed: int,
    device: torch.device,
    model: Path,
    dataset: Path,
) -> dict[str, float]:
    """Bring a model and pictures without labels into the folders; the model says what their labels are."""
    images, _ = open_unlabelled(source / "train")
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        place = given_model(model_uri, model_digest, Path(scratch))
        network, card, origin, labels = receive_unlabelled(place, images, config, seed=seed, device=device)
        with timed_folder(dataset, "receive", "train/dataset.json", source, model) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=_links)
            _describe(folder / "train", labels, card.classes, UNLABELLED)
        with timed_folder(model, "receive", "model.json", dataset) as folder:
            save_model(folder, network, card)
            save_origin(folder, origin)
    say(f"receive: the label of each of {len(labels):,} pictures is what the model says of it")
    return {"images": len(labels), "classes": len(card.classes), "predicted_classes": len(np.unique(labels))}


def _describe(folder: Path, labels: np.ndarray, classes: Sequence[str], pictures: str) -> None:
    """Write anew what a split says of its images: their labels, and what they are to the model."""
    about = read_json(folder / "dataset.json", FORMAT, WITHOUT_LABELS, name=str)
    told = {"name": about["name"], "source": str(about.get("source", ""))}
    describe_split(folder, labels, classes=classes, pictures=pictures, **told)


def _links(folder: str, names: list[str]) -> list[str]:
    """Return which of a stranger's files are links, wherever they lead."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
