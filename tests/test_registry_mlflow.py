"""The registry of a real MLflow: a repaired model goes in without pickle and comes out with its logits."""

import io
import json
import math
import pickletools
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from pud.artifacts.model import ModelCard, load_model, save_model
from pud.artifacts.verdict import save_verdict
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels
from pud.detectors.contract import BACKDOOR
from pud.reporting import registry
from pud.reporting.gates import GateConfig
from pud.reporting.registry import CANDIDATE, CHAMPION, promote, register, version_of
from pud.reporting.tracking import LOST, ROUND_TAG, Tracking, _client
from pud.steps.gate import gate_step

SAID: dict[str, Any] = {"verdict": "backdoor: <b>class 3</b>", "verdict_code": BACKDOOR, "kind": "defence"}
MADE_FROM = {"training_images": "1" * 64, "training_labels": "2" * 64, "infected_model": "3" * 64, "model": "4" * 64}
CLASSES = [f"class {label}" for label in range(10)]
PICKLE_ENDS = (".pkl", ".pickle", ".pth", ".joblib", ".py")
# what a restricted unpickler builds tensors with: torch.load(weights_only=True) refuses all but such
TENSORS = {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow in a folder, which is not the one that it takes by default; the artifacts lie in another."""
    folder = tmp_path_factory.mktemp("mlflow")
    with chdir(tmp_path_factory.mktemp("work")):
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        yield f"sqlite:///{folder}/mlflow.db"


class Plain(torch.nn.Module):
    """The smallest network, which is exported in no time."""

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(math.prod(input_shape), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


class Twisted(Plain):
    """A network that decides by the values of its images: no graph."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1) if images.sum() > 0 else -images.flatten(1))


PLAIN, TWISTED = f"{__name__}:Plain", f"{__name__}:Twisted"


def model_folder(folder: Path, architecture: str, seed: int = 0) -> Path:
    """Write a model folder as release does, with the weights as they came in, which are a pickle."""
    card = ModelCard(architecture, [1, 28, 28], CLASSES, [0.286], [0.353], {}, MADE_FROM)
    folder.mkdir()
    network = card.build(seed, architecture=architecture)
    save_model(folder, network, card)
    (folder / "README.md").write_text("what this model is")
    torch.save(network.state_dict(), folder / "attack_result.pt")
    return folder


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "repaired", "resnet8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "plain", PLAIN)


def put(uri: str, run: str, repaired: Path, images: np.ndarray, **other: Any) -> str | None:
    """Register under the name of the run's experiment, which no other test uses."""
    given = {"example": images, "name": f"name of {run}", "metrics": {"clean_accuracy": 0.9}, "verdict": SAID} | other
    return register(Tracking(uri, f"of {run}", run), repaired, **given)


def logged_as(uri: str, name: str, version: str) -> LoggedModel:
    client = MlflowClient(uri)
    return client.get_logged_model(client.get_model_version(name, version).source.removeprefix("models:/"))


def aliases(uri: str, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in MlflowClient(uri).get_registered_model(name).aliases.items()}


def globals_of(content: bytes) -> set[str]:
    """Return what a pickle would import as it is loaded."""
    strings, found = list[str](), set[str]()
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            found.add(str(argument))
        elif opcode.name == "STACK_GLOBAL":
            found.add(" ".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
    return found


def pickles_in(content: bytes, name: str) -> dict[str, set[str]]:
    """Return what each pickle imports in a file, in the archives in it, and in those in them."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [pickles_in(archive.read(one), f"{name}/{one}") for one in archive.namelist()]
        return {path: found for part in parts for path, found in part.items()}
    return {name: globals_of(content)} if name.endswith(".pkl") or content[:2] == b"\x80\x02" else {}


@pytest.fixture(scope="module")
def first(uri: str, repaired: Path, train_split: LabelledImages) -> str:
    """The version of a model that is registered first."""
    version = put(uri, "first", repaired, train_split.images)
    assert version
    return version


def test_the_first_model_is_version_1_and_the_candidate_and_no_champion(uri: str, first: str) -> None:
    assert first == "1"
    assert aliases(uri, "name of first") == {CANDIDATE: 1}


def test_anybody_loads_it_by_its_address_and_gets_the_same_logits(
    uri: str, first: str, repaired: Path, test_split: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLflow may unpickle nothing too; any number of images, one as well."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    images = pixels(test_split.images[:50])
    with torch.no_grad():
        wanted = load_model(repaired, torch.device("cpu"))[0](images)
        for count in (1, 2, 50):
            found = mlflow.pytorch.load_model(f"models:/name of first@{CANDIDATE}")(images[:count])
            torch.testing.assert_close(found, wanted[:count], rtol=0, atol=1e-5)
    served = mlflow.pyfunc.load_model("models:/name of first/1")
    np.testing.assert_allclose(served.predict(images.contiguous().numpy()), wanted, rtol=0, atol=1e-5)
    with pytest.raises(MlflowException, match="schema"):
        served.predict(test_split.images[:2])  # bytes, not in [0, 1]


def test_it_says_what_goes_in_and_what_comes_out(
    uri: str, first: str, train_split: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    about = mlflow.models.get_model_info("models:/name of first/1")
    assert [(one.type, one.shape) for one in about.signature.inputs] == [(np.dtype("float32"), (-1, 1, 28, 28))]
    assert [(one.type, one.shape) for one in about.signature.outputs] == [(np.dtype("float32"), (-1, 10))]
    assert about.metadata["classes"] == CLASSES
    example = mlflow.pyfunc.load_model("models:/name of first/1").input_example
    np.testing.assert_allclose(example, train_split.images[: registry.EXAMPLE_IMAGES] / 255, atol=1e-6)


def test_no_pickle_is_sent_but_tensors_in_the_format_of_torch_export(uri: str, first: str) -> None:
    folder = Path(logged_as(uri, "name of first", first).artifact_location)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "data/model.pt2", "model.safetensors", "model.json", "README.md"} <= files.keys()
    assert [name for name in files if name.endswith(PICKLE_ENDS)] == []
    found = {
        place: names for name, path in files.items() for place, names in pickles_in(path.read_bytes(), name).items()
    }
    (place,) = found
    assert place.startswith("data/model.pt2/model/data/sample_inputs/")  # of the example alone; weights lie there raw
    assert found[place] <= TENSORS


def test_the_same_look_finds_the_pickle_in_the_weights_as_they_came(repaired: Path) -> None:
    (imported,) = pickles_in((repaired / "attack_result.pt").read_bytes(), "attack_result.pt").values()
    assert "torch._utils _rebuild_tensor_v2" in imported


def test_the_run_the_model_and_its_version_name_each_other(uri: str, first: str) -> None:
    client, tracking = MlflowClient(uri), Tracking(uri, "of first", "first")
    version = client.get_model_version("name of first", first)
    run, model = client.get_run(version.run_id), logged_as(uri, "name of first", first)
    assert run.data.tags[ROUND_TAG] == "all"
    assert (model.source_run_id, str(model.status)) == (run.info.run_id, "READY")
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    assert {(one.key, one.value) for one in model.metrics} == {("clean_accuracy", 0.9)}
    wanted = {"pud.kind": "defence", "pud.verdict": BACKDOOR}
    wanted |= {f"pud.{key}": MADE_FROM[key] for key in ("training_images", "training_labels", "infected_model")}
    assert wanted.items() <= version.tags.items()
    assert wanted.items() <= model.tags.items()
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "name of first", "version": 1}]
    assert "<b>" not in version.description
    assert version_of(tracking, "name of first") == first


def test_a_retried_task_finds_its_version_and_another_run_or_model_makes_the_next(
    uri: str, first: str, repaired: Path, tmp_path: Path, train_split: LabelledImages
) -> None:
    name = "name of first"
    assert put(uri, "first", repaired, train_split.images) == first
    other = model_folder(tmp_path / "other", PLAIN, seed=1)
    following = [put(uri, run, other, train_split.images, name=name, architecture=PLAIN) for run in ("first", "second")]
    assert following == ["2", "3"]
    assert version_of(Tracking(uri, "of first", "first"), name) == "2"
    assert aliases(uri, name) == {CANDIDATE: 3}
    for champion in ("3", "2"):
        promote(Tracking(uri, "of first", "first"), name, champion)
    assert aliases(uri, name) == {CANDIDATE: 3, CHAMPION: 2}


def test_a_task_that_loses_mlflow_again_and_again_takes_up_where_it_was(
    uri: str, plain: Path, train_split: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MlflowException("the server is gone")

    for lost in ("log_model_artifacts", "log_batch", "create_model_version", "set_registered_model_alias"):
        with monkeypatch.context() as broken:
            broken.setattr(MlflowClient, lost, fail)
            with pytest.raises(LOST):
                put(uri, "lost", plain, train_split.images, architecture=PLAIN)
    assert put(uri, "lost", plain, train_split.images, architecture=PLAIN) == "1"
    client, experiment, _ = _client(Tracking(uri, "of lost", "lost"))
    (model,) = client.search_logged_models([experiment])
    assert str(model.status) == "READY"
    assert aliases(uri, "name of lost") == {CANDIDATE: 1}


def test_a_network_that_torch_cannot_export_is_not_registered_which_is_said(
    uri: str, tmp_path: Path, train_split: LabelledImages, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_folder(tmp_path / "model", TWISTED)
    assert put(uri, "twisted", model, train_split.images, architecture=TWISTED) is None
    assert "cannot be registered" in capsys.readouterr().err
    assert MlflowClient(uri).search_registered_models("name = 'name of twisted'") == []
    assert version_of(Tracking(uri, "of twisted", "twisted"), "name of twisted") is None


def test_a_wrong_name_costs_nothing(uri: str, repaired: Path, train_split: LabelledImages) -> None:
    with pytest.raises(InputError, match="no name for a registered model"):
        put(uri, "wrong name", repaired, train_split.images, name="a/b")
    assert MlflowClient(uri).get_experiment_by_name("of wrong name") is None


# ----------------------------------------------------------------------------------------------------------- champions


@pytest.fixture
def findings(tmp_path: Path) -> Path:
    folder = tmp_path / "findings"
    folder.mkdir()
    said = {"target_labels": [3], "unjudged": {}, "confidence": 1.0, "rounds_done": 1, "separation": [0.0] * 10}
    counts = {"clean": 900, "poisoned": 100}
    save_verdict(folder, SAID | said | {"counts": counts}, {"given_label_accuracy": 0.95})
    return folder


def test_the_version_of_a_run_becomes_the_champion_only_where_its_gates_are_met(
    uri: str, plain: Path, findings: Path, tmp_path: Path, train_split: LabelledImages
) -> None:
    tracking, name = Tracking(uri, "of gates", "gates"), "name of gates"
    put(uri, "gates", plain, train_split.images, architecture=PLAIN)
    given = {"gate": tmp_path / "gate", "name": name, "tracking": tracking}
    with pytest.raises(InputError, match="not fit for release"):
        gate_step(findings, None, GateConfig(), **given)  # nothing measured the model
    assert aliases(uri, name) == {CANDIDATE: 1}
    open_gates = GateConfig(largest_accuracy_drop=1)
    assert gate_step(findings, None, open_gates, **given) == {"met": 1.0, "promoted": 0.0}
    assert aliases(uri, name) == {CANDIDATE: 1}  # nobody has said how good it must be
    open_gates = GateConfig(largest_accuracy_drop=1, least_given_label_accuracy=0.9)
    assert gate_step(findings, None, open_gates, **given) == {"met": 1.0, "promoted": 1.0}
    assert aliases(uri, name) == {CANDIDATE: 1, CHAMPION: 1}
    assert json.loads((tmp_path / "gate" / "gate.json").read_text())["champion"] == "1"


def test_a_run_without_a_version_has_no_champion_which_is_said(
    uri: str, findings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"gate": tmp_path / "gate", "name": "nobodys", "tracking": Tracking(uri, "e", "a run")}
    assert gate_step(findings, None, GateConfig(0.9, largest_accuracy_drop=1), **given)["promoted"] == 0
    assert "registered no model" in capsys.readouterr().err


def test_a_lost_mlflow_fails_no_gate_and_shows_no_password(
    findings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = Tracking("http://somebody:opensesame@127.0.0.1:9", "e", "a run")
    given = {"gate": tmp_path / "gate", "name": "a name", "tracking": nowhere}
    assert gate_step(findings, None, GateConfig(0.9, largest_accuracy_drop=1), **given) == {"met": 1.0, "promoted": 0.0}
    said = capsys.readouterr().err
    assert "is lost" in said
    assert "opensesame" not in said
