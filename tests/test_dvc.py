"""DVC: the data set is versioned under the digest that ``pud`` computes, and dvc.yaml runs the same steps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from pud.data.images import folder_digest

DVC = Path(sys.executable).with_name("dvc")
ROOT = Path(__file__).parents[1]


def dvc(*arguments: str, cwd: Path) -> str:
    path = os.pathsep.join([str(DVC.parent), os.environ["PATH"]])  # the stages call pud
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": path}
    done = subprocess.run([DVC, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_digest_is_the_md5_that_dvc_add_writes(sample_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_folder, tmp_path / "data")
    dvc("init", "--no-scm", "--quiet", cwd=tmp_path)
    dvc("add", "--quiet", "data", cwd=tmp_path)
    (pointer,) = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"]
    assert folder_digest(tmp_path / "data") == pointer["md5"]


def test_repro_runs_every_step_once_and_presents_the_same_report(sample_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_folder, tmp_path / "data")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    small = {"train_size": 1000, "pgd_images": 50, "autoattack_images": 0}
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**parameters, **small}))
    dvc("init", "--no-scm", "--quiet", cwd=tmp_path)
    dvc("repro", cwd=tmp_path)
    report = json.loads((tmp_path / "runs/dvc/report/report.json").read_text())
    assert len(report["rounds"]) == 2
    shown = json.loads(dvc("metrics", "show", "--json", cwd=tmp_path))
    (metrics,) = shown[""]["data"].values()
    assert metrics["data"]["clean_accuracy"] == report["purified"]["clean_accuracy"]
    dvc("plots", "show", "--out", "plots", cwd=tmp_path)
    assert "clean_accuracy" in (tmp_path / "plots" / "index.html").read_text()
    assert "didn't change" in dvc("repro", cwd=tmp_path)


def test_the_pipeline_and_dvc_have_the_same_number_of_rounds() -> None:
    from pud.defences.pud import DEFAULT_PRESET, PRESETS

    (_, inner) = yaml.safe_load((ROOT / "dvc.yaml").read_text())["vars"]
    assert len(inner["rounds"]) == len(PRESETS[DEFAULT_PRESET].keep)
