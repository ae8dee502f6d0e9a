"""The servers of the manifests, started here with the manifests' own arguments, environment and secrets.

PostgreSQL takes part where it is installed; elsewhere SQLite stands in for it.
"""

import datetime
import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from minio.error import S3Error, ServerError
from minio.lifecycleconfig import Expiration, LifecycleConfig
from servers import DAY, ObjectStore, free_port

from pud.artifacts.storage import S3, bootstrap, bucket_names, lifecycle
from pud.base.errors import InputError
from pud.platform.cluster.bootstrap import EXPERIMENT, make_account
from pud.platform.cluster.doctor import Check, mlflow, mlflow_artifacts

pytestmark = pytest.mark.cluster

MANIFESTS = Path(__file__).parent.parent / "manifests"
KEY, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
START_SECONDS = 120
LIFECYCLE_SECONDS = 900  # the admin looks for work every few minutes
Secrets = dict[str, dict[str, str]]


def container(workload: str, name: str = "", text: str = "") -> dict[str, Any]:
    """The container of a workload in manifests/base, or in this text, that has this name, else the workload's own."""
    documents = yaml.safe_load_all(text or (MANIFESTS / "base" / f"{workload}.yaml").read_text())
    workloads = [one for one in documents if one["kind"] in ("Deployment", "StatefulSet")]
    [found] = [one for one in workloads if one["metadata"]["name"] == workload]
    [wanted] = [one for one in found["spec"]["template"]["spec"]["containers"] if one["name"] == (name or workload)]
    return wanted  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    return runpy.run_path(str(MANIFESTS / "credentials.py"))["credentials"]()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def store(secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    root = secrets["object-store-root"]
    described = container("object-store")
    server = ObjectStore(
        tmp_path_factory.mktemp("store") / "weed",
        secrets["object-store-identities"]["s3.json"],
        (root[KEY], root[SECRET]),
        described["args"],
    )
    try:
        server.start()
        path = described["readinessProbe"]["httpGet"]["path"]
        assert urllib3.request("GET", server.endpoint + path).status == 200
        bootstrap(server.as_admin(), bucket_names({}))
        yield server
    finally:
        server.close()


def as_identity(store: ObjectStore, secrets: Secrets, name: str) -> S3:
    return S3(store.endpoint, secrets[name][KEY], secrets[name][SECRET])


ACCESS = [
    ("pud-storage-credentials", "pud-data", "read"),
    ("pud-data-publisher", "pud-data", "write"),
    ("mlflow-storage-credentials", "pud-mlflow", "write"),
    ("pud-pipeline-credentials", "pud-pipelines", "write"),
]


@pytest.mark.parametrize(("name", "own", "right"), ACCESS)
def test_an_identity_has_its_right_to_its_bucket_and_none_to_the_others(
    store: ObjectStore, secrets: Secrets, name: str, own: str, right: str, tmp_path: Path
) -> None:
    client, file = as_identity(store, secrets, name).client(), tmp_path / "content"
    file.write_text("content")
    for bucket in bucket_names({}):
        store.as_admin().client().fput_object(bucket, "there", str(file))
        attempts: dict[str, tuple[bool, Callable[[], Any]]] = {
            "read": (bucket == own, partial(client.fget_object, bucket, "there", str(file))),
            "write": (bucket == own and right == "write", partial(client.fput_object, bucket, name, str(file))),
            "remove": (False, partial(client.remove_bucket, bucket)),
        }
        for allowed, attempt in attempts.values():
            with nullcontext() if allowed else pytest.raises(S3Error, match="AccessDenied"):
                attempt()


def test_the_object_store_acts_on_the_rules_of_its_buckets(store: ObjectStore, tmp_path: Path) -> None:
    client = store.as_admin().client()
    yesterday = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    past = Expiration(date=yesterday)  # in place of days, which a test cannot wait for
    rules = {rule.rule_id: rule for rule in lifecycle("pud-pipelines").rules}
    rules["runs"] = replace(rules["runs"], expiration=past)
    client.set_bucket_lifecycle("pud-pipelines", LifecycleConfig(list(rules.values())))
    for name in ("runs/old", "kept"):
        client.put_object("pud-pipelines", name, io.BytesIO(b"content"), 7)

    def objects() -> set[str]:
        return {str(one.object_name) for one in client.list_objects("pud-pipelines", recursive=True)}

    before = objects()
    port, master = free_port(), store.ports["master.port"]
    moved = {"/tmp": str(tmp_path), "/data": str(tmp_path), ":9333": f":{master}", ":23646": f":{port}"}
    started = []
    try:
        for name, more in (("admin", [f"-port={port}"]), ("lifecycle", [])):
            arguments = list(container("object-store", name)["args"])
            for here, there in moved.items():
                arguments = [one.replace(here, there) for one in arguments]
            with (tmp_path / f"{name}.log").open("wb") as log:
                command = [Path(sys.executable).with_name("weed"), *arguments, *more]
                started.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + LIFECYCLE_SECONDS
        while "runs/old" in (left := objects()):
            assert time.monotonic() < deadline, "".join(
                (tmp_path / f"{name}.log").read_text() for name in ("admin", "lifecycle")
            )
            time.sleep(5)
        assert left == before - {"runs/old"}
    finally:
        for process in started:
            process.kill()
            process.wait()


class Postgres:
    """PostgreSQL with the account of a secret, in a folder of its own."""

    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)

    def __init__(self, secret: dict[str, str]) -> None:
        self.folder, self.port, self.secret = Path(tempfile.mkdtemp(prefix="pud-pg-")), free_port(), secret

    def run(self, program: str, *arguments: str, text: str = "") -> None:
        assert self.programs
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        data, user = str(self.folder / "data"), self.secret["POSTGRES_USER"]
        self.run("initdb", "-D", data, "-U", user, "-A", "trust")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "-D", data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")
        statement = f"ALTER USER {user} PASSWORD '{self.secret['POSTGRES_PASSWORD']}'; CREATE DATABASE mlflow;"
        here = ["-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", "postgres"]
        for one in statement.split("; "):
            self.run("psql", *here, "-q", text=one)
        (self.folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        self.run("pg_ctl", "-D", data, "reload")

    def close(self) -> None:
        subprocess.run(["pkill", "-f", str(self.folder / "data")], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Tracking:
    """MLflow as its manifest starts it: the same arguments and variables, other ports and folders.

    tls: a folder in place of /etc/tls, whose ca.crt clients trust.
    """

    def __init__(
        self,
        folder: Path,
        store: ObjectStore,
        secrets: Secrets,
        database: str,
        described: dict[str, Any] | None = None,
        tls: Path | None = None,
    ) -> None:
        self.port, self.folder = free_port(), folder
        self.authorities = str(tls / "ca.crt") if tls else None
        folder.mkdir()
        described = described or container("mlflow")
        uri = secrets["mlflow-server"]["MLFLOW_BACKEND_STORE_URI"]
        ini = folder / "basic_auth.ini"
        ini.write_text(secrets["mlflow-auth"]["basic_auth.ini"].replace(uri, database))
        values = {
            "NAMESPACE": "pud",
            "PUD_MLFLOW_BUCKET": "pud-mlflow",
            "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
            **{one["name"]: one["value"] for one in described["env"] if "value" in one},
            **secrets["mlflow-storage-credentials"],
            **secrets["mlflow-server"],
            "MLFLOW_AUTH_CONFIG_PATH": str(ini),
            "MLFLOW_BACKEND_STORE_URI": database,
        }

        def filled(text: str) -> str:
            for name in ("ALLOWED_HOSTS", "NAMESPACE", "PUD_MLFLOW_BUCKET"):
                text = text.replace(f"$({name})", values[name])
            return text.replace("/etc/tls", str(tls))

        replaced = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={self.port}"}
        arguments = [replaced.get(one, filled(one)) for one in described["args"]]
        if "AWS_CA_BUNDLE" in values:
            values["AWS_CA_BUNDLE"] = filled(values["AWS_CA_BUNDLE"])
        self.uri = f"http{'s' if tls else ''}://localhost:{self.port}"
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
        self.log = folder / "log"
        with self.log.open("wb") as log:
            program = Path(sys.executable).with_name(described["command"][0])
            self.process = subprocess.Popen(
                [program, *arguments],
                env={**outside, **values},
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            try:
                if self.ask("/health").status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.5)

    def ask(self, path: str, **headers: str) -> Any:
        pool = urllib3.PoolManager(ca_certs=self.authorities)
        return pool.request("GET", self.uri + path, headers=headers, retries=False, timeout=10)

    def close(self) -> None:
        subprocess.run(["pkill", "-KILL", "-s", str(self.process.pid)], check=False)
        self.process.wait()


@pytest.fixture(scope="module")
def tracking(store: ObjectStore, secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    folder = tmp_path_factory.mktemp("mlflow") / "server"
    database = f"sqlite:///{folder.parent / 'mlflow.db'}"
    postgres = Postgres(secrets["mlflow-database"]) if Postgres.programs else None
    server = None
    try:
        if postgres:
            postgres.start()
            named = secrets["mlflow-server"]["MLFLOW_BACKEND_STORE_URI"]
            database = named.replace("postgres:5432", f"127.0.0.1:{postgres.port}")
        server = Tracking(folder, store, secrets, database)
        server.wait()
        yield server
    finally:
        if server:
            server.close()
        if postgres:
            postgres.close()


def pod(tracking: Tracking, secrets: Secrets) -> dict[str, str]:
    """What a run's pod knows of MLflow, and the administrator's account beside it."""
    admin = {f"MLFLOW_ADMIN_{key}": value for key, value in secrets["mlflow-admin"].items()}
    return {"MLFLOW_TRACKING_URI": tracking.uri, **secrets["pud-tracking-credentials"], **admin}


def recorded(store: ObjectStore) -> list[str]:
    """The names of all objects in MLflow's bucket."""
    objects = store.as_admin().client().list_objects("pud-mlflow", recursive=True)
    return [one.object_name or "" for one in objects]


def records_into_its_bucket(tracking: Tracking, store: ObjectStore, folder: Path) -> None:
    """Record a run's report by the account in the environment, and find it in the run and in MLflow's bucket."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    run = client.create_run(experiment.experiment_id)
    (folder / "report.json").write_text("{}")
    client.log_artifact(run.info.run_id, str(folder / "report.json"))
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["report.json"]
    assert any(name.endswith(f"{run.info.run_id}/artifacts/report.json") for name in recorded(store))


def test_a_run_records_without_a_key_of_the_store_and_its_files_lie_in_the_bucket(
    tracking: Tracking, store: ObjectStore, secrets: Secrets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = pod(tracking, secrets)
    assert make_account(values) == "MLflow account pud: made, experiment pud: made"
    assert make_account(values) == "MLflow account pud: was there, experiment pud: was there"
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_S3")):
            monkeypatch.delenv(name)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, values[name])
    records_into_its_bucket(tracking, store, tmp_path)


def test_doctor_tries_the_artifacts_with_the_name_of_the_pods_and_leaves_none(
    tracking: Tracking, store: ObjectStore, secrets: Secrets
) -> None:
    values = pod(tracking, secrets)
    make_account(values)
    found = mlflow(values, values, None, {})
    assert isinstance(found, list)
    assert [(one.name, one.ok) for one in found] == [("MLflow", True), ("MLflow artifacts", True)], found
    assert not [name for name in recorded(store) if "pud-doctor" in name]

    def tried(experiment: str) -> Check:
        account = ":".join(secrets["pud-tracking-credentials"].values())
        return mlflow_artifacts(tracking.uri, urllib3.make_headers(basic_auth=account), None, experiment)

    assert "may not write in experiment Default -> give it MANAGE" in str(tried("Default"))
    assert tried("none").ok is None
    store.kill()
    try:
        assert "the server cannot write one (" in str(tried(EXPERIMENT))
    finally:
        store.start()


def test_the_experiment_of_the_bootstrap_job_is_that_of_the_steps() -> None:
    from pud.reporting.tracking import Tracking

    assert Tracking.experiment == EXPERIMENT


def test_the_server_refuses_other_hosts_and_those_without_a_password(tracking: Tracking, secrets: Secrets) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert tracking.ask(search).status == 401
    assert tracking.ask("/health", Host="evil.example.com").status in (200, 403)
    basic = urllib3.make_headers(basic_auth=":".join(secrets["mlflow-admin"].values()))
    assert tracking.ask(search, **basic).status == 200
    for host in ("mlflow:5000", "mlflow.pud.svc.cluster.local:5000"):
        assert tracking.ask(search, **basic, Host=host).status == 200
    assert tracking.ask(search, **basic, Host="evil.example.com").status == 403


def test_a_wrong_administrator_and_a_server_that_is_away_are_told(tracking: Tracking, secrets: Secrets) -> None:
    values = pod(tracking, secrets)
    with pytest.raises(InputError, match="MLFLOW_ADMIN_PASSWORD") as caught:
        make_account({**values, "MLFLOW_ADMIN_PASSWORD": "wrong-password"})
    assert "wrong-password" not in str(caught.value)
    with pytest.raises(InputError, match=r"at http://127\.0\.0\.1:9 does not answer"):
        make_account({**values, "MLFLOW_TRACKING_URI": "http://somebody:secret@127.0.0.1:9"})
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        make_account({})


def test_the_bootstrap_job_needs_only_its_manifests_variables(
    tracking: Tracking, store: ObjectStore, secrets: Secrets
) -> None:
    [job] = yaml.safe_load_all((MANIFESTS / "base" / "bootstrap.yaml").read_text())
    described = job["spec"]["template"]["spec"]["containers"][0]
    values = {"AWS_ENDPOINT_URL_S3": store.endpoint, "MLFLOW_TRACKING_URI": tracking.uri}
    for source in described["envFrom"]:
        values |= secrets.get(source.get("secretRef", {}).get("name"), {})
    for one in described["env"]:
        reference = one["valueFrom"]["secretKeyRef"]
        values[one["name"]] = secrets[reference["name"]][reference["key"]]
    outside = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    program = Path(sys.executable).with_name(described["command"][0])
    done = subprocess.run(
        [program, *described["command"][1:]], env={**outside, **values}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("bucket pud-") == 3
    assert "MLflow account pud" in done.stdout
    assert "experiment pud" in done.stdout
    assert not [value for name, value in values.items() if "SECRET" in name and value in done.stdout + done.stderr]


# ------------------------------------------------------------------------------------------ over HTTPS: components/tls


def signed(folder: Path, names: list[str]) -> None:
    """Write what cert-manager puts into a secret, for these names: ca.crt, tls.crt and tls.key."""
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    own = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    own += ["-addext", "subjectAltName=" + ",".join(names)]
    for command in (
        [*new, "-subj", "/CN=pud", "-keyout", "ca.key", "-out", "ca.crt"],
        [*new, "-subj", "/CN=server", "-keyout", "tls.key", "-out", "tls.crt", *own],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObjectStore, Tracking]]:
    """The object store and MLflow as the overlay with components/tls starts them."""
    folder = tmp_path_factory.mktemp("tls")
    overlay = shutil.copytree(MANIFESTS, folder / "manifests") / "overlays" / "local"
    with (overlay / "kustomization.yaml").open("a") as file:
        file.write("components: [../../components/tls]\n")
    kubectl = Path(sys.executable).with_name("kubectl")
    text = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=True).stdout
    certificates = [one["spec"] for one in yaml.safe_load_all(text) if one["kind"] == "Certificate"]
    names = [name for spec in certificates for name in spec.get("dnsNames", [])]
    signed(folder, [*(f"DNS:{name}" for name in dict.fromkeys(names)), "IP:127.0.0.1"])
    described = container("object-store", text=text)
    arguments = [one.replace("/etc/tls", str(folder)) for one in described["args"]]
    assert [one for one in arguments if str(folder) in one] == [
        f"-s3.cert.file={folder}/tls.crt",
        f"-s3.key.file={folder}/tls.key",
    ]
    root = secrets["object-store-root"]
    identities = secrets["object-store-identities"]["s3.json"]
    store = ObjectStore(folder / "weed", identities, (root[KEY], root[SECRET]), arguments)
    store.endpoint, store.ca_bundle = store.endpoint.replace("http:", "https:"), str(folder / "ca.crt")
    server = None
    try:
        store.start()
        bootstrap(store.as_admin(), bucket_names({}))
        database = f"sqlite:///{folder / 'mlflow.db'}"
        server = Tracking(folder / "mlflow", store, secrets, database, container("mlflow", text=text), folder)
        server.wait()
        yield store, server
    finally:
        if server:
            server.close()
        store.close()


def test_over_https_the_object_store_serves_who_trusts_its_authority(
    secured: tuple[ObjectStore, Tracking], secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = secured
    values = {"AWS_ENDPOINT_URL_S3": store.endpoint, **secrets["pud-data-publisher"]}
    client = S3.from_environment({**values, "AWS_CA_BUNDLE": store.ca_bundle}).client()
    client.put_object("pud-data", "there", io.BytesIO(b"content"), 7)
    assert client.get_object("pud-data", "there").data == b"content"
    monkeypatch.setattr("pud.artifacts.storage.RETRIES", 0)
    for other in ({}, {"AWS_ENDPOINT_URL_S3": store.endpoint.replace("https:", "http:")}):
        with pytest.raises((urllib3.exceptions.HTTPError, S3Error, ServerError)):
            S3.from_environment({**values, **other}).client().stat_object("pud-data", "there")
    health = container("object-store")["readinessProbe"]["httpGet"]["path"]
    assert urllib3.PoolManager(ca_certs=store.ca_bundle).request("GET", store.endpoint + health).status == 200


def test_over_https_a_run_records_and_its_files_lie_in_the_bucket(
    secured: tuple[ObjectStore, Tracking], secrets: Secrets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, tracking = secured
    values = {**pod(tracking, secrets), "REQUESTS_CA_BUNDLE": store.ca_bundle}
    assert make_account(values) == "MLflow account pud: made, experiment pud: made"
    found = mlflow(values, values, Path(store.ca_bundle), {})
    assert isinstance(found, list)
    assert [(one.name, one.ok) for one in found] == [("MLflow", True), ("MLflow artifacts", True)], found
    assert "is not trusted" in str(mlflow(values, values, None, {}))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, values[name])
    records_into_its_bucket(tracking, store, tmp_path)
