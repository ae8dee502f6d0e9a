"""DVC: the data set is versioned under the digest that ``pud`` computes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pud.data import folder_digest

DVC = Path(sys.executable).with_name("dvc")
pytestmark = pytest.mark.skipif(not DVC.is_file(), reason="dvc is not installed")


def dvc(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([DVC, *arguments], cwd=cwd, env=environment, check=True, capture_output=True, timeout=120)


def test_our_digest_is_the_md5_that_dvc_add_writes(sample_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_folder, tmp_path / "data")
    dvc("init", "--no-scm", "--quiet", cwd=tmp_path)
    dvc("add", "--quiet", "data", cwd=tmp_path)
    (pointer,) = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"]
    assert folder_digest(tmp_path / "data") == pointer["md5"]
