"""Servers that tests start and stop: an S3 object store with identities, MLflow, and HTTP for what cannot run here."""

import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pud.artifacts.storage import S3

if TYPE_CHECKING:
    from mlflow.entities import Run

START_SECONDS, DAY = 60, datetime.timedelta(days=1)
ADMIN, READER = ("admin-key", "admin-secret"), ("reader-key", "reader-secret")
ACTIONS = {ADMIN: ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read:pud-data", "List:pud-data"]}


def free_port() -> int:
    """Return a port below the ephemeral ones, with room for SeaweedFS's gRPC port 10,000 above it."""
    for port in range(20_000 + hash(str(time.monotonic_ns())) % 9_000, 30_000):
        with socket.socket() as one, socket.socket() as other:
            if one.connect_ex(("127.0.0.1", port)) and other.connect_ex(("127.0.0.1", port + 10_000)):
                return port
    raise OSError("no free port")


def identities() -> str:
    """Return the configuration of an admin and of an identity that may only read ``pud-data``."""
    found = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for (key, secret), actions in ACTIONS.items()
    ]
    return json.dumps({"identities": found})


class ObjectStore:
    """A SeaweedFS server. The tests' own addresses and folders win over those in ``arguments``."""

    def __init__(
        self,
        folder: Path,
        configuration: str | None = None,
        admin: tuple[str, str] = ADMIN,
        arguments: Sequence[str] = ("server", "-filer", "-s3"),
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.folder, self.admin, self.arguments = folder, admin, [*arguments]
        self.ca_bundle = str(certificate[0]) if certificate else ""
        if certificate:
            self.arguments += [f"-s3.cert.file={certificate[0]}", f"-s3.key.file={certificate[1]}"]
        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(configuration or identities())
        self.ports = {name: free_port() for name in ("s3.port", "master.port", "volume.port", "filer.port")}
        self.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{self.ports['s3.port']}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        weed = Path(sys.executable).with_name("weed")
        address = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", *(f"-{name}={port}" for name, port in self.ports.items())]
        small = ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        files = [f"-dir={self.folder / 'data'}", f"-s3.config={self.folder / 's3.json'}"]
        with (self.folder / "log").open("ab") as log:
            command = [weed, *self.arguments, *address, *small, *files]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.2)

    def answers(self) -> bool:
        """Tell whether the store lists its buckets and gives an object of each: its filer and its volumes are there."""
        client = self.as_admin().client()
        try:
            for bucket in client.list_buckets():
                for found in islice(client.list_objects(bucket.name, recursive=True), 1):
                    client.get_object(bucket.name, str(found.object_name)).close()
        except Exception:
            return False
        return True

    def kill(self) -> None:
        """Kill the server as a failing machine would."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Stop the server and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def as_admin(self) -> S3:
        return S3(self.endpoint, *self.admin, ca_bundle=self.ca_bundle)

    def as_reader(self) -> S3:
        return S3(self.endpoint, *READER, ca_bundle=self.ca_bundle)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
    made = made.add_extension(address, critical=True)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    kind, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "tls.key").write_bytes(key.private_bytes(pem, kind, serialization.NoEncryption()))
    return folder / "ca.crt", folder / "tls.key"


class TrackingServer:
    """An MLflow server; what it holds outlives a kill. A password is that of its admin; without one all may all."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.folder, self.port, self.password = folder, free_port(), password
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        places = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        places += ["--artifacts-destination", str(self.folder / "artifacts")]
        given = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "key", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = os.environ | given
        if self.password:
            address.append("--app-name=basic-auth")
            environment["MLFLOW_AUTH_ADMIN_PASSWORD"] = self.password
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "mlflow", "server", *address, *places]
            options = {"cwd": self.folder, "env": environment, "start_new_session": True}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        deadline = time.monotonic() + 2 * START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.5)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server and its workers as a failing machine would."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def runs(self, experiment: str) -> list["Run"]:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])

    def content(self, experiment: str) -> dict[str, Any]:
        """Return all that the runs of an experiment hold, by round, but for ids and times."""
        from mlflow import MlflowClient

        client, found = MlflowClient(self.uri), {}
        for run in self.runs(experiment):
            history = {
                key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            }
            files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
            data = [one.dataset.digest for one in run.inputs.dataset_inputs]
            found[run.data.tags["pud.round"]] = (
                run.info.status,
                history,
                run.data.params,
                files,
                data,
                {*run.data.tags},
            )
        return found


Responder = Callable[[str, str, dict[str, str], Any], tuple[int, Any]]


@contextmanager
def serving(answer: Responder) -> Iterator[str]:
    """Serve ``answer(method, path, headers, body) -> (status, content)`` over HTTP and give the URL.

    Headers have names in lower case; text is sent as a page, all else as JSON. What ``answer`` raises is a 400, and
    fails the test at the end.
    """
    wrong: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                status, content = answer(self.command, self.path, headers, json.loads(body or b"null"))
            except Exception:
                wrong.append(traceback.format_exc())
                status, content = 400, {"error": "see the test"}
            raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
    assert wrong == []


def environment_of(s3: S3) -> dict[str, str]:
    """Return the variables by which a task or a tool finds an object store."""
    return {
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": s3.region or "us-east-1",
    }


class Endless(BaseHTTPRequestHandler):
    """A server that never says how much it sends, and does not stop."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 20))

    def log_message(self, *_: object) -> None:
        pass
