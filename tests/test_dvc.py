"""DVC: the data set is versioned under the digest that ``pud`` computes, and dvc.yaml runs the same steps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pud.data.images import folder_digest
from pud.data.readers.npy import write_split
from pud.platform.fetch import CLASSES

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
DVC = "import json, sys; from dvc.cli import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"


def dvc(*commands: str, cwd: Path) -> str:
    """Give DVC one command after the other, in one process as it takes seconds to start, and return what it says."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])  # the stages call pud
    given = [sys.executable, "-c", DVC, json.dumps([command.split() for command in commands])]
    options = {"env": {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": path}, "capture_output": True, "text": True}
    done = subprocess.run(given, cwd=cwd, timeout=600, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def versioned(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set that DVC versions."""
    folder = tmp_path_factory.mktemp("dvc")
    for split, count in (("train", 300), ("test", 60)):
        images, labels = (np.load(sample_folder / split / f"{name}.npy")[:count] for name in ("images", "labels"))
        write_split(folder / "data" / split, images, labels, classes=CLASSES, name="sample", source="Fashion-MNIST")
    dvc("init --no-scm --quiet", "add --quiet data", cwd=folder)
    return folder


def test_our_digest_is_the_md5_that_dvc_add_writes(versioned: Path) -> None:
    (pointer,) = yaml.safe_load((versioned / "data.dvc").read_text())["outs"]
    assert folder_digest(versioned / "data") == pointer["md5"]


def test_repro_runs_every_step_once_and_presents_the_same_report(versioned: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", versioned)
    small = {"train_size": 300, "pgd_images": 10, "autoattack_images": 0}
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    (versioned / "params.yaml").write_text(yaml.safe_dump({**parameters, **small}))
    dvc("repro", cwd=versioned)
    report = json.loads((versioned / "runs/dvc/report/report.json").read_text())
    assert len(report["rounds"]) == 2
    said = dvc("metrics show --json", "plots show --out plots", "repro", cwd=versioned)
    (metrics,) = json.loads(said.splitlines()[0])[""]["data"].values()
    assert metrics["data"]["clean_accuracy"] == report["purified"]["clean_accuracy"]
    assert "clean_accuracy" in (versioned / "plots" / "index.html").read_text()
    assert "didn't change" in said


def test_the_pipeline_and_dvc_have_the_same_number_of_rounds() -> None:
    from pud.defences.pud import DEFAULT_PRESET, PRESETS

    (_, inner) = yaml.safe_load((ROOT / "dvc.yaml").read_text())["vars"]
    assert len(inner["rounds"]) == len(PRESETS[DEFAULT_PRESET].keep)
