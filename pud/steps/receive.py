"""Step receive: a model and data from outside in, both in our forms out, looked at before anything is spent."""

import math
import shutil
import tempfile
from pathlib import Path

from pud.artifacts.model import save_model
from pud.artifacts.timing import timed_folder
from pud.base.device import prepare_process, resolve_device
from pud.base.progress import say
from pud.data.readers import open_training_split
from pud.exchange.models import ModelConfig, receive_model, save_origin
from pud.models.training import TrainConfig
from pud.steps.given import given_data, given_model
from pud.steps.train import train_step


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
    model: Path,
    dataset: Path,
) -> dict[str, float]:
    """Bring a model and its training data into the folders ``model`` and ``dataset``.

    Args:
        model_uri, model_digest: see ``given_model``; without a model one is trained on the data, with ``training``.
        data_uri, data_digest, maximum_gib: see ``given_data``.

    Raises:
        InputError: they are missing or do not belong together; the sentence names what would mend it.
    """
    prepare_process()
    where = resolve_device(device)
    source, _ = given_data(data_uri, data_digest, maximum_gib)
    with timed_folder(dataset, "receive", "train/dataset.json", source, model) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=_links)
        split = open_training_split(folder)
        known = {"images": len(split.labels), "classes": len(split.classes)}
    if not model_uri:
        say("receive: no model is given, so one is trained on these data")
        return known | train_step(dataset, training, seed=seed, device=device, model=model)
    split = open_training_split(dataset)
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


def _links(folder: str, names: list[str]) -> list[str]:
    """Return which of a stranger's files are links, wherever they lead."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
