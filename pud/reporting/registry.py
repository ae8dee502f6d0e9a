"""MLflow's registry: the repaired model as a logged model without pickle, its version, and the aliases of versions."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pud.artifacts.model import ModelCard, load_model
from pud.base.errors import without_userinfo
from pud.base.files import sha256
from pud.base.progress import say
from pud.data.images import pixels
from pud.models.contract import Classifier
from pud.reporting.gates import check_name
from pud.reporting.report import inert
from pud.reporting.tracking import RUN_KEY, Tracking, _client, _condition, _milliseconds, _safe, parent_run

if TYPE_CHECKING:  # tracking sets the environment before it imports mlflow
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

CANDIDATE, CHAMPION = "candidate", "champion"
ADDRESS, VERSIONS_TAG = "MLFLOW_TRACKING_URI", "mlflow.modelVersions"  # by the tag MLflow's page shows the versions
WEIGHTS_TAG, ABOUT = "pud.weights", ("kind", "verdict", "training_images", "training_labels", "infected_model")
FILES = ("model.safetensors", "model.json", "README.md")  # of the folder; weights as they came may be a pickle
EXAMPLE_IMAGES = 2
TOLERANCE = 1e-4  # of logits


def register(
    tracking: Tracking,
    repaired: Path,
    *,
    example: np.ndarray,
    name: str,
    metrics: Mapping[str, float],
    verdict: Mapping[str, Any] | None = None,
    architecture: str | None = None,
) -> str | None:
    """Log a repaired model in the run, register it as the ``candidate`` and return its version.

    Anybody loads it with ``mlflow.pytorch.load_model("models:/NAME@candidate")``, without PUD and without unpickling
    code. The same weights in the same run are the same version: a retried task takes up where it was lost.

    Args:
        repaired: model folder.
        example: uint8 (n, c, h, w), of which the first few become the input example.
        name: of the registered model.
        metrics: of the model.
        verdict: content of ``verdict.json``.
        architecture: see ``load_model``.

    Returns:
        None where torch cannot export the network, which is said.

    Raises:
        InputError: the name or the folder is wrong. LOST: MLflow is.
    """
    check_name(name)
    network, card = load_model(repaired, torch.device("cpu"), architecture=architecture)
    client, experiment_id, platform = _client(tracking)
    run_id = parent_run(client, experiment_id, tracking, platform).info.run_id
    key = {RUN_KEY: _safe(tracking.run_key), WEIGHTS_TAG: sha256(repaired / FILES[0])}
    if found := client.search_model_versions(f"name = '{name}' and {_condition(key)}", max_results=1):
        version = str(found[0].version)
    else:
        said = verdict or {}
        about = {"kind": said.get("kind"), "verdict": said.get("verdict_code"), **card.made_from}
        tags = {**key, **{f"pud.{one}": str(about[one]) for one in ABOUT if about.get(one)}}
        logged = _logged(client, experiment_id, run_id, tags)
        if logged.status != "READY":
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "model"
                if not _write(folder, network, card, pixels(example[:EXAMPLE_IMAGES]), logged):
                    client.finalize_logged_model(logged.model_id, "FAILED")
                    return None
                for file in FILES:
                    if (repaired / file).is_file():
                        shutil.copyfile(repaired / file, folder / file)
                client.log_model_artifacts(logged.model_id, str(folder))
            _link(client, run_id, logged.model_id, metrics)
            client.finalize_logged_model(logged.model_id, "READY")
        version = _new_version(
            client, tracking.uri, name, logged.model_id, run_id, tags, inert(said.get("verdict", ""))
        )
    client.set_registered_model_alias(name, CANDIDATE, version)
    say(f"MLflow: the repaired model is {name} version {version}, the {CANDIDATE}")
    return version


def version_of(tracking: Tracking, name: str) -> str | None:
    """Return the newest version that this run has registered under a name, if any."""
    condition = _condition({RUN_KEY: _safe(tracking.run_key)})
    found = _client(tracking)[0].search_model_versions(f"name = '{name}' and {condition}")
    return str(max(int(one.version) for one in found)) if found else None


def promote(tracking: Tracking, name: str, version: str) -> None:
    """Make a version the ``champion``."""
    _client(tracking)[0].set_registered_model_alias(name, CHAMPION, version)


def _logged(client: "MlflowClient", experiment_id: str, run_id: str, tags: dict[str, str]) -> "LoggedModel":
    """Return the run's logged model with these tags: a retried task finds the one that its first try began."""
    for one in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if tags.items() <= one.tags.items() and one.status != "FAILED":
            return one
    return client.create_logged_model(experiment_id, "repaired", run_id, tags)


