"""A model and pictures from outside, by the commands that a newcomer types: import, scan, defend."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pud.artifacts.detection import load_detection
from pud.artifacts.model import load_model
from pud.artifacts.verdict import load_verdict
from pud.attacks.poisoning import PoisonConfig
from pud.base.config import from_mapping
from pud.base.errors import InputError
from pud.data.readers import open_split
from pud.defences.pud import purify_config
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.platform.cli import app
from pud.platform.local_run import newest
from pud.steps.detect import detect_step
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

COLOURS = Path(__file__).parent / "data" / "cifar10-sample"
PUD = Path(sys.executable).with_name("pud")
PROBE: dict[str, Any] = {"noise_draws": 1, "mix_draws": 1, "steps": 1, "splits": 0, "inversion_steps": 0}
PURIFY: dict[str, Any] = {"epochs": [1], "steps": 1}
EVALUATE: dict[str, Any] = {"pgd_images": 5, "pgd_steps": 2, "autoattack_images": 0, "masking_images": 0}
TINY = {"probe_settings": PROBE}
TINY_DEFENCE = {**TINY, "purify_settings": PURIFY, "evaluate_settings": EVALUATE}
SECONDS = 600


def pud(folder: Path, *words: str, settings: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, where all that it writes should be."""
    parameters = [part for key, value in (settings or {}).items() for part in ("-p", f"{key}={json.dumps(value)}")]
    command = [str(PUD), *words, *parameters]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)


@dataclass(frozen=True)
class Given:
    """A poisoned data set, and a model that learned it."""

    dataset: Path
    model: Path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as the Hugging Face hub keeps it, imported."""
    folder = tmp_path_factory.mktemp("imported")
    done = pud(folder, "import", str(COLOURS), "--out", "data")
    assert done.returncode == 0, done.stderr
    return folder / "data"


@pytest.fixture(scope="module")
def given(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    planted = PoisonConfig("badnets", poison_rate=0.1, train_size=600)
    truth = {"dataset": folder / "data", "ground_truth": folder / "truth"}
    poison_step(f"file:{imported}", "", planted, seed=0, **truth)
    enough = TrainConfig(epochs=15, batch_size=32)
    train_step(folder / "data", enough, seed=0, device="cpu", model=folder / "model")
    return Given(folder / "data", folder / "model")


@pytest.fixture(scope="module")
def scanned(given: Given, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A scan of nothing but weights and data: the network is not named."""
    folder = tmp_path_factory.mktemp("scan")
    weights = str(given.model / "model.safetensors")
    done = pud(folder, "scan", "--model", weights, "--data", str(given.dataset), "--out", "scan", settings=TINY)
    return folder / "scan", done


