"""The library needs nine packages and what these require: it is imported and defends where nothing else is."""

import json
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NEEDED = ("torch", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "safetensors", "tqdm", "click")
NOT_THERE = ("foolbox", "pyautoattack", "matplotlib", "mlflow", "kfp", "minio", "kubernetes", "yaml", "art", "dvc")


def closure(names: tuple[str, ...]) -> set[str]:
    """Return these distributions and all that they require here, extras left out."""
    todo, found = list(names), set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found.add(name)
            wanted = map(Requirement, metadata.requires(name) or ())
            todo += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def link(distribution: str, folder: Path) -> None:
    """Link what a distribution has put into site-packages into the folder; what lies beside it, programs, is left."""
    installed = Path(sysconfig.get_path("purelib"))
    for top in {file.parts[0] for file in metadata.files(distribution) or ()} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(installed / top)


@pytest.fixture(scope="module")
def bare(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what tests/bare_defence.py says of an environment that holds the needed packages alone."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("packages", "work"):
        (folder / name).mkdir()
    for distribution in closure(NEEDED):
        link(distribution, folder / "packages")
    # -I and -S: neither the environment's packages nor its variables nor the folder that the file lies in
    command = [sys.executable, "-I", "-S", ROOT / "tests/bare_defence.py", folder / "packages", ROOT, sample_folder]
    done = subprocess.run([*command, folder / "work"], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_nothing_else_is_in_the_environment(bare: dict[str, Any]) -> None:
    roots = {name.partition(".")[0] for name in bare["loaded"]}
    assert {"torch", "sklearn", "pandas", "click"} <= roots
    assert roots & set(NOT_THERE) == set()
    assert [
        name for name in NOT_THERE if find_spec(name) is None
    ] == []  # of this environment, where it would be loaded


def test_every_room_of_the_library_can_be_imported(bare: dict[str, Any]) -> None:
    rooms = {path.parent.name for path in (ROOT / "pud").glob("*/__init__.py")}
    assert rooms <= {name.split(".")[1] for name in bare["modules"]}
    assert len(bare["modules"]) > 50


def test_a_defence_runs_from_poison_to_report(bare: dict[str, Any]) -> None:
    report = bare["report"]
    assert report["purified"]["clean_accuracy_n"] == 400
    assert 0 <= report["purified"]["detection"]["true_positive_rate"] <= 1


def test_robust_accuracy_says_whose_attack_it_was_measured_by(bare: dict[str, Any]) -> None:
    (record,) = bare["report"]["purified"]["robust_accuracy"]
    assert record["attack"] == "PGD of pud"
    assert 0 <= record["value"] <= 1


def test_what_cannot_be_measured_names_what_to_install(bare: dict[str, Any]) -> None:
    assert "pip install pyautoattack" in bare["refused"]


def test_a_command_that_needs_more_says_what(bare: dict[str, Any]) -> None:
    assert bare["run"].startswith("pud: error: this needs the Python package ")
    assert "Traceback" not in bare["run"]


def test_the_package_asks_for_these_and_for_no_newer_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {one.name: one for one in map(Requirement, project["dependencies"])}
    assert set(NEEDED) <= wanted.keys()
    assert "2.11.0" in wanted["torch"].specifier
    assert "2.10.0" not in wanted["torch"].specifier