def _write(folder: Path, network: Classifier, card: ModelCard, images: Tensor, logged: "LoggedModel") -> bool:
    """Write what MLflow loads, a graph and tensors; tell whether torch can export the network, and alike.

    images: float32 (n, c, h, w) in [0, 1].
    """
    import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    if len(images) == 1:
        images = images.expand(2, -1, -1, -1)  # of one image torch would export a network for one image
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.contiguous()  # torch.export keeps no other whole
    shapes = (-1, *card.input_shape), (-1, len(card.classes))
    taken, given = (Schema([TensorSpec(np.dtype(np.float32), shape)]) for shape in shapes)
    about = {
        "classes": card.classes,
        "architecture": card.architecture,
        "input": "images in [0, 1]",
        "output": "logits",
    }
    try:
        mlflow.pytorch.save_model(
            network,
            folder,
            mlflow_model=Model(logged.artifact_location, logged.source_run_id, model_id=logged.model_id),
            signature=ModelSignature(taken, given),
            input_example=images.contiguous().numpy(),
            pip_requirements=[f"{one.__name__}=={one.__version__.partition('+')[0]}" for one in (torch, np)],
            metadata=about,
            serialization_format="pt2",
        )
        with torch.no_grad():
            again = mlflow.pytorch.load_model(str(folder))(images)
            alike = torch.allclose(again, network(images), rtol=0, atol=TOLERANCE)
        reason = "" if alike else f"its logits differ by {(again - network(images)).abs().max():.2g}"
    except OSError:  # of the disk
        raise
    except Exception as error:  # torch has many, for code that is no graph
        reason = " ".join(without_userinfo(error).split())[:200]
    if reason:
        say(f"MLflow: the repaired model cannot be registered, for torch.export does not take its network ({reason})")
    return not reason


def _link(client: "MlflowClient", run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Say that a model came out of a run, and give it metrics: at the run's last step, so that no chart gets more."""
    from mlflow.entities import LoggedModelOutput, Metric

    outputs = client.get_run(run_id).outputs
    if model_id not in [one.model_id for one in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    now = _milliseconds()
    steps = {key: max((one.step for one in client.get_metric_history(run_id, key)), default=0) for key in metrics}
    values = [
        Metric(key, float(value), now, steps[key], model_id=model_id, run_id=run_id) for key, value in metrics.items()
    ]
    client.log_batch(run_id, metrics=values)


def _new_version(
    client: "MlflowClient", uri: str, name: str, model_id: str, run_id: str, tags: dict[str, str], description: str
) -> str:
    """Register a logged model as the next version; the name is made where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with _by_default(uri):
        made = client.create_model_version(
            name, f"models:/{model_id}", run_id, tags, description=description, model_id=model_id
        )
    if VERSIONS_TAG not in client.get_logged_model(model_id).tags:  # a server has set it
        of_model = json.dumps([{"name": name, "version": int(made.version)}])
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: of_model})
    return str(made.version)


@contextmanager
def _by_default(uri: str) -> Iterator[None]:
    """Let MLflow be at this address for who asks for none: without a server MLflow itself does, to find a model."""
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = before
