"""Doctor: the real clients against a Kubernetes API with a state and a real object store, and one thing missing."""

import base64
import hashlib
import io
import itertools
import json
import os
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kfp import compiler, dsl
from kfp.kubernetes import mount_pvc
from kubernetes.client import V1Taint
from kubernetes.config import kube_config
from mlflow.server.security_utils import INVALID_HOST_MSG, is_allowed_host_header
from servers import ObjectStore, serving

from pipelines import placement
from pipelines.placement import on_cpu_pool, on_gpu_pool, with_data
from pud.artifacts.storage import bootstrap, bucket_names
from pud.base.errors import InputError
from pud.platform.cli import main
from pud.platform.cluster.doctor import Check, examine, exit_code, render, tolerates
from pud.platform.cluster.requirements import MEASURED, Step, estimate, most_at_once, offline, read
from pud.platform.compiled import read_pipeline, steps_of

ROOT = Path(__file__).parents[1]
PIPELINE, PINS = ROOT / "pipelines" / "pud.yaml", ROOT / "constraints.txt"
KUBERNETES_TOKEN, KUBEFLOW_TOKEN, PASSWORD, OTHER = "kubernetes-token", "kubeflow-token", "mlflow-password", "other-pw"
MADE = runpy.run_path(str(ROOT / "manifests" / "credentials.py"))["credentials"]()  # what a platform team makes
ADMIN, PODS, PUBLISHER, LAUNCHERS = (
    MADE[name]
    for name in ("object-store-root", "pud-storage-credentials", "pud-data-publisher", "pud-pipeline-credentials")
)
SECRETS = (KUBERNETES_TOKEN, KUBEFLOW_TOKEN, PASSWORD, OTHER, *ADMIN.values(), *PODS.values(), *LAUNCHERS.values())
NOWHERE, MLFLOW = "http://127.0.0.1:9", "mlflow.team.svc:5000"
ACCOUNT = {"MLFLOW_TRACKING_USERNAME": "pud", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
API, HEALTH = "/api/2.0", "/apis/v2beta1/healthz"
OLDER_HEALTH = HEALTH.replace("v2beta1", "v1beta1")
SEARCH, BY_NAME = f"{API}/mlflow/experiments/search", f"{API}/mlflow/experiments/get-by-name"
REGION = "us-east-1"
NAMESPACE, CLAIM = "namespaces/team", "persistentvolumeclaims/cache"
TRACKING, CREDENTIALS = "configmaps/pud-tracking", "secrets/pud-tracking-credentials"
STORAGE, STORAGE_KEYS = "configmaps/pud-storage", "secrets/pud-storage-credentials"
LAUNCHER, LAUNCHER_KEYS = "configmaps/kfp-launcher", "secrets/pud-pipeline-credentials"
LISTING = b"[]"
DIGEST = hashlib.md5(LISTING).hexdigest() + ".dir"

Answer = tuple[int, Any]
Change = dict[str, Any]  # what differs in a world, by the names of its fields


def node(name: str, *, memory: str = "64Gi", gpus: int = 0, taint: str = "", **spec: Any) -> Change:
    key, _, effect = taint.partition(":")
    taints = [{"key": key, "effect": effect}] if taint else []
    allocatable = {"cpu": "15900m", "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    metadata = {"name": name, "labels": {"zone": "a"}}
    return {"metadata": metadata, "spec": {"taints": taints, **spec}, "status": {"allocatable": allocatable}}


def secret(**values: str) -> Change:
    return {"data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}}


def keys(access: str, secret: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}


def storage(pipelines: str) -> Change:
    """Config map pud-storage with another bucket for pipelines, at STORE."""
    return {"data": {"AWS_ENDPOINT_URL_S3": "http://STORE", "AWS_REGION": REGION, "PUD_PIPELINE_BUCKET": pipelines}}


def launcher(root: str = "s3://pud-pipelines/runs", **changes: Any) -> Change:
    """Config map kfp-launcher as the manifests have it, at STORE."""
    documents = yaml.safe_load_all((ROOT / "manifests" / "base" / "config.yaml").read_text())
    [found] = [one["data"] for one in documents if one["metadata"]["name"] == "kfp-launcher"]
    provider = yaml.safe_load(found["providers"])["s3"]["default"]
    provider |= {"endpoint": "STORE", **changes}
    return {"data": {"defaultPipelineRoot": root, "providers": yaml.safe_dump({"s3": {"default": provider}})}}


def compiled(path: Path, steps: int = 2, *, chained: bool = True) -> Path:
    """Compile a step that takes data, and steps for GPUs after it or beside it, placed as those of the pipeline."""

    @dsl.container_component
    def work() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="any", command=["true"])

    def small(
        data_uri: str = "dvc:s3://pud-data/store",
        data_digest: str = DIGEST,
        tracking: dict = {},  # noqa: B006
        accelerator: str = "nvidia.com/gpu",
        accelerator_count: str = "1",
        gpu_node_selector: dict = {},  # noqa: B006
        cpu_tolerations: list = [],  # noqa: B006
    ) -> None:
        last = with_data(on_cpu_pool(work(), "pud:1", {}, cpu_tolerations))
        mount_pvc(last, pvc_name="cache", mount_path="/cache")
        for _ in range(steps - 1):
            tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
            task = on_gpu_pool(work(), "pud:1", gpu_node_selector, tolerations, accelerator, accelerator_count)
            last = task.after(last) if chained else task

    compiler.Compiler().compile(dsl.pipeline(small, name="small"), str(path))
    return path


@dataclass
class World:
    """A cluster and the servers around it, with all that a run needs, until a test changes it.

    objects: by kind and name, None: not there. denied: what the account may not. told: answers by path, whatever the
    state. given: arguments of ``examine``. URL and STORE stand for the addresses of the servers.
    """

    kubeconfig: Path
    store: str
    url: str
    given: Change
    parameters: Change = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    told: dict[str, Answer] = field(default_factory=dict)
    user: dict[str, str] = field(default_factory=lambda: {"server": "URL", "token": KUBERNETES_TOKEN})
    environment: dict[str, str] = field(default_factory=lambda: {"MLFLOW_TRACKING_URI": "URL"})
    hosts: list[str] = field(default_factory=lambda: [MLFLOW])

    def __post_init__(self) -> None:
        self.artifacts: dict[str, Any] = {}
        self.objects: dict[str, Any] = {
            NAMESPACE: {"status": {"phase": "Active"}},
            "nodes/cpu-1": node("cpu-1"),
            "nodes/gpu-1": node("gpu-1", taint="nvidia.com/gpu:NoSchedule", gpus=4),
            TRACKING: {"data": {"MLFLOW_TRACKING_URI": f"http://{MLFLOW}"}},
            CREDENTIALS: secret(**ACCOUNT),
            STORAGE: {"data": {"AWS_ENDPOINT_URL_S3": self.store, "AWS_REGION": REGION}},
            STORAGE_KEYS: secret(**PODS),
            LAUNCHER: launcher(),
            LAUNCHER_KEYS: secret(**LAUNCHERS),
            CLAIM: {},
            "serviceaccounts/runner": {},
        }
        self.change()

    def change(self, **changes: Change) -> None:
        for name, values in changes.items():
            getattr(self, name).update(values)
        content = {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.user["server"].replace("URL", self.url)}}],
            "users": [{"name": "u", "user": {"token": self.user["token"]}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(content))

    @property
    def namespace(self) -> str:
        return self.given["namespace"] or "kubeflow"

    def variables(self) -> dict[str, str]:
        addresses = {"URL": self.url, "STORE": self.store}
        return {name: addresses.get(value, value) for name, value in self.environment.items()}

    def examine(self) -> list[Check]:
        return examine(**self.given, parameters=self.parameters, environment=self.variables())

    def shown(self, checks: list[Check] | None = None) -> str:
        return render(checks or self.examine()).replace(self.url, "URL").replace(self.store, "STORE")

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        for key in (path, method):
            if key in self.told:
                return self.told[key]
        _, _, identity = headers.get("authorization", " ").partition(" ")
        match path.strip("/").split("/"):
            case _ if path == HEALTH:
                return (200, {"multi_user": True}) if identity == KUBEFLOW_TOKEN else (401, {})
            case _ if path == OLDER_HEALTH:
                return 200, {"tag_name": "2.17.0"}
            case ["health"]:
                return 200, "OK"
            case _ if path.startswith(API):
                return self.mlflow(method, path, headers, body)
            case _ if identity != KUBERNETES_TOKEN:
                return 401, {"kind": "Status"}
            case ["version"]:
                names = (
                    "buildDate",
                    "compiler",
                    "gitCommit",
                    "gitTreeState",
                    "goVersion",
                    "major",
                    "minor",
                    "platform",
                )
                return 200, {**dict.fromkeys(names, ""), "gitVersion": "v1.34.1"}
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]:
                asked = body["spec"]["resourceAttributes"]
                assert asked.get("namespace") == (None if asked["resource"] == "nodes" else self.namespace)
                kind = ".".join(filter(None, (asked["resource"], asked.get("group"))))
                right = "/".join(filter(None, (f"{asked['verb']} {kind}", asked.get("subresource"))))
                named = f"{right} {asked.get('name')}"
                return 201, {**body, "status": {"allowed": self.denied.isdisjoint({right, named})}}
            case ["api", "v1", "nodes" as kind] | ["api", "v1", "namespaces", self.namespace, kind]:
                found = [one for name, one in self.objects.items() if one and name.startswith(f"{kind}/")]
                return self.unless_denied(f"list {kind}", {"items": found})
            case ["api", "v1", "namespaces" as kind, name] | ["api", "v1", "namespaces", self.namespace, kind, name]:
                return self.unless_denied(f"get {kind}", self.object(f"{kind}/{name}"))
        raise LookupError(path)

    def object(self, name: str) -> Any:
        found = json.dumps(self.objects.get(name)).replace("STORE", urlsplit(self.store).netloc)
        return json.loads(found)

    def mlflow(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        scheme, _, identity = headers.get("authorization", " ").partition(" ")
        if not is_allowed_host_header(self.hosts, headers["host"]):
            return 403, INVALID_HOST_MSG
        if scheme != "Basic" or base64.b64decode(identity).decode() != f"pud:{PASSWORD}":
            return 401, "sign in"
        match method, path:
            case "GET", p if p == SEARCH:
                return 200, {"experiments": []}
            case "GET", p if p == BY_NAME:
                return 200, {"experiment": {"artifact_location": "mlflow-artifacts:/7"}}
            case "PUT", _:
                self.artifacts[path] = body
            case "GET", _:
                return 200, self.artifacts[path]
            case "DELETE", _:
                del self.artifacts[path]
        return 200, {}

    def unless_denied(self, right: str, found: Any) -> Answer:
        status = 403 if right in self.denied else 404 if found is None else 200
        return status, found if status == 200 else {"kind": "Status", "code": status}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An object store with the identities of the manifests, the buckets and the data set."""
    folder, configuration = tmp_path_factory.mktemp("store") / "weed", MADE["object-store-identities"]["s3.json"]
    alone = ("server", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0")  # they have one port a machine
    server = ObjectStore(folder, configuration, (ADMIN["AWS_ACCESS_KEY_ID"], ADMIN["AWS_SECRET_ACCESS_KEY"]), alone)
    try:
        server.start()
        bootstrap(server.as_admin(), bucket_names({}))
        name = f"store/files/md5/{DIGEST[:2]}/{DIGEST[2:]}"
        server.as_admin().client().put_object("pud-data", name, io.BytesIO(LISTING), len(LISTING))
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("pipeline") / "small.yaml")


@pytest.fixture
def world(store: ObjectStore, pipeline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    def answer(method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        return state.answer(method, urlsplit(path).path, headers, body)

    for method in ("do_PUT", "do_DELETE"):  # MLflow's artifacts: ``serving`` does GET and POST
        monkeypatch.setattr(BaseHTTPRequestHandler, method, lambda self: self.do_GET(), raising=False)
    with serving(answer) as url:
        given = {"endpoint": url, "namespace": "team", "token": KUBEFLOW_TOKEN, "pipeline": pipeline}
        state = World(tmp_path / "kubeconfig", store.endpoint, url, given)
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(state.kubeconfig))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield state


# ---------------------------------------------------------------------------------------------- one thing at a time


def env(**values: str) -> Change:
    return {"environment": values}


def parameter(**values: Any) -> Change:
    return {"parameters": values}


def there(name: str, content: Any, **others: Any) -> Change:
    return {"objects": {name: content, **others}}


def gone(name: str) -> Change:
    return there(name, None)


def denied(right: str) -> Change:
    return {"denied": {right}}


def told(path: str, status: int, content: Any = "") -> Change:
    return {"told": {path: (status, content)}}


def nodes(*found: Change) -> Change:
    before = {"nodes/cpu-1": None, "nodes/gpu-1": None}
    return {"objects": {**before, **{f"nodes/{index}": one for index, one in enumerate(found)}}}


def quota(hard: dict[str, str], used: str = "0", **spec: Any) -> Change:
    content = {"spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": dict.fromkeys(hard, used)}}
    return there("resourcequotas/small", {"metadata": {"name": "small"}, **content})


KNOWN = env(AWS_ENDPOINT_URL_S3="STORE", **PODS)
UNREADABLE = denied("get secrets") | env(**PUBLISHER, **ACCOUNT)
LOST, FORGOTTEN = env(MLFLOW_TRACKING_URI=NOWHERE), env(MLFLOW_TRACKING_URI="")
INSIDE = "http://store.team.svc:9000"
SHORT = {"data": {"AWS_ENDPOINT_URL_S3": "http://store:9000", "AWS_REGION": REGION}}
DATABASE = {"uri": "postgresql://db/mlflow"}
FILE, CPU_ONLY = parameter(data_uri="file:data"), parameter(accelerator_count="0")
TAINTED = nodes(node("one", taint="team:NoSchedule"), node("two", gpus=4, taint="nvidia.com/gpu:NoSchedule"))
NO_GPUS, NO_PODS = {"requests.nvidia.com/gpu": "0"}, {"pods": "0"}
BEHIND = {  # what fails with it
    "Kubernetes": {"object store", "MLflow"},
    "GPU pool": {"CPU pool"},
    "object store": {"pipeline root"},
}

# what is so: (what makes it so, the beginning of the line that tells it, a piece of the remedy)
ROWS: dict[str, tuple[Change, str, str]] = {
    "API unreachable": ({"user": {"server": NOWHERE}}, f"FAIL Kubernetes: {NOWHERE} does not answer", "the kubeconfig"),
    "expired": ({"user": {"token": OTHER}}, "FAIL Kubernetes: URL refuses (401 Unauthorized)", "sign in again"),
    "API fails": (told("/api/v1/nodes", 500, {}), "warn GPU pool: could not be looked at (500 Internal", "look again"),
    "no namespace": (gone(NAMESPACE), "FAIL namespace: team is missing", "correct --namespace"),
    "dying": (there(NAMESPACE, {"status": {"phase": "Terminating"}}), "FAIL namespace: team is being", "give another"),
    "needed right": (denied("get pods/log"), "FAIL rights: this account may not get pods/log", "administrator"),
    "helpful right": (denied("list nodes"), "warn rights: this account may not list nodes", "for them in team"),
    "right to one object": (
        denied("get secrets pud-pipeline-credentials"),
        "warn rights: this account may not get secrets pud-pipeline-credentials",
        "cluster role pud-operator",
    ),
    "right to submit": (
        denied("create runs.pipelines.kubeflow.org"),
        "warn rights: this account may not create runs.pipelines.kubeflow.org",
        "for them in team",
    ),
    "account of the pods": ({"given": {"service_account": "runner"}}, "ok   service account runner: is there", ""),
    "no account": (
        {"given": {"service_account": "walker"}},
        "FAIL service account walker: is missing",
        "make it in team",
    ),
    "unseen namespace": (denied("get namespaces"), "warn namespace: this account may not look", "ask for the right"),
    "unseen nodes": (denied("list nodes"), "warn CPU pool: this account may not look", "ask for the right"),
    "unseen quotas": (denied("list resourcequotas"), "warn quota: this account may not look", "ask for the right"),
    "unseen claims": (denied("get persistentvolumeclaims"), "warn persistent volume claim cache: this", "ask for"),
    # nodes
    "no nodes": (nodes(), "FAIL GPU pool: the cluster has no node", "add one"),
    "no node of the pool now": (
        parameter(gpu_node_selector={"zone": "b"}),
        "warn GPU pool: no node has zone=b now",
        "right if the pool grows from zero, else label nodes or give -p gpu_node_selector",
    ),
    "no node of the pool fits": (
        nodes(node("any"), {**node("s", gpus=4), "metadata": {"name": "s", "labels": {"kind": "small"}}})
        | parameter(gpu_node_selector={"kind": "small"}, accelerator_count="8"),
        "FAIL GPU pool: no node takes work-2: any has no label kind=small; s has 4 nvidia.com/gpu of 8",
        "add GPUs",
    ),
    "label": (parameter(gpu_node_selector={"zone": "a"}), "ok   GPU pool: 1 of 2 nodes take every step", ""),
    "cordoned": (nodes(node("a", gpus=1, unschedulable=True)), "FAIL GPU pool: no node takes work-2: a is", "uncordon"),
    "taint": (TAINTED, "FAIL CPU pool: no node takes work: one has taint team:NoSchedule", "-p cpu_tolerations"),
    "tolerated taint": (
        TAINTED | parameter(cpu_tolerations=[{"key": "team", "operator": "Exists"}]),
        "ok   CPU pool: 1 of 2 nodes take every step (1 cpu, 4 GiB memory): one",
        "",
    ),
    "taint that only asks": (nodes(node("a", gpus=1, taint="x:PreferNoSchedule")), "ok   CPU pool: 1 of 1 nodes", ""),
    "too few GPUs": (
        parameter(accelerator_count="8"),
        "FAIL GPU pool: no node takes work-2: cpu-1 has 0 nvidia.com/gpu of 8 nvidia.com/gpu; gpu-1 has 4 nvidia.com",
        "or give -p accelerator_count (0: none)",
    ),
    "GPUs of another kind": (parameter(accelerator="amd.com/gpu"), "FAIL GPU pool: no node takes", "-p accelerator"),
    "no GPU, one node small": (
        nodes(node("small", memory="5Gi"), node("large")),
        "FAIL GPU pool: no node takes work-2: small has 0 nvidia.com/gpu of 1 nvidia.com/gpu; large has 0",
        "add GPUs",
    ),
    "too little memory": (
        nodes(node("a", gpus=1, memory="7900Mi")),
        "FAIL GPU pool: no node takes work-2: a has 7.71 GiB memory of 8 GiB memory",
        "add a larger node",
    ),
    "no GPU asked for": (nodes(node("a")) | CPU_ONLY, "ok   GPU pool: 1 of 1 nodes take every step (2 cpu, 8 GiB", ""),
    # what the pipeline refers to
    "needed config map": (gone(STORAGE) | KNOWN, "FAIL config map pud-storage: is missing", "make it in team, as"),
    "optional config map": (gone(STORAGE) | FILE, "warn config map pud-storage: is missing, a run does", "make it"),
    "no key": (there(STORAGE, {}) | KNOWN, "FAIL config map pud-storage: has no AWS_ENDPOINT_URL_S3", "make it"),
    "empty key": (
        there(STORAGE_KEYS, secret(**PODS | {"AWS_SECRET_ACCESS_KEY": ""})) | KNOWN,
        "FAIL secret pud-storage-credentials: has nothing under AWS_SECRET_ACCESS_KEY",
        "make it in team",
    ),
    "needed secret": (gone(STORAGE_KEYS) | KNOWN, "FAIL secret pud-storage-credentials: is missing", "make it"),
    "no claim": (gone(CLAIM), "FAIL persistent volume claim cache: is missing", "make it in team"),
    # quotas
    "small quota": (quota({"requests.memory": "4Gi"}), "FAIL quota: small leaves 4 GiB requests.memory of 8", "larger"),
    "used quota": (quota({"cpu": "3"}, "1500m"), "FAIL quota: small leaves 1.5 cpu of 2 cpu", "wait for other runs"),
    "no GPUs in it": (quota(NO_GPUS), "FAIL quota: small leaves 0 requests.nvidia.com/gpu of 1 requests", "ask for"),
    "no need of them": (quota(NO_GPUS) | CPU_ONLY, "ok   quota: small leaves room for a run", ""),
    "room": (quota({"pods": "2"}, "1", scopes=["Terminating"]), "ok   quota: small leaves room for a run", ""),
    "too many services": (quota({"services": "1"}, "2"), "ok   quota: small leaves room for a run", ""),
    "quota of best effort": (quota(NO_PODS, scopes=["BestEffort"]), "ok   quota: team has none", ""),
    "quota of servers": (quota(NO_PODS, scopes=["NotTerminating"]), "ok   quota: team has none", ""),
    "quota of all classes": (quota(NO_PODS, scopes=["PriorityClass"]), "ok   quota: team has none", ""),
    "quota of a class": (quota(NO_PODS, scopeSelector={"matchExpressions": []}), "ok   quota: team has none", ""),
    # the object store
    "unknown store": (gone(STORAGE) | FILE, "warn object store: AWS_ENDPOINT_URL_S3 are not known", "make pud-storage"),
    "no address": (env(AWS_ENDPOINT_URL_S3="s3"), "FAIL object store: S3 endpoint 's3' is no", "give http"),
    "store unreachable": (env(AWS_ENDPOINT_URL_S3=NOWHERE), f"FAIL object store: {NOWHERE} does not", "network"),
    "store inside": (env(AWS_ENDPOINT_URL_S3=INSIDE), f"warn object store: {INSIDE} has a name", "port-forward it"),
    "no store": (env(AWS_ENDPOINT_URL_S3="URL"), "FAIL object store: URL: InvalidResponse", "does not answer"),
    "unknown key": (there(STORAGE_KEYS, secret(**keys("nobody", OTHER))), "FAIL object store: STORE: the access", ""),
    "wrong secret": (
        there(STORAGE_KEYS, secret(**PODS | {"AWS_SECRET_ACCESS_KEY": OTHER})),
        "FAIL object store: STORE: the secret key is wrong",
        "check AWS_SECRET_ACCESS_KEY",
    ),
    "keys of the pods": (env(**keys("nobody", OTHER)), "ok   object store: STORE takes the keys", ""),
    "unreadable keys": (UNREADABLE, "ok   bucket pud-data: can be read", ""),
    "no bucket": (
        there(STORAGE_KEYS, secret(**ADMIN)) | parameter(data_uri="dvc:s3://none/x"),
        "FAIL bucket none: is missing",
        "run pud bootstrap",
    ),
    "bucket of others": (there(STORAGE_KEYS, secret(**LAUNCHERS)), "FAIL bucket pud-data: STORE: this identity", "use"),
    "unnamed bucket": (parameter(data_uri="dvc:s3://"), "FAIL object store: data URI 'dvc:s3://' names no", "BUCKET"),
    # where artifacts go
    "no launcher": (gone(LAUNCHER), "warn config map kfp-launcher: is missing, a run does without", "make it in team"),
    "no root": (there(LAUNCHER, {"data": {}}), "warn config map kfp-launcher: has no defaultPipelineRoot", "make it"),
    "no launcher's secret": (gone(LAUNCHER_KEYS), "FAIL secret pud-pipeline-credentials: is missing", "make it"),
    "unseen launcher's secret": (UNREADABLE, "warn secret pud-pipeline-credentials: this", "ask"),
    "launcher may write": (
        {},
        "ok   pipeline root: written, read and removed in s3://pud-pipelines/runs with the launcher's keys",
        "",
    ),
    "launcher may only read": (
        there(
            LAUNCHER_KEYS, secret(**PODS), **{LAUNCHER: launcher("s3://pud-data/runs"), STORAGE: storage("pud-data")}
        ),
        "FAIL pipeline root: these keys may not write in bucket pud-data",
        "use keys with the rights in manifests/README.md",
    ),
    "launcher's bucket": (
        there(LAUNCHER, {"data": {"defaultPipelineRoot": "minio://mlpipeline/v2/artifacts"}}),
        "warn pipeline root: minio://mlpipeline/v2/artifacts of kfp-launcher is not in pud-pipelines, the bucket that",
        "apply the manifests",
    ),
    "bucket by another name": (
        there(STORAGE, storage("others")),
        "warn pipeline root: s3://pud-pipelines/runs of kfp-launcher is not in others",
        "apply the manifests",
    ),
    "launcher's keys from elsewhere": (
        there(LAUNCHER, launcher(credentials={"fromEnv": True})),
        "warn pipeline root: kfp-launcher names no secret for s3://pud-pipelines/runs",
        "name one under providers",
    ),
    "launcher's store": (
        there(LAUNCHER, launcher(endpoint="127.0.0.1:9")),
        f"FAIL pipeline root: {NOWHERE} does not answer",
        "check the address",
    ),
    "one store by its short and its full name": (
        there(LAUNCHER, launcher(endpoint="store.team.svc:9000"), **{STORAGE: SHORT})
        | env(AWS_ENDPOINT_URL_S3="STORE"),
        "ok   pipeline root: written, read and removed in s3://pud-pipelines/runs with the launcher's keys",
        "",
    ),
    "store of that name in another namespace": (
        there(LAUNCHER, launcher(endpoint="store.others.svc:9000"), **{STORAGE: SHORT})
        | env(AWS_ENDPOINT_URL_S3="STORE"),
        "warn pipeline root: http://store.others.svc:9000 has a name inside of the cluster only",
        "port-forward it",
    ),
    # the data set
    "data not pushed": (parameter(data_digest="0" * 32 + ".dir"), "FAIL data set: STORE: the object is", "dvc push"),
    "data elsewhere": (parameter(data_uri="dvc:s3://pud-data/x"), "FAIL data set: STORE: the object is", "dvc push"),
    "no digest": (parameter(data_digest=""), "FAIL data set: its digest is not given", "the md5 in data.dvc"),
    "data of the pods": (FILE, "warn data set: file:data is for the pods to see", "dvc:s3://BUCKET/PREFIX"),
    # MLflow
    "no MLflow": (gone(TRACKING) | FORGOTTEN, "warn MLflow: no server is named", "make the config map pud-tracking"),
    "no server": (parameter(tracking=DATABASE), "FAIL MLflow: postgresql://db/mlflow is no server", "http(s)"),
    "MLflow off": (LOST | parameter(tracking={"off": True}), "ok   MLflow: off by the tracking parameter", ""),
    "MLflow unreachable": (LOST, f"FAIL MLflow: {NOWHERE} does not answer (NewConnectionError)", "check the address"),
    "MLflow of the parameter": (
        env(MLFLOW_TRACKING_URI=f"http://{MLFLOW}") | parameter(tracking={"uri": NOWHERE}),
        f"FAIL MLflow: {NOWHERE} does not answer (NewConnectionError)",
        "check the address",
    ),
    "MLflow inside": (FORGOTTEN, f"warn MLflow: http://{MLFLOW} has a name inside of", "set MLFLOW_TRACKING_URI, or"),
    "MLflow ill": (told("/health", 503), "FAIL MLflow: URL is not healthy (503)", "look at the server's log"),
    "not MLflow": (told(SEARCH, 200, "<html>"), "FAIL MLflow: URL does not answer as MLflow does (200)", "check the"),
    "wrong password": (
        there(CREDENTIALS, secret(**ACCOUNT | {"MLFLOW_TRACKING_PASSWORD": OTHER})),
        "FAIL MLflow: URL refuses the name or the",
        "correct",
    ),
    "no experiment": (told(BY_NAME, 404, {}), "warn MLflow artifacts: there is no experiment pud", "run pud bootstrap"),
    "artifacts elsewhere": (
        told(BY_NAME, 200, {"experiment": {"artifact_location": "s3://pud-mlflow/7"}}),
        "warn MLflow artifacts: not through the server: experiment pud has s3://pud-mlflow/7",
        "--serve-artifacts",
    ),
    "others' experiment": (told("PUT", 403), "FAIL MLflow artifacts: this account may not write in", "give it MANAGE"),
    "MLflow's key": (told("DELETE", 500), "FAIL MLflow artifacts: the server cannot remove one (500)", "its bucket"),
    "no password": (gone(CREDENTIALS), "FAIL MLflow: URL asks for a name and a password", "MLFLOW_TRACKING_PASSWORD"),
    # Kubeflow
    "no endpoint": ({"given": {"endpoint": ""}}, "warn Kubeflow: no endpoint was given", "give --endpoint"),
    "Kubeflow unreachable": ({"given": {"endpoint": NOWHERE}}, f"FAIL Kubeflow: {NOWHERE} does not", "the address"),
    "token refused": ({"given": {"token": OTHER}}, "FAIL Kubeflow: URL does not take the token (401)", "get a new"),
    "no token": ({"given": {"token": "ключ"}}, "warn Kubeflow: could not be looked at (UnicodeEncodeError)", "again"),
    "login page": (told(HEALTH, 302), "FAIL Kubeflow: URL does not take the token (302)", "get a new token"),
    "not Kubeflow": (told(HEALTH, 200, "<html>"), "FAIL Kubeflow: URL does not answer as", "https://HOST/pipeline"),
    "old Kubeflow": (told(OLDER_HEALTH, 200, {"tag_name": "2.14.4"}), "FAIL Kubeflow: version 2.14.4 is", "to 2.15"),
    "oldest Kubeflow": (told(OLDER_HEALTH, 200, {"tag_name": "2.15.0"}), "ok   Kubeflow: URL, version 2.15.0", ""),
    "UI's server": (told(HEALTH, 200, {"apiServerTagName": "2.16.1"}), "ok   Kubeflow: URL, version 2.16.1", ""),
    "any Kubeflow": (told(OLDER_HEALTH, 404), "warn Kubeflow: URL tells no version", "look at the image of deployment"),
    "development": (told(OLDER_HEALTH, 200, {"tag_name": "dev"}), "warn Kubeflow: URL tells no version", "look at the"),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_is_missing_is_one_line_with_a_remedy_and_without_a_secret(world: World, row: str) -> None:
    change, line, remedy = ROWS[row]
    world.change(**change)
    checks = world.examine()
    shown = world.shown(checks)
    assert line in shown, shown
    (found,) = [one for one in shown.splitlines() if one.startswith(line)]
    assert remedy in found.partition(" -> ")[2]
    name = line[5:].partition(":")[0]
    failed = {check.name for check in checks if check.ok is False}
    assert failed - BEHIND.get(name, set()) == ({name} if line.startswith("FAIL") else set()), shown
    assert exit_code(checks) == bool(failed)
    assert not any(secret in shown for secret in SECRETS)


def test_where_nothing_is_missing_every_check_passes_and_nothing_is_left(world: World, store: ObjectStore) -> None:
    data = {"data_uri": "dvc:s3://pud-data/store", "data_digest": DIGEST}
    world.change(given={"pipeline": PIPELINE}, parameters=data)
    checks = world.examine()
    assert [check for check in checks if not check.ok] == []
    assert exit_code(checks) == 0
    assert len(checks) == 19
    assert not world.artifacts
    client = store.as_admin().client()
    left = [one for name in bucket_names({}) for one in client.list_objects(name, recursive=True, include_version=True)]
    assert len(left) == 1


def test_where_kubeflow_serves_a_single_user_its_launcher_and_its_rights_are_its_own(world: World) -> None:
    world.change(given={"namespace": ""}, objects={"namespaces/kubeflow": {}, LAUNCHER: None})
    world.change(denied={"create runs.pipelines.kubeflow.org", "get configmaps kfp-launcher"})
    world.change(given={"service_account": "pud-runner"}, objects={"serviceaccounts/pud-runner": {}})
    checks = world.examine()
    assert [check.name for check in checks if not check.ok] == []
    assert not {"config map kfp-launcher", "pipeline root"} & {check.name for check in checks}


@pytest.mark.parametrize("namespace", ["", "kubeflow"])
def test_kubeflows_own_account_is_refused_to_runs_of_a_single_user_until_it_is_named(
    world: World, namespace: str
) -> None:
    world.change(given={"namespace": namespace}, objects={"namespaces/kubeflow": {}})
    shown = world.shown()
    assert "FAIL service account: runs of a stranger's model would have Kubeflow's own, which may do nearly" in shown
    assert "-> give --service-account pud-runner" in shown
    world.change(given={"service_account": "pipeline-runner"}, objects={"serviceaccounts/pipeline-runner": {}})
    assert "FAIL" not in world.shown()


@pytest.mark.parametrize(("content", "line"), [(None, "there is no kubeconfig"), ("a: [", "cannot be asked (Parser")])
def test_without_a_kubeconfig_the_rest_is_looked_at(world: World, content: str | None, line: str) -> None:
    world.change(**KNOWN)
    world.kubeconfig.write_text(content) if content else world.kubeconfig.unlink()
    shown = world.shown()
    assert f"FAIL Kubernetes: {line}" in shown
    assert "ok   data set: " in shown


def test_mlflow_takes_the_host_once_it_is_started_as_the_remedy_says(world: World) -> None:
    world.hosts = ["localhost"]
    (line,) = [one for one in world.shown().splitlines() if "MLflow" in one]
    assert line.startswith(f"FAIL MLflow: URL refuses requests for host {MLFLOW} -> start it with --allowed-hosts ")
    world.hosts = line.rpartition(" ")[2].split(",")
    assert f"ok   MLflow: URL, for host {MLFLOW}, as pud" in world.shown()


@pytest.mark.parametrize(("right", "doing"), [("s3:GetObject", "read"), ("s3:DeleteObject*", "remove")])
def test_a_run_must_read_and_remove_what_it_writes(world: World, store: ObjectStore, right: str, doing: str) -> None:
    client, bucket = store.as_admin().client(), "pud-pipelines"
    policy = {"Effect": "Deny", "Principal": "*", "Action": right, "Resource": f"arn:aws:s3:::{bucket}/*"}
    client.set_bucket_policy(bucket, json.dumps({"Version": "2012-10-17", "Statement": [policy]}))
    try:
        assert f"FAIL pipeline root: these keys may write, but not {doing}, in bucket {bucket} -> use" in world.shown()
    finally:
        client.delete_bucket_policy(bucket)


@pytest.mark.parametrize("at", ["URL", NOWHERE])
def test_no_password_in_an_address_is_shown(world: World, at: str) -> None:
    address = at.replace("URL", world.url).replace("//", f"//someone:{OTHER}@")
    world.change(user={"server": address}, given={"endpoint": address}, environment={"MLFLOW_TRACKING_URI": address})
    for store in (address, address.replace("http", "ftp")):
        world.change(environment={**KNOWN["environment"], "AWS_ENDPOINT_URL_S3": store})
        assert not any(secret in world.shown() for secret in SECRETS)


def test_a_secret_that_a_line_holds_after_all_is_hidden(world: World) -> None:
    world.change(parameters={"data_uri": f"file:{OTHER}"}, environment={"MLFLOW_TRACKING_TOKEN": OTHER})
    assert "warn data set: file:*** is for the pods to see" in world.shown()


def test_a_pipeline_that_asks_for_nothing_is_examined_too(world: World) -> None:
    spec, _ = yaml.safe_load_all(world.given["pipeline"].read_text())
    for executor in spec["deploymentSpec"]["executors"].values():
        del executor["container"]["resources"]
    plain = world.kubeconfig.with_name("plain.yaml")
    plain.write_text(yaml.safe_dump(spec))
    world.change(given={"pipeline": plain}, **quota({"cpu": "1", "pods": "5"}))
    shown = world.shown()
    assert "ok   quota: small leaves room" in shown
    assert "config map pud-" not in shown


# -------------------------------------------------------------------------------------------- what a run asks for


def test_the_shipped_pipeline_asks_for_one_gpu_at_a_time() -> None:
    found = estimate(PIPELINE, {"train_size": 20_000})
    assert found.at_once["requests.nvidia.com/gpu"] == found.at_once["pods"] == 1
    assert (found.at_once["requests.memory"], found.disk) == (
        8 << 30,
        (placement.SCRATCH_GIB + placement.DATA_CACHE_GIB) * (1 << 30),
    )
    assert found.steps == len(steps_of(read_pipeline(PIPELINE)))
    assert "GPUs     1 nvidia.com/gpu at once" in str(found)
    larger = estimate(PIPELINE, {"accelerator_count": "0", "train_size": "40000"})
    assert "GPUs     none at once" in str(larger)
    assert not any("gpu" in name for name in larger.at_once)
    assert larger.artifacts_megabytes == 2 * found.artifacts_megabytes
    assert found.seconds < larger.seconds < 2 * found.seconds


def test_each_component_of_the_shipped_pipelines_has_a_measured_time_and_size() -> None:
    used = {step.component for path in PIPELINE.parent.glob("*.yaml") for step in read(path, {}).steps}
    assert used == MEASURED.keys()


def test_the_estimate_grows_with_the_pipeline(tmp_path: Path) -> None:
    shapes = [(2, True), (4, True), (4, False)]
    found = [estimate(compiled(tmp_path / f"{n}-{chained}.yaml", n, chained=chained), {}) for n, chained in shapes]
    assert [one.steps for one in found] == [2, 4, 4]
    assert [one.at_once["pods"] for one in found] == [1, 1, 4]
    assert [one.at_once["requests.nvidia.com/gpu"] for one in found] == [1, 1, 3]
    first, later = (
        placement.FIXED_SECONDS + per_gib * placement.DATA_GIB
        for per_gib in (placement.CPU_SECONDS_PER_GIB, placement.GPU_SECONDS_PER_GIB)
    )
    assert [one.longest for one in found] == [first + later, first + 3 * later, later]
    assert [one.seconds / found[0].seconds for one in found] == [1, 2, 0.5]


def step(name: str, before: str = "", cpu: int = 1) -> Step:
    asks = {"pods": Decimal(1), "requests.cpu": Decimal(cpu)}
    return Step(name, name, frozenset(before), "", "CPU pool", asks, {}, [], 0, Decimal(0), ())


@pytest.mark.parametrize(
    ("steps", "pods", "cpu"),
    [
        ([], 0, 0),
        ([step("a"), step("b", "a", cpu=5), step("c", "ab", cpu=2)], 1, 5),
        ([step("a"), step("b", cpu=5), step("c", cpu=2)], 3, 8),
        ([step("a", cpu=9), step("b", "a", cpu=5), step("c", "a", cpu=3), step("d", "abc")], 2, 9),
        ([step("a", cpu=4), step("b", "a"), step("c", cpu=2), step("d", "c", cpu=7)], 2, 11),
    ],
    ids=["none", "a chain", "side by side", "a diamond", "two chains"],
)
def test_the_most_at_once_is_that_of_steps_of_which_none_waits_for_another(
    steps: list[Step], pods: int, cpu: int
) -> None:
    for order in itertools.permutations(steps):
        assert (most_at_once(order, "pods"), most_at_once(order, "requests.cpu")) == (pods, cpu)


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "team", "operator": "Exists"}, True),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "team", "value": "red"}, True),
        ({"key": "team", "operator": "Equal", "value": "red", "effect": "NoSchedule"}, True),
        ({"key": "team", "operator": "Equal", "value": "blue"}, False),
        ({"key": "team"}, False),
    ],
)
def test_a_toleration_covers_what_kubernetes_lets_it_cover(toleration: dict[str, str], covers: bool) -> None:
    assert tolerates(toleration, V1Taint(key="team", value="red", effect="NoSchedule")) == covers


def test_a_toleration_without_a_value_covers_a_taint_without_one() -> None:
    assert tolerates({"key": "team"}, V1Taint(key="team", effect="NoExecute"))


@pytest.mark.parametrize(
    ("parameters", "thing"),
    [
        ({"trigga": "blend"}, "no parameter trigga"),
        ({"accelerator_count": "-1"}, "accelerator_count is '-1': give 0 or more"),
        ({"gpu_node_selector": "gpu"}, "parameter gpu_node_selector is 'gpu': give a JSON object"),
    ],
)
def test_a_wrong_parameter_is_refused(world: World, parameters: Change, thing: str) -> None:
    world.change(parameters=parameters)
    with pytest.raises(InputError, match=thing):
        world.examine()


EMPTY = "pipelineInfo: {name: x}, root: {dag: {tasks: {}}}, components: {}"


@pytest.mark.parametrize(
    ("content", "thing"),
    [
        (None, "is missing: run make compile"),
        (f"{{{EMPTY}}}", "KeyError 'deploymentSpec'.: give what make compile"),
        (f"{{{EMPTY}, deploymentSpec: {{executors: {{}}}}}}\n---\n[]", "TypeError"),
    ],
)
def test_what_is_no_compiled_pipeline_is_refused(tmp_path: Path, content: str | None, thing: str) -> None:
    if content:
        (tmp_path / "pipeline.yaml").write_text(content)
    with pytest.raises(InputError, match=thing):
        estimate(tmp_path / "pipeline.yaml", {})


def test_a_missing_ca_bundle_is_refused(world: World) -> None:
    with pytest.raises(InputError, match=r"nowhere.pem is missing: give a PEM file"):
        examine(**world.given, ca_bundle=Path("nowhere.pem"))


# ------------------------------------------------------------------------------------------- without a network


def test_offline_lists_the_image_of_the_steps_and_every_pin() -> None:
    found = offline(PIPELINE, {"image": "registry.example/pud:12e4567"}, constraints=PINS)
    assert found.images == ["registry.example/pud:12e4567"]
    assert found.packages == [line for line in PINS.read_text().splitlines() if not line.startswith("#")]


def test_offline_lists_the_images_of_manifests_as_kustomize_names_them(pipeline: Path, tmp_path: Path) -> None:
    pod = "spec: {containers: [{image: db:1}, {image: web:1}], initContainers: [{image: busybox}]}"
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "pods.yaml").write_text(f"{pod}\n---\n{{job: {{image: 'host:5000/job@sha256:ab'}}}}")
    rules = "images: [{name: db, newName: mirror/db, newTag: '2'}, {name: web, digest: 'sha256:cd'}]"
    (tmp_path / "kustomization.yml").write_text(rules)
    found = offline(pipeline, manifests=tmp_path, constraints=PINS)
    assert found.images == ["busybox", "host:5000/job@sha256:ab", "mirror/db:2", "pud:1", "web@sha256:cd"]


@pytest.mark.parametrize("missing", ["manifests", "constraints"])
def test_offline_refuses_what_it_cannot_read(pipeline: Path, tmp_path: Path, missing: str) -> None:
    given: Change = {"manifests": tmp_path, "constraints": PINS, missing: tmp_path / "nowhere"}
    with pytest.raises(InputError, match="nowhere"):
        offline(pipeline, **given)


def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """Return the exit code and the output of ``pud doctor``."""
    monkeypatch.setattr(sys, "argv", ["pud", "doctor", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_of:
        main()
    return exit_of.value.code, capfd.readouterr().out


@pytest.mark.parametrize("missing", [False, True])
def test_the_command_exits_with_1_if_something_is_missing(
    world: World, missing: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_", "PUD_"))]:
        monkeypatch.delenv(name)
    for name, value in world.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KFP_EXISTING_TOKEN", KUBEFLOW_TOKEN)
    if missing:
        world.change(**gone(NAMESPACE))
    where = ("--endpoint", world.url, "--namespace", "team", "--pipeline", world.given["pipeline"])
    status, output = said(monkeypatch, capfd, *where, "-p", "accelerator_count=2")
    assert status == missing
    assert ("FAIL namespace: team is missing -> correct" in output) == missing
    assert "GPUs     2 nvidia.com/gpu at once" in output
    assert not any(secret in output for secret in SECRETS)


def test_the_command_needs_no_cluster_to_list_what_to_mirror(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lock").write_text("# pins\ntorch==2.13.0\n")
    folders = ("--pipeline", pipeline, "--manifests", tmp_path, "--lock", tmp_path / "lock")
    assert said(monkeypatch, capfd, "--offline", *folders) == (0, "image pud:1\npip torch==2.13.0\n")
