"""A model and pictures that it was not trained on, or that nobody labelled: what a scan can know of them, and says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from pud.artifacts.detection import load_detection
from pud.artifacts.ground_truth import load_truth
from pud.artifacts.model import load_model
from pud.artifacts.verdict import load_verdict
from pud.attacks.poisoning import PoisonConfig
from pud.base.errors import InputError
from pud.data.images import OTHER, UNLABELLED
from pud.data.readers import open_split
from pud.data.readers.npy import open_unlabelled
from pud.defences.pud import purify_config
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, POISONED
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.exchange.importing import ImportConfig, import_pictures, summary
from pud.exchange.models import ModelConfig, receive_unlabelled
from pud.models.training import TrainConfig
from pud.platform.cli import app
from pud.steps.conclude import PAGE, SUMMARY, conclude_step
from pud.steps.detect import detect_step
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.receive import ANY, receive_step
from pud.steps.train import train_step

CPU = torch.device("cpu")
PROBE = ProbeConfig(noise_draws=1, mix_draws=1, adversarial_images=0, splits=0, inversion_steps=0)
SENTENCE = "these are not the pictures that the model was trained on, so a trigger need not be among them"
WITHOUT = ImportConfig(unlabelled=True)


@dataclass(frozen=True)
class Given:
    """A poisoned data set, who is poisoned, and the weights of a model that learned it, without its normaliser."""

    dataset: Path
    poisoned: np.ndarray
    model: Path
    weights: Path


@pytest.fixture(scope="module")
def given(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    planted = PoisonConfig("badnets", poison_rate=0.2, train_size=1500)
    poison_step(str(sample_folder), "", planted, seed=0, dataset=folder / "data", ground_truth=folder / "truth")
    train_step(folder / "data", TrainConfig(epochs=3, batch_size=32), seed=0, device="cpu", model=folder / "model")
    bare = {name: one for name, one in load_file(folder / "model/model.safetensors").items() if "." in name}
    save_file(bare, folder / "bare.safetensors")
    return Given(
        folder / "data", load_truth(folder / "truth")[0].poisoned, folder / "model", folder / "bare.safetensors"
    )


def without_labels(split: Path, folder: Path) -> Path:
    """Import the images of a split as pictures that nobody labelled."""
    folder.mkdir()
    np.save(folder / "images.npy", np.load(split / "images.npy"))
    import_pictures(folder / "images.npy", folder / "data", WITHOUT, seed=0)
    return folder / "data"


@pytest.fixture(scope="module")
def innocent(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_labels(sample_folder / "train", tmp_path_factory.mktemp("innocent") / "pictures")


def receive(model: Path | None, data: Path, folder: Path, pictures: str = ANY, **settings: Any) -> dict[str, float]:
    places = {"model": folder / "model", "dataset": folder / "dataset"}
    how = {"seed": 0, "device": "cpu", "pictures": pictures}
    return receive_step(str(model or ""), "", str(data), "", ModelConfig(**settings), TrainConfig(), **how, **places)


def scan(folder: Path) -> dict[str, Any]:
    """Return the verdict on what was received into a folder, by the steps of a scan."""
    model, dataset, probe = (folder / name for name in ("model", "dataset", "probe"))
    probe_step(model, dataset, PROBE, seed=0, device="cpu", probe_folder=probe)
    detect_step(probe, probe, DetectConfig(), detection=folder / "detection")
    conclude_step("scan", model, dataset, probe, folder / "detection", findings=folder / "findings")
    return load_verdict(folder / "findings")


def save_picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("kind", ["folder", "flat", "table", "arrays"])
def test_pictures_without_labels_are_imported_and_never_taken_for_labelled_ones(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(6):
        save_picture(source / ("" if kind != "folder" else "a/b" * (number % 2)) / f"{number}.png", number)
    if kind == "table":
        (source / "list.csv").write_text("path\n" + "\n".join(f"{number}.png" for number in range(6)))
    if kind == "arrays":
        np.save(source / "x.npy", np.stack([np.array(Image.open(path)) for path in sorted(source.glob("*.png"))]))
    said = CliRunner().invoke(app, ["import", "--unlabelled", str(source), "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.exception
    assert f"read as {'folder' if kind == 'flat' else kind}: without labels" in said.output
    images, _ = open_unlabelled(tmp_path / "out/train")
    assert images.shape == (6, 1, 8, 8)
    assert not (tmp_path / "out/train/labels.npy").exists()
    with pytest.raises(InputError, match="without labels, which serve `pud scan` with a model alone: import"):
        open_split(tmp_path / "out/train")


def test_labels_that_are_there_are_left_out_where_that_is_asked_for(sample_folder: Path, tmp_path: Path) -> None:
    content = import_pictures(sample_folder, tmp_path / "out", WITHOUT, seed=0)
    assert content["classes"] == []
    assert "1,500 pictures" in summary(content)
    assert any("'test' were left out" in note for note in content["notes"])


def test_unlabelled_pictures_with_a_trigger_are_accused(
    given: Given, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the model there are weights alone: classes are counted in them, a normalisation is chosen and said."""
    pictures = without_labels(given.dataset / "train", tmp_path / "pictures")
    known = receive(given.weights, pictures, tmp_path)
    assert known["classes"] == 10
    assert load_model(tmp_path / "model", CPU)[1].mean == pytest.approx([0.286], abs=0.01)
    assert "normalisation is not stated, and without labels it cannot be tried" in capfd.readouterr().err
    verdict = scan(tmp_path)
    assert (verdict["verdict_code"], verdict["exit_code"], verdict["pictures"]) == (BACKDOOR, 3, UNLABELLED)
    assert verdict["target_classes"] == ["0"]
    accused = load_detection(tmp_path / "detection")[0].verdict == POISONED
    assert accused[given.poisoned].mean() > 0.9
    assert accused[~given.poisoned].mean() < 0.02
    page = (tmp_path / "findings" / PAGE).read_text()
    assert "accused of carrying a hidden mark" in page
    assert "without labels: the class is what the model says" in page
    assert "by the model 0; " in page
    assert "labelled 0" not in page
    assert "as labelled" not in page


