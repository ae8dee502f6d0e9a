"""What is published beside the code: licence, citation, change log, guides that tell the truth, pins to be checked."""

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import pud
from pud.data.readers import open_split, open_training_split

ROOT = Path(__file__).parents[1]
PAGES = tuple(f"docs/{name}.md" for name in ("architecture", "cluster", "decisions", "method", "usage"))
GUIDES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "manifests/README.md", *PAGES)
README_BYTES, DECISION_LINES = 10_000, 150  # what is longer is read by nobody at three in the morning
SHA256 = "[0-9a-f]{64}"
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # of keepachangelog.com
# by make or by a run, or a part of a data set or of the cluster's folder: not there in a fresh clone
MADE = {"build/", "data/", "train/", "test/", "runs/", "repaired/", "cleaned/", "own/data", "as-it-came/"}
MADE |= {"scan/verdict.json", "scan/report.html", "defended/repaired", "defended/cleaned", "own/model.pt"}


def text(name: str) -> str:
    return (ROOT / name).read_text()


def code_of(guide: str) -> list[str]:
    """Return what a Markdown text sets as code: its spans, and the lines of its blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", guide, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", guide, flags=re.DOTALL))
    return spans + [line for block in blocks for line in block.splitlines()]


def targets_of(code: list[str]) -> set[str]:
    return {found[1] for one in code if (found := re.match(r"make ([a-z-]+)", one))}


def paths_of(code: list[str]) -> set[str]:
    """Return what looks like a path of this repository: a folder with its slash, a file below one, or a guide."""
    shape = re.compile(r"[\w.-]+/([\w.-]+/)*([\w-]*\.\w+)?|[\w-]+\.(md|txt|toml|cff)|Makefile|Dockerfile|LICENSE")
    return {name for one in code if shape.fullmatch(name := one.partition("::")[0])} - MADE


def links_of(page: str) -> list[tuple[Path, str]]:
    """Return (file, anchor) of each link of a page that leads into this repository."""
    folder = (ROOT / page).parent
    linked = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL))
    parts = [target.partition("#") for target in linked if "://" not in target]
    return [(folder / file if file else ROOT / page, anchor) for file, _, anchor in parts]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_tests(code: list[str]) -> list[tuple[str, str]]:
    """Return (file, test) of ``FILE::TEST``; ``::TEST`` is of the file that was named last."""
    found, file = [], ""
    for one in code:
        if match := re.fullmatch(r"(tests/\w+\.py)?::(\w+)", one):
            file = match[1] or file
            found.append((file, match[2]))
    return found


def test_the_licence_is_mit_wherever_it_is_named() -> None:
    assert text("LICENSE").startswith("MIT License\n\nCopyright (c) 2026 the PUD on Kubeflow authors\n")
    assert tomllib.loads(text("pyproject.toml"))["project"]["license"] == "MIT"
    assert yaml.safe_load(text("CITATION.cff"))["license"] == "MIT"


def test_the_change_log_knows_this_version_or_what_is_not_released() -> None:
    sections = re.findall(r"^## \[([^\]]+)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert {pud.__version__, "Unreleased"} & set(sections)
    assert set(re.findall(r"^### (.+)$", text("CHANGELOG.md"), re.MULTILINE)) <= KINDS


def test_the_citation_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert all(citation[key] for key in ("title", "message", "authors"))
    assert citation["version"] == pud.__version__
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Niu", "Sun", "Miao", "Jin", "Hua"]
    assert paper["url"].endswith("2405.17929")


@pytest.mark.parametrize("name", GUIDES)
def test_what_a_guide_names_is_there(name: str) -> None:
    code = code_of(text(name))
    assert targets_of(code) <= set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    places = (ROOT, (ROOT / name).parent)
    assert [path for path in sorted(paths_of(code)) if not any((place / path).exists() for place in places)] == []
    assert [(file.name, anchor) for file, anchor in links_of(name) if not file.exists()] == []
    assert [(file.name, anchor) for file, anchor in links_of(name) if anchor and anchor not in anchors_of(file)] == []


def test_the_readme_and_the_decisions_stay_short() -> None:
    assert len(text("README.md").encode()) <= README_BYTES
    assert len(text("docs/decisions.md").splitlines()) <= DECISION_LINES


def options_of(line: str) -> tuple[str, set[str]]:
    """Return the command of ``pud COMMAND ...`` and its long options."""
    words = line.partition("#")[0].replace("`", " ").split()
    return words[1], {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?", word)}


@pytest.mark.parametrize("name", GUIDES)
def test_every_command_of_a_guide_is_one_with_these_options(name: str) -> None:
    from pud.platform.cli import app

    continued = text(name).replace("\\\n", " ")
    for line in code_of(continued):
        for one in re.split(r"&&|;", line):
            if re.match(r"\s*pud [a-z]+( |$)", one):
                command, options = options_of(one)
                assert command in app.commands, one
                known = {
                    flag for option in app.commands[command].params for flag in option.opts + option.secondary_opts
                }
                assert options - {"--help"} <= known, one


def test_errors_that_name_a_page_name_one_that_is_there() -> None:
    for path in sorted(ROOT.glob("pud/**/*.py")):
        for page in re.findall(r"[\w/]+\.md\b", path.read_text()):
            assert (ROOT / page).is_file(), f"{path} names {page}"
        assert "as the README shows" not in path.read_text(), path


def test_the_lines_that_write_a_data_set_write_one_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", text("docs/usage.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        np.save(f"{split}-images.npy", np.zeros((4, 3, 8, 8), np.uint8))
        np.save(f"{split}-labels.npy", np.array([0, 1, 1, 0]))
    exec(block, {})  # noqa: S102
    assert open_split(Path("given-data/train")).classes == ("cat", "dog")
    assert open_training_split(Path("given-data")).images.shape == (4, 3, 8, 8)


def test_a_guide_gives_one_command_to_set_up_and_one_to_test_and_says_what_may_be_done_with_a_stranger_s_file() -> None:
    assert code_of(text("CONTRIBUTING.md"))[-2:] == [
        "make setup   # .venv with everything pinned in constraints.txt",
        "make test    # lint, types and tests: must pass before every commit",
    ]
    assert {
        "pud/base/files.py",
        "pud/artifacts/model.py",
        "pud/artifacts/detection.py",
        "pud/artifacts/evidence.py",
        "pud/artifacts/storage.py",
        "pud/reporting/tracking.py",
    } <= (paths_of(code_of(text("SECURITY.md"))))


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = named_tests(code_of(text("SECURITY.md")))
    assert len(named) > 20
    defined = {
        file: {node.name for node in ast.parse(text(file)).body if isinstance(node, ast.FunctionDef)}
        for file in {file for file, _ in named}
    }
    assert [f"{file}::{name}" for file, name in named if name not in defined[file]] == []


def test_the_checks_of_guides_can_fail() -> None:
    code = code_of(
        "`make nothing`, `pud/nothing.py`, `nothing/`, `NOTHING.md`, `tests/a.py::one`, `::two`, `pud-model/1`"
    )
    assert targets_of(code) == {"nothing"}
    assert paths_of(code) == {"pud/nothing.py", "nothing/", "NOTHING.md", "tests/a.py"}
    assert named_tests(code) == [("tests/a.py", "one"), ("tests/a.py", "two")]


# ------------------------------------------------------------------------------------------------------------- image


def locked(variant: str) -> dict[str, str]:
    """Return {package: its whole line}."""
    lines = [line for line in text(f"image/{variant}.lock").splitlines() if not line.startswith("#")]
    return {line.partition("==")[0]: line for line in lines}


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_every_package_of_the_image_is_locked_to_a_version_and_a_file(variant: str) -> None:
    lines = locked(variant)
    assert {"torch", "kfp", "mlflow", "setuptools"} <= lines.keys()
    shape = re.compile(rf"[a-z0-9_.-]+==[\w.+]+ --hash=sha256:{SHA256}")
    assert [line for line in lines.values() if not shape.fullmatch(line)] == []


def test_the_variants_share_the_file_of_every_package_but_torch() -> None:
    """So the cpu variant's are PyPI's too, wherever they were taken from."""
    cpu, cuda = locked("cpu"), locked("cuda")
    assert {name for name, line in cpu.items() if cuda[name] != line} == {"torch"}


def test_a_lock_is_what_pip_reports_without_pud_itself() -> None:
    def item(name: str, version: str, digest: str) -> dict[str, Any]:
        archive = {"hashes": {"sha256": digest}} if digest else {}
        return {"metadata": {"name": name, "version": version}, "download_info": {"archive_info": archive}}

    lock = runpy.run_path(str(ROOT / "image" / "lock.py"))["locked"]
    report = [item("Torch", "2.13.0+cpu", "ab"), item("pud", "0.1.0", ""), item("numpy", "2.4.6", "cd")]
    assert lock(report) == ["numpy==2.4.6 --hash=sha256:cd", "torch==2.13.0+cpu --hash=sha256:ab"]


def test_only_the_torch_of_the_cpu_variant_may_come_from_elsewhere_than_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = runpy.run_path(str(ROOT / "image" / "lock.py"))["sources"]
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "TORCH_WHEELS", "TORCH_INDEX"):
        monkeypatch.setenv(name, f"given {name}")
    elsewhere = {"PIP_FIND_LINKS": "given TORCH_WHEELS", "PIP_EXTRA_INDEX_URL": "given TORCH_INDEX"}
    assert sources("cpu") == elsewhere | {"PIP_CONFIG_FILE": "/dev/null"}
    assert sources("cuda") == {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": "/dev/null"}


def would_run(*arguments: str) -> str:
    """Return the commands that make would run."""
    command = ["make", "--dry-run", "--old-file=.venv/.ready", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_wheels_are_downloaded_under_the_lock_s_hashes_and_so_is_what_builds_them() -> None:
    (line,) = (
        line for line in would_run("--always-make", "build/wheels/cpu/.ready").splitlines() if "pip wheel" in line
    )
    for option in ("--require-hashes", "--build-constraint image/cpu.lock", "--requirement image/cpu.lock"):
        assert option in line


def test_what_the_pipeline_is_compiled_for_reaches_the_compiler() -> None:
    given = ["ROUNDS=5", "DATA_GIB=16", "DATA_CACHE_PVC=cache"]
    (line,) = (line for line in would_run("compile", *given).splitlines() if "-m pipelines." in line)
    assert set(given) <= set(line.split())


def test_the_image_starts_from_a_digest_and_downloads_nothing_while_it_is_built() -> None:
    dockerfile = text("Dockerfile")
    assert re.search(rf"^ARG BASE=python:3\.11-slim-bookworm@sha256:{SHA256}$", dockerfile, re.MULTILINE)
    assert {line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")} == {"${BASE}"}
    installs = [line for line in dockerfile.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert [line for line in installs if "--no-index" not in line] == []
    assert not re.search(r"\b(apt|apt-get|curl|wget)\b|^ADD ", dockerfile, re.MULTILINE)


INVENTORY: dict[str, Any] = {
    "interpreter": "3.11.16",
    "release": "bookworm",
    "python": [["torch", "2.13.0+cpu"], ["Typing_Extensions", "4.16.0"]],
    "debian": [["libstdc++6", "12.2.0-14+deb12u1", "amd64"], ["zlib1g", "1:1.2.13.dfsg-1", "amd64"]],
}


def test_the_bill_of_materials_names_python_and_debian_packages_and_the_interpreter() -> None:
    bill = runpy.run_path(str(ROOT / "image" / "sbom.py"))["bill_of"](INVENTORY, "pud:abc")
    assert [part["purl"] for part in bill["components"]] == [
        "pkg:generic/cpython@3.11.16",
        "pkg:pypi/torch@2.13.0%2Bcpu",
        "pkg:pypi/typing-extensions@4.16.0",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm",
        "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=bookworm",
    ]
    assert [part["name"] for part in bill["components"][-2:]] == ["libstdc++6", "zlib1g"]
    assert bill["metadata"]["component"] == {"type": "container", "bom-ref": "pud:abc", "name": "pud", "version": "abc"}


@pytest.mark.parametrize("wrong", [{"interpreter": 3.11}, {"python": [["torch", "1"]] * 2}])
def test_a_bill_that_the_schema_of_cyclonedx_refuses_is_not_written(wrong: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    command = [sys.executable, "image/sbom.py", "pud:abc", str(out)]
    good, bad = (
        subprocess.run(command, input=json.dumps(given), cwd=ROOT, capture_output=True, text=True).returncode
        for given in (INVENTORY, INVENTORY | wrong)
    )
    assert (good, bad) == (0, 1)
    assert len(json.loads(out.read_text())["components"]) == 5


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no Debian system")
def test_the_inventory_of_a_debian_system_is_what_the_bill_takes() -> None:
    done = subprocess.run([sys.executable, "image/inventory.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    inventory = json.loads(done.stdout)
    assert inventory.keys() == INVENTORY.keys()
    assert "libc6" in {name for name, _, _ in inventory["debian"]}
    assert "torch" in {name for name, _ in inventory["python"]}
    assert "pud" not in {name for name, _ in inventory["python"]}
