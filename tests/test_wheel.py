"""The wheel in an environment without a checkout: it holds what a run needs, and installs nothing beside ``pud``."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from pud import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "pud", "components", "pipelines")
PYTHONS = ("3.11", "3.12", "3.13")
NOWHERE = "http://127.0.0.1:9"
TINY = {
    "train_size": 200,
    "train_settings": {"epochs": 1},
    "probe_settings": {
        "noise_draws": 1,
        "mix_draws": 1,
        "steps": 1,
        "splits": 0,
        "inversion_steps": 0,
        "adversarial_images": 50,
    },
    "purify_settings": {"epochs": [1], "steps": 1},
    "evaluate_settings": {
        "pgd_images": 1,
        "pgd_steps": 1,
        "autoattack_images": 0,
        "masking_images": 1,
        "drift_images": 10,
    },
}
RUN_SECONDS = 600  # of which it takes less than one tenth where nothing else runs


@dataclass(frozen=True)
class Newcomer:
    """An environment into which the wheel was installed, and an empty folder to be in."""

    wheel: Path
    environment: Path
    folder: Path

    @property
    def packages(self) -> Path:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found

    def types(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KFP_", "MLFLOW_"))}
        program = self.environment / "bin" / command[0]
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.folder,
            env={**keep, "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """Build the wheel from a copy, and install it where .venv's packages, but not its editable pud, can be imported."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    shutil.rmtree(source)
    newcomer = Newcomer(wheel, environment, folder / "empty")
    # a path in a .pth file is searched last, and the .pth files that lie in it are not read: no editable install
    (newcomer.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    newcomer.folder.mkdir()
    return newcomer


def test_nothing_but_pud_is_installed(newcomer: Newcomer) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(newcomer.wheel).namelist()}
    assert tops == {"pud", f"pud-{__version__}.dist-info"}


def test_the_wheel_holds_every_module_the_components_and_every_compiled_pipeline(newcomer: Newcomer) -> None:
    held = set(zipfile.ZipFile(newcomer.wheel).namelist())
    needed = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pud").rglob("*.py")} | {"pud/py.typed"}
    for folder in ("components", "pipelines"):
        needed |= {f"pud/bundled/{folder}/{path.name}" for path in (ROOT / folder).iterdir() if path.is_file()}
    assert needed <= held


def test_its_metadata_allow_every_python_that_is_promised(newcomer: Newcomer) -> None:
    with zipfile.ZipFile(newcomer.wheel) as wheel:
        metadata = Parser().parsestr(wheel.read(f"pud-{__version__}.dist-info/METADATA").decode())
    allowed = SpecifierSet(metadata["Requires-Python"])
    assert all(f"{python}.0" in allowed for python in PYTHONS)
    assert "3.10.0" not in allowed


def test_no_module_comes_from_the_checkout(newcomer: Newcomer) -> None:
    files_of = "[getattr(module, '__file__', None) for module in sys.modules.values()]"
    code = f"import json, sys, pud.platform.cli, pud.platform.local_run; print(json.dumps({files_of}))"
    done = newcomer.types("python", "-c", code)
    files = [Path(file) for file in json.loads(done.stdout) if file]
    assert Path(newcomer.packages / "pud/platform/cli.py") in files
    inside = [
        file for file in files if ROOT in file.parents and Path(sysconfig.get_path("purelib")) not in file.parents
    ]
    assert inside == []


def test_its_help_is_there_with_the_first_command_to_type(newcomer: Newcomer) -> None:
    done = newcomer.types("pud", "--help")
    assert done.returncode == 0, done.stderr
    assert "pud fetch" in done.stdout


def test_a_run_needs_nothing_beside_the_wheel(newcomer: Newcomer, sample_folder: Path) -> None:
    (newcomer.folder / "components.py").write_text("raise SystemExit('a stranger is imported')")
    parameters = [part for key, value in TINY.items() for part in ("-p", f"{key}={json.dumps(value)}")]
    tiny = ["--name", "tiny", "--no-tracking", "--data-uri", str(sample_folder), *parameters]
    done = newcomer.types("pud", "run", *tiny, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr
    report = json.loads((newcomer.folder / "runs" / "tiny" / "report.json").read_text())
    assert report["git_commit"] == f"pud-{__version__}"
    assert str(ROOT) not in (newcomer.folder / "runs" / "tiny" / "kfp.log").read_text().replace(sys.prefix, "")


def test_without_data_a_run_says_what_data_are(newcomer: Newcomer) -> None:
    done = newcomer.types("pud", "run", "--no-tracking")
    assert done.returncode == 2
    assert "pud fetch fashion-mnist" in done.stderr


@pytest.mark.parametrize("command", [("submit",), ("doctor",)])
def test_what_asks_a_cluster_gets_as_far_as_its_address(command: tuple[str, ...], newcomer: Newcomer) -> None:
    done = newcomer.types("pud", *command, "--endpoint", NOWHERE)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2)
    assert "127.0.0.1:9" in said
    assert "Traceback" not in said
    assert "pud.yaml" not in said


def parsed_by(python: str) -> Path:
    """Return a real interpreter of that version; skip where there is none. pyenv's shims may lead to another."""
    own = [Path(sys.base_prefix) / "bin" / f"python{python}"]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{python}.*/bin/python{python}")
    onpath = filter(None, [shutil.which(f"python{python}")])
    for candidate in (*own, *pyenv, *map(Path, onpath)):
        asked = (
            subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
            if candidate.exists()
            else None
        )
        if asked and asked.stdout.startswith(f"Python {python}."):
            return candidate
    pytest.skip(f"there is no Python {python} here")


@pytest.mark.parametrize("python", PYTHONS)
def test_all_sources_are_of_the_language_of(python: str) -> None:
    files = [
        str(path) for folder in ("pud", "components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    assert len(files) > 50
    code = "import sys\nfor file in sys.argv[1:]: compile(open(file, 'rb').read(), file, 'exec')"
    interpreter = parsed_by(python)
    done = subprocess.run([interpreter, "-W", "error", "-c", code, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
