"""The container image on a real Docker daemon: what it holds, what it does not, and the whole pipeline inside it.

`make image-test` builds it and names it in IMAGE; without it these tests are not run.
"""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import time
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
import urllib3
from servers import free_port

from pipelines.pud import COMPILED
from pipelines.rounds import ROUNDS
from pud.platform.local_run import without_retries
from pud.reporting.report import load_report

ROOT = Path(__file__).parent.parent
IMAGE, DOCKER = os.environ.get("IMAGE", ""), os.environ.get("DOCKER", "docker")
MAXIMUM_BYTES = 3_000_000_000
LISTED = "${Package}\\t${Version}\\t${Architecture}\\n"
SMALL: dict[str, Any] = {
    "train_size": 600,
    "data_digest": "",
    "train_settings": {"epochs": 2},
    "probe_settings": {"noise_draws": 1, "mix_draws": 1, "steps": 1},
    "purify_settings": {"epochs": [1], "steps": 1},
    "evaluate_settings": {"pgd_images": 50, "pgd_steps": 3, "autoattack_images": 2},
    "tracking": {"off": True},
}
CHILD = """
import json, sys
import docker
from kfp import components, local
job = json.loads(sys.argv[1])
mount = docker.types.Mount("/data", job["data"], type="bind", read_only=True)
local.init(local.DockerRunner(network_mode="host", mounts=[mount]), pipeline_root=job["root"], raise_on_error=True)
components.load_component_from_file(job["pipeline"])(**job["arguments"])
"""

pytestmark = pytest.mark.containers