@pytest.fixture(scope="module")
def defended(given: Given, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("defence")
    where = ("--model", str(given.model), "--data", str(given.dataset), "--out", "defended", "--no-tracking")
    gates = {"gate_settings": {"largest_accuracy_drop": 1, "judged": False}}
    return folder / "defended", pud(folder, "defend", *where, settings=TINY_DEFENCE | gates)


def test_a_scan_exits_as_its_verdict_says_and_leaves_a_page(
    scanned: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = scanned
    verdict = load_verdict(out)
    assert done.returncode == verdict["exit_code"], done.stderr
    assert verdict["verdict"] in done.stdout
    assert {"verdict.json", "report.html", "kfp.log"} <= {path.name for path in out.iterdir()}
    assert not (out / "repaired").exists()


def test_the_network_is_found_by_its_weights(scanned: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert "resnet8" in scanned[1].stdout


def test_a_defence_leaves_what_may_be_shipped(defended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = defended
    verdict = load_verdict(out)
    assert done.returncode == verdict["exit_code"], done.stderr
    _, card = load_model(out / "repaired", torch.device("cpu"))
    assert card.training["rounds_done"] == 2
    assert (out / "repaired" / "README.md").is_file()
    cleaned = open_split(out / "cleaned" / "train")
    assert len(cleaned.labels) <= verdict["images"]
    assert "clean acc" in done.stdout
    assert "attack success" not in done.stdout


def test_a_defence_is_the_rehearsal_s_own_steps_digest_for_digest(
    given: Given, defended: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Same model, data and seed: the same detections and the same model, step by step or through the pipeline."""
    model, probe, found = given.model, None, None
    probing, purifying = from_mapping(ProbeConfig, PROBE), purify_config(PURIFY)
    infected = tmp_path / "probe-0"
    for index in range(3):
        probe, found = tmp_path / f"probe-{index}", tmp_path / f"detection-{index}"
        probe_step(model, given.dataset, probing, seed=0, device="cpu", probe_folder=probe)
        detect_step(infected, probe, DetectConfig(), detection=found)
        if index < 2:
            purified = tmp_path / f"model-{index}"
            purify_step(model, given.dataset, found, purifying, seed=0, device="cpu", purified=purified)
            model = purified
    theirs = newest(defended[0], "detection")
    assert found is not None
    assert theirs is not None
    ours, same = load_detection(found)[0], load_detection(theirs)[0]
    assert np.array_equal(ours.verdict, same.verdict)
    assert np.array_equal(ours.suspicion, same.suspicion)
    mine, repaired = (load_model(one, torch.device("cpu"))[0].state_dict() for one in (model, defended[0] / "repaired"))
    assert all(torch.equal(tensor, repaired[name]) for name, tensor in mine.items())


def test_a_finished_scan_is_not_done_again(
    given: Given, scanned: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    out, first = scanned
    weights = str(given.model / "model.safetensors")
    again = pud(out.parent, "scan", "--model", weights, "--data", str(given.dataset), "--out", "scan", settings=TINY)
    assert again.returncode == first.returncode
    log = re.sub(r"\x1b\[\d+m", "", (out / "kfp.log").read_text())
    assert set(re.findall(r"Executing task '([\w-]+)'", log)) == set()


def test_without_a_model_one_is_trained_and_what_it_cannot_know_is_not_said(imported: Path, tmp_path: Path) -> None:
    settings = TINY | {"train_settings": {"epochs": 1, "batch_size": 64}}
    done = pud(tmp_path, "scan", "--data", str(imported), "--out", "scan", settings=settings)
    verdict = load_verdict(tmp_path / "scan")
    assert done.returncode == verdict["exit_code"], done.stderr
    assert "-- receive" in done.stdout
    assert verdict["verdict_code"] != "none found", "nobody can say that after one epoch on 600 pictures"


def refused(*words: str) -> str:
    """Return the sentence with which a command refuses its input."""
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, InputError), found.output
    return str(found.exception)


def test_a_model_that_is_not_there_is_named_before_anything_is_spent(given: Given, tmp_path: Path) -> None:
    said = refused("scan", "--model", "no.pt", "--data", str(given.dataset), "--out", str(tmp_path / "out"))
    assert "no model at no.pt" in said
    assert not (tmp_path / "out").exists()


def test_a_folder_of_pictures_is_told_to_be_imported(given: Given, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "pictures" / "cat" / "1.png").write_bytes(b"")
    said = refused(
        "scan", "--model", str(given.model), "--data", str(tmp_path / "pictures"), "--out", str(tmp_path / "o")
    )
    assert "pud import" in said


def test_a_folder_that_holds_something_else_is_not_written_into(given: Given, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    said = refused("scan", "--model", str(given.model), "--data", str(given.dataset), "--out", str(tmp_path))
    assert "give a new folder" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--mean", "0.5,x", "numbers"), ("--architecture", "resnet9", "architecture"), ("--std", "0.5", "mean and std")],
)
def test_what_is_said_of_the_model_is_checked_before_anything_is_spent(
    option: str, value: str, word: str, given: Given, tmp_path: Path
) -> None:
    where = ("--model", str(given.model), "--data", str(given.dataset), "--out", str(tmp_path / "out"))
    assert word in refused("scan", *where, option, value)
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_digest_is_refused_with_both(given: Given, tmp_path: Path) -> None:
    where = ("--model", str(given.model / "model.safetensors"), "--data", str(given.dataset))
    done = pud(tmp_path, "scan", *where, "--out", "out", "-p", f"model_digest={'0' * 64}")
    assert done.returncode == 2
    assert "0" * 64 in done.stderr