def test_of_innocent_unlabelled_pictures_none_found_is_never_said(given: Given, innocent: Path, tmp_path: Path) -> None:
    receive(given.model, innocent, tmp_path)
    split = open_split(tmp_path / "dataset/train", of_any=True)
    assert (split.pictures, split.classes[9]) == (UNLABELLED, "Ankle boot")
    verdict = scan(tmp_path)
    assert (verdict["verdict_code"], verdict["exit_code"], verdict["confidence"]) == (CANNOT_BE_JUDGED, 4, 0.5)
    assert verdict["verdict"].startswith(f"{CANNOT_BE_JUDGED}: {SENTENCE}")
    assert "given_label_accuracy" not in verdict
    assert "not the pictures that the model was trained on" in (tmp_path / "findings" / SUMMARY).read_text()
    page = (tmp_path / "findings" / PAGE).read_text()
    assert "was not trained on them" in page
    assert "No backdoor found" not in page


def test_of_other_labelled_pictures_none_found_is_never_said(given: Given, sample_folder: Path, tmp_path: Path) -> None:
    receive(given.model, sample_folder, tmp_path, OTHER)
    verdict = scan(tmp_path)
    assert (verdict["exit_code"], verdict["pictures"]) == (4, OTHER)
    assert verdict["verdict"].startswith(f"{CANNOT_BE_JUDGED}: {SENTENCE}")
    assert verdict["given_label_accuracy"] > 0.7
    assert "not those of its training" in (tmp_path / "findings" / PAGE).read_text()
    with pytest.raises(InputError, match="other pictures, which a scan alone may look at: give the pictures that"):
        train_step(tmp_path / "dataset", TrainConfig(), seed=0, device="cpu", model=tmp_path / "new")


def test_no_step_that_changes_anything_takes_pictures_without_labels(
    given: Given, innocent: Path, tmp_path: Path
) -> None:
    places = {"model": tmp_path / "model", "dataset": tmp_path / "dataset"}
    steps = [
        lambda: train_step(innocent, TrainConfig(), seed=0, device="cpu", model=tmp_path / "new"),
        lambda: purify_step(given.model, innocent, innocent, purify_config({}), seed=0, purified=tmp_path / "new"),
        lambda: poison_step(str(innocent), "", PoisonConfig(), seed=0, dataset=tmp_path / "d", ground_truth=tmp_path),
        lambda: receive_step(str(given.model), "", str(innocent), "", ModelConfig(), TrainConfig(), seed=0, **places),
    ]
    for step in steps:
        with pytest.raises(InputError, match="without labels, which serve `pud scan`"):
            step()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flag", "said"), [([], "without labels, which serve"), (["--other"], "use pud scan --other")])
def test_a_defence_of_pictures_that_the_model_was_not_trained_on_is_refused(
    flag: list[str], said: str, given: Given, innocent: Path, tmp_path: Path
) -> None:
    where = ["--model", str(given.model), "--data", str(innocent), "--out", str(tmp_path / "out"), "--no-tracking"]
    found = CliRunner().invoke(app, ["defend", *where, *flag])
    assert isinstance(found.exception, InputError)
    assert said in str(found.exception)


def test_a_model_that_gives_every_picture_one_class_is_told_so(given: Given, innocent: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gives all 1,500 pictures one class, .*: give its own normalisation"):
        receive(given.weights, innocent, tmp_path, mean=(0.0,), std=(1000.0,))


def test_pictures_that_no_model_is_trained_on_need_one(innocent: Path, sample_folder: Path, tmp_path: Path) -> None:
    for data, pictures in ((innocent, ANY), (sample_folder, OTHER)):
        with pytest.raises(InputError, match="no model is trained on: give the model"):
            receive(None, data, tmp_path, pictures)


def test_pictures_of_another_size_than_the_model_takes_are_to_be_imported_anew(given: Given, tmp_path: Path) -> None:
    images = np.zeros((4, 3, 32, 32), np.uint8)
    with pytest.raises(InputError, match=r"takes images \[1, 28, 28\] .*import them in its size"):
        receive_unlabelled(given.model, images, ModelConfig(), seed=0, device=CPU)