def docker(*arguments: str) -> str:
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inside(*command: str) -> str:
    return docker("run", "--rm", "--network", "host", IMAGE, *command)


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Every regular file of the image."""
    return docker("run", "--rm", "--user", "0", "--network", "host", IMAGE, "find", "/", "-xdev", "-type", "f").split()


def locked(variant: str) -> dict[str, str]:
    lines = (ROOT / "image" / f"{variant}.lock").read_text().splitlines()
    pairs = (line.split()[0].split("==") for line in lines if not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_image_is_small_and_names_its_commit() -> None:
    (about,) = json.loads(docker("image", "inspect", IMAGE))
    assert about["Size"] < MAXIMUM_BYTES
    assert about["Config"]["Labels"]["org.opencontainers.image.revision"] == IMAGE.rpartition(":")[2]


def test_a_run_knows_the_commit_of_its_image_and_a_pod_the_pipeline() -> None:
    assert inside("printenv", "PUD_COMMIT").strip() == IMAGE.rpartition(":")[2]
    assert inside("cat", "pipelines/pud.yaml") == COMPILED.read_text()


def test_the_cpu_image_has_a_torch_without_cuda() -> None:
    assert inside("python3", "-c", "import torch; print(torch.version.cuda)").strip() == "None"


def test_it_runs_as_user_1000_and_can_write_only_its_own() -> None:
    assert inside("id", "-u").strip() == "1000"
    writable = inside(
        "sh", "-c", "find /opt/pud -writable -not -type l | head -1; test -w /var/cache/pud && echo cache"
    )
    assert writable.split() == ["cache"]


def test_every_component_and_the_command_can_be_imported() -> None:
    names = [f"components.{path.stem}" for path in (ROOT / "components").glob("[a-z]*.py")]
    inside("python3", "-c", "import " + ", ".join([*names, "mlflow", "psycopg2", "boto3"]))
    assert "purify" in inside("pud", "--help")


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    """The bill of materials that was written with the image."""
    return json.loads((ROOT / "build" / "sbom.json").read_text())


def purls(bill: dict[str, Any], kind: str) -> list[str]:
    return [part["purl"] for part in bill["components"] if part["purl"].startswith(f"pkg:{kind}/")]


def test_it_holds_what_the_lock_file_says_and_the_bill_of_materials_too(bill: dict[str, Any]) -> None:
    script = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    held = {normal(name): version for name, version in json.loads(inside("python3", "-c", script)).items()}
    held.pop("pud")
    for tool in ("pip", "setuptools"):
        if tool not in locked("cpu"):
            held.pop(tool, None)
    assert held == locked("cpu")
    listed = {purl.removeprefix("pkg:pypi/") for purl in purls(bill, "pypi")}
    assert {f"{name}@{version.replace('+', '%2B')}" for name, version in locked("cpu").items()} <= listed
    beside = {name.partition("@")[0] for name in listed} - locked("cpu").keys()
    assert beside <= {"pip", "setuptools", "wheel"}  # the base image's own


def test_the_bill_of_materials_is_this_image_s_and_lists_its_debian_packages_and_interpreter(
    bill: dict[str, Any],
) -> None:
    assert bill["metadata"]["component"]["bom-ref"] == IMAGE
    listed = [line.split("\t") for line in inside("dpkg-query", "--show", "--showformat", LISTED).splitlines()]
    assert len(listed) > 50
    assert sorted(purls(bill, "deb")) == sorted(
        f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro=bookworm".replace("+", "%2B")
        for name, version, architecture in listed
    )
    version = inside("python3", "-c", "import platform; print(platform.python_version())").strip()
    assert purls(bill, "generic") == [f"pkg:generic/cpython@{version}"]


def test_no_compiler_cache_or_wheel_of_the_build_is_left(files: list[str]) -> None:
    left = [name for name in files if re.search(r"/(gcc|cc|g\+\+|make)$|/\.cache/|^/src/|^/wheels/|__pycache__", name)]
    left = [name for name in left if name.startswith(("/opt", "/home", "/src", "/wheels", "/root", "/usr/bin"))]
    assert left == []


def test_the_scan_of_every_file_s_content_found_nothing(files: list[str]) -> None:
    result = json.loads((ROOT / "build" / "scan.json").read_text())
    assert result["found"] == []
    assert 0 < result["bytes"] < MAXIMUM_BYTES
    assert result["files"] > len(files) / 2


def test_the_scan_finds_what_it_looks_for() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    kind, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, kind, serialization.NoEncryption())
    library = "opt/pud/lib/python3.11/site-packages"
    files = {
        "etc/app.conf": b"url=https://somebody:opensesame@host/",
        f"{library}/pud/a.py": b"'postgresql://somebody:opensesame@host/db'",
        f"{library}/other/docs.txt": b"such as https://user:password@host/",
        "root/.aws/credentials": b"aws_access_key_id = AKIA" + b"ABCDEFGH12345678",
        f"{library}/other/example": b"AKIAIOSFODNN7EXAMPLE",
        f"{library}/other/test": b"KEY = " + key,
        "usr/lib/x86_64-linux-gnu/libgnutls.so.30.34.3": b"\x7fELF" + key,
        "home/pud/renamed": (ROOT / "tests/data/fashion-mnist-sample.npz").read_bytes(),
        "opt/pud/app/harmless.py": b"f'https://{user}:{password}@host' and http://host:80/a@b",
    }
    export = io.BytesIO()
    with tarfile.open(fileobj=export, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    export.seek(0)
    scanner = runpy.run_path(str(ROOT / "image" / "scan.py"))
    result = scanner["scan"](export, scanner["digests"](ROOT / "tests" / "data"))
    assert (result["files"], result["bytes"]) == (len(files), sum(map(len, files.values())))
    assert [found.split(" holds ")[0] for found in result["found"]] == [
        "etc/app.conf",
        f"{library}/pud/a.py",
        "root/.aws/credentials",
        f"{library}/other/test",
        "home/pud/renamed",
    ]


def test_no_secret_and_no_data_are_in_it(files: list[str]) -> None:
    ours = [name for name in files if name.startswith(("/opt/pud/app", "/home", "/src", "/var/cache/pud"))]
    assert {Path(name).suffix for name in ours if not Path(name).name.startswith(".bash")} <= {".py", ".yaml", ""}
    suspicious = re.compile(
        r"\.(env|pem|key|npz|npy|safetensors|db)$|/(\.netrc|pip\.conf|credentials|id_rsa)$|fashion-mnist"
    )
    foreign = re.compile(r"^/(usr|etc/ssl)/|/site-packages/(?!pud/)")  # the base image's and the libraries' own
    assert [name for name in files if suspicious.search(name) and not foreign.search(name)] == []
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE)
    assert not re.search(r"(?i)(password|secret|token)=", history)


def test_the_cuda_lock_resolves_and_differs_by_the_gpu_s_libraries_only() -> None:
    cpu, cuda = locked("cpu"), locked("cuda")
    assert cpu.pop("torch") == cuda.pop("torch") + "+cpu"
    assert cpu.items() <= cuda.items()
    assert any(name.startswith("nvidia-") for name in cuda.keys() - cpu.keys())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    public = {**os.environ, "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [*command, "-r", str(ROOT / "image/cuda.lock")], env=public, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_the_whole_pipeline_runs_in_it_every_component_in_its_own_container(
    sample_folder: Path, tmp_path: Path
) -> None:
    root, data, pipeline = tmp_path / "kfp", tmp_path / "data", tmp_path / "pud.yaml"
    shutil.copytree(sample_folder, data)
    root.mkdir()
    tmp_path.chmod(0o755)
    root.chmod(0o777)  # the containers are user 1000
    parameter = "{{$.inputs.parameters['pipelinechannel--image']}}"  # which the local runner does not fill in
    pipeline.write_text(without_retries(COMPILED.read_text()).replace(parameter.replace("'", "''"), IMAGE))
    job = {
        "root": str(root),
        "pipeline": str(pipeline),
        "data": str(data),
        "arguments": {**SMALL, "image": IMAGE, "data_uri": "file:/data"},
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(job)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    last = max(root.rglob("report.json"), key=lambda path: path.stat().st_mtime)
    report = load_report(last.parent)
    assert len(report["rounds"]) == ROUNDS
    assert last.stat().st_uid == 1000


def test_mlflow_serves_from_it_with_a_file_system_that_cannot_be_written() -> None:
    """As manifests/base/mlflow.yaml runs it, but for the database and the store."""
    port = free_port()
    settings = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "key", "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-password"}
    given = [argument for name, value in settings.items() for argument in ("--env", f"{name}={value}")]
    sealed = [
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/home/pud:uid=1000",
        "--network",
        "host",
        "--detach",
        "--rm",
    ]
    arguments = ["--host=127.0.0.1", f"--port={port}", "--workers=2", "--serve-artifacts"]
    places = ["--artifacts-destination=/tmp/artifacts", "--backend-store-uri=sqlite:////tmp/mlflow.db"]
    server = ["mlflow", "server", "--app-name=basic-auth", *arguments, *places]
    name = docker("run", "--detach", "--rm", *sealed, *given, IMAGE, *server).strip()
    try:
        deadline = time.monotonic() + 120
        while not healthy(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < deadline, docker("logs", name)
            time.sleep(1)
    finally:
        docker("kill", name)


def healthy(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_the_lock_files_are_those_of_the_constraints() -> None:
    pinned = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    known = {normal(name): version for name, version in pinned}
    differing = {name for name, version in locked("cpu").items() if known.get(name, version) != version}
    assert differing == {"torch"}
    assert locked("cpu")["torch"] == f"{known['torch']}+cpu"
    assert Distribution.from_name("torch").version.partition("+")[0] == known["torch"]
