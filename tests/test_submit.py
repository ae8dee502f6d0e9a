"""Submitting to Kubeflow: the real client against a server that holds every body against Kubeflow's own models."""

import json
import shutil
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kubernetes.config import kube_config
from servers import serving

from pud.artifacts.storage import KEPT_DAYS
from pud.base.errors import InputError
from pud.platform.cluster import submit as submission
from pud.platform.cluster.submit import RunFailed, submit

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "pipelines" / "pud.yaml"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.a-secret-nobody-may-see"
RUN, EXPERIMENT, NAMESPACE = "5f1c7d3e-run", "0b9a-experiment", "team-vision"
POD, NODE = "pud-x7k2p-system-container-impl-391", "pud-x7k2p-391"
NOW = datetime(2026, 11, 1, 10, tzinfo=UTC)
API = kfp_server_api.ApiClient()

Answer = tuple[int, Any]


def to_json(model: Any) -> Any:
    return API.sanitize_for_serialization(model)


def parsed(body: Any, kind: str) -> Any:
    """Read a body as one of the API's models; a field that the model does not have is an error."""
    model = API._ApiClient__deserialize(body, kind)
    assert to_json(model) == body, f"the body is no {kind}"
    return model


def task(name: str, state: str, *, error: str = "", pod: str | None = None, children: tuple[str, ...] = ()) -> Any:
    """A task as the API server tells of one: each node of the Argo workflow, a step or what is around it."""
    return kfp_server_api.V2beta1PipelineTaskDetail(
        run_id=RUN,
        task_id=f"id-of-{name}",
        display_name=name,
        state=state,
        error=kfp_server_api.GoogleRpcStatus(code=2, message=error) if error else None,
        pod_name=pod,
        child_tasks=[kfp_server_api.PipelineTaskDetailChildTask(pod_name=child) for child in children] or None,
    )


def run(state: str, *tasks: Any) -> Answer:
    details = kfp_server_api.V2beta1RunDetails(task_details=list(tasks))
    return 200, to_json(kfp_server_api.V2beta1Run(run_id=RUN, created_at=NOW, state=state, run_details=details))


def around(state: str) -> list[Any]:
    """The nodes around a failed step, which fail with it."""
    return [task(name, state) for name in ("pud-x7k2p", "root", "always-close-tracking", "defence", "executor(0)")]


def problem(status: int) -> Answer:
    return status, {"error": f"told {status}", "code": 16, "message": f"told {status}"}


@dataclass
class Kubeflow:
    """A Kubeflow Pipelines API (and, where a test asks for it, a Kubernetes API) that answers as it was told."""

    looks: list[Answer] = field(default_factory=lambda: [run("SUCCEEDED")])
    creation: Answer | None = None
    pods: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    submitted: list[Any] = field(default_factory=list)
    experiments: list[Any] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, target: str, body: Any) -> Answer:
        address = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        match (method, address.path.removeprefix("/apis/v2beta1/")):
            case "GET", "healthz":
                return 200, to_json(kfp_server_api.V2beta1GetHealthzResponse(multi_user=True))
            case "GET", "experiments":
                wanted = json.loads(query["filter"])["predicates"][0]
                found = [each for each in self.experiments if each.display_name == wanted["stringValue"]]
                return 200, to_json(kfp_server_api.V2beta1ListExperimentsResponse(experiments=found))
            case "POST", "experiments":
                made = parsed(body, "V2beta1Experiment")
                made.experiment_id, made.created_at = EXPERIMENT, NOW
                self.experiments.append(made)
                return 200, to_json(made)
            case "POST", "runs":
                return self.creation or self.create(body)
            case "GET", path if path == f"runs/{RUN}":
                return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
            case "GET", path if path == f"/api/v1/namespaces/{NAMESPACE}/pods":
                assert query["labelSelector"] == f"pipeline/runid={RUN}"
                return 200, {"kind": "PodList", "apiVersion": "v1", "items": self.pods}
            case "GET", path if path == f"/api/v1/namespaces/{NAMESPACE}/pods/{POD}/log":
                assert query["container"] == "main"
                return 200, self.log
        return problem(404)

    def create(self, body: Any) -> Answer:
        """Take a run as Kubeflow does: the pipeline and its platform settings by their protocol buffers."""
        made = parsed(body, "V2beta1Run")
        spec = json_format.ParseDict(made.pipeline_spec["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(made.pipeline_spec["platform_spec"], pipeline_spec_pb2.PlatformSpec())
        config = {"parameterValues": made.runtime_config.parameters}
        job = {"pipelineSpec": made.pipeline_spec["pipeline_spec"], "runtimeConfig": config}
        json_format.ParseDict(job, pipeline_spec_pb2.PipelineJob())
        assert set(config["parameterValues"]) <= set(spec.root.input_definitions.parameters)
        assert made.experiment_id == EXPERIMENT
        self.submitted.append(made)
        made.run_id, made.state, made.created_at = RUN, "PENDING", NOW
        return 200, to_json(made)


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    state = Kubeflow()

    def answer(method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        state.requests.append(f"{method} {path}")
        state.tokens.add(headers.get("authorization", ""))
        return state.answer(method, path, body)

    with serving(answer) as state.url:
        yield state


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches the cluster of whoever runs it."""
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nowhere"))
    kubeflow = ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME")
    for name in ("KUBERNETES_SERVICE_HOST", "MLFLOW_TRACKING_URI", *kubeflow):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kubeflow:
    """The same server as a Kubernetes API, by a kubeconfig."""
    one = {"cluster": "c", "user": "u"}
    content = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": one}],
        "clusters": [{"name": "c", "cluster": {"server": kubeflow.url}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    return kubeflow


def send(server: Kubeflow, *, wait: bool = True, timeout: float = 20, **changed: Any) -> str:
    """Submit with what most tests have in common."""
    given: dict[str, Any] = {
        "endpoint": server.url,
        "namespace": NAMESPACE,
        "token": TOKEN,
        "ca_bundle": None,
        "experiment": "pud",
        "pipeline": PIPELINE,
        "parameters": {"attack": "blend"},
        "run_name": None,
    }
    return submit(**{**given, **changed}, wait=wait, timeout_seconds=timeout, poll_seconds=0.05)


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the message, after a look that all that a traceback shows is free of the token."""
    assert TOKEN not in "".join(traceback.format_exception(error.value))
    return str(error.value)


def test_a_run_is_submitted_with_the_parameters_and_both_specs(kubeflow: Kubeflow) -> None:
    given = {"attack": "blend", "seed": "3", "accelerator_count": "0", "train_settings": '{"epochs": 2}'}
    assert send(kubeflow, wait=False, parameters=given, run_name="tuesday", service_account="runner") == RUN
    (made,) = kubeflow.submitted
    expected = {"attack": "blend", "seed": 3, "accelerator_count": "0", "train_settings": {"epochs": 2}}
    expected |= submission._period(yaml.safe_load_all(PIPELINE.read_text()).__next__())
    assert made.runtime_config.parameters == expected
    assert made.display_name == "tuesday"
    assert made.service_account == "runner"
    pipeline, platform = yaml.safe_load_all(PIPELINE.read_text())
    for name, model, source in (
        ("pipeline_spec", pipeline_spec_pb2.PipelineSpec, pipeline),
        ("platform_spec", pipeline_spec_pb2.PlatformSpec, platform),
    ):
        sent = json_format.ParseDict(made.pipeline_spec[name], model())
        assert sent == json_format.ParseDict(source, model())
    assert [(each.display_name, each.namespace) for each in kubeflow.experiments] == [("pud", NAMESPACE)]
    assert kubeflow.tokens == {f"Bearer {TOKEN}"}


def test_no_cached_result_is_older_than_what_the_store_keeps() -> None:
    spec = next(yaml.safe_load_all(PIPELINE.read_text()))
    day, kept = 86_400, KEPT_DAYS * 86_400
    for made in range(0, 2 * kept, day):
        now = submission._period(spec, made)
        assert submission._period(spec, made + kept - 2 * day) != now, "what is about to expire is not taken"
    assert len({*(submission._period(spec, at)["cache_period"] for at in range(0, kept, day))}) == 2, "most is"
    assert submission._period({"root": {"inputDefinitions": {"parameters": {}}}}) == {}


def test_a_period_that_is_given_is_kept(kubeflow: Kubeflow) -> None:
    send(kubeflow, wait=False, parameters={"cache_period": "mine"})
    assert kubeflow.submitted[0].runtime_config.parameters == {"cache_period": "mine"}


def caching(spec: Any) -> set[bool]:
    parts = [spec["root"], *spec["components"].values()]
    tasks = [task for part in parts for task in part.get("dag", {}).get("tasks", {}).values()]
    return {task.get("cachingOptions", {}).get("enableCache", False) for task in tasks}


def test_without_the_cache_no_task_of_any_nested_pipeline_is_cached(kubeflow: Kubeflow) -> None:
    send(kubeflow, wait=False)
    send(kubeflow, wait=False, cache=False)
    usual, without = (made.pipeline_spec["pipeline_spec"] for made in kubeflow.submitted)
    assert (caching(usual), caching(without)) == ({True, False}, {False})


def test_the_experiment_is_used_again(kubeflow: Kubeflow) -> None:
    send(kubeflow, wait=False)
    send(kubeflow, wait=False)
    assert len(kubeflow.experiments) == 1


def test_a_server_for_a_single_user_is_asked_without_a_namespace(kubeflow: Kubeflow) -> None:
    send(kubeflow, wait=False, namespace="")
    assert [each.namespace for each in kubeflow.experiments] in ([None], [""])


@pytest.mark.parametrize(
    ("pipeline", "tracking", "shown"),
    [("pud", {}, True), ("pud", {"off": True}, False), ("pud", {"experiment": "other"}, False), ("scan", None, False)],
)
def test_where_mlflow_shows_a_run_is_said_at_its_end_if_the_server_has_it(
    pipeline: str,
    tracking: dict[str, Any] | None,
    shown: bool,
    kubeflow: Kubeflow,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def mlflow(method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        asked = parse_qs(urlsplit(path).query)["experiment_name"]
        if asked == ["pud"]:
            return 200, {"experiment": {"experiment_id": "7", "name": "pud"}}
        return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {asked}"}

    given = {} if tracking is None else {"tracking": json.dumps(tracking)}
    with serving(mlflow) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("//", "//somebody:opensesame@"))
        send(kubeflow, pipeline=PIPELINE.with_name(f"{pipeline}.yaml"), parameters=given)
    page = f"MLflow: open {uri}/#/experiments/7/runs?workflowType=machine_learning"
    assert (page in (told := capfd.readouterr().err)) == shown
    assert "opensesame" not in told


def test_an_mlflow_that_is_away_spoils_no_run(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert send(kubeflow) == RUN


def test_success_returns_and_tells_each_change_once(kubeflow: Kubeflow, capfd: pytest.CaptureFixture[str]) -> None:
    kubeflow.looks = [
        run("PENDING"),
        run("RUNNING", task("root", "RUNNING"), task("train", "RUNNING")),
        run("RUNNING", task("root", "RUNNING"), task("train", "RUNNING")),
        run("SUCCEEDED", task("root", "SUCCEEDED"), task("train", "SUCCEEDED")),
    ]
    assert send(kubeflow) == RUN
    output = capfd.readouterr()
    first, *rest = output.err.splitlines()
    assert f"{kubeflow.url}/#/runs/details/{RUN}" in first
    states = ["run PENDING", "run RUNNING", "train RUNNING", "run SUCCEEDED", "train SUCCEEDED"]
    assert rest == [f"pud: {state}" for state in states]
    assert output.out == ""
    assert TOKEN not in output.err


def test_a_failed_run_names_the_step_and_how_to_get_its_log(kubeflow: Kubeflow) -> None:
    kubeflow.looks = [
        run("FAILED", *around("FAILED"), task("poison", "SUCCEEDED"), task("train", "FAILED", error="OOM"))
    ]
    with pytest.raises(RunFailed) as error:
        send(kubeflow)
    message = told(error)
    assert "ended FAILED, train FAILED (OOM)\n" in message
    assert f"kubectl logs -n {NAMESPACE} -l pipeline/runid={RUN} --prefix -c main" in message
    assert "executor" not in message
    assert "poison" not in message


def test_a_failed_driver_is_named(kubeflow: Kubeflow) -> None:
    kubeflow.looks = [run("FAILED", *around("FAILED"), task("train-driver", "FAILED", pod=POD))]
    with pytest.raises(RunFailed, match="train-driver FAILED") as error:
        send(kubeflow)
    assert f"kubectl logs -n {NAMESPACE} {POD} " in told(error)


def pod(name: str, node: str, path: str, phase: str, created: str) -> dict[str, Any]:
    notes = {"workflows.argoproj.io/node-id": node, "workflows.argoproj.io/node-name": path}
    end = {"exitCode": 137, "reason": "OOMKilled"} if phase == "Failed" else {"exitCode": 0, "reason": "Completed"}
    status = {"name": "main", "image": "pud", "imageID": "pud", "ready": False, "restartCount": 0}
    return {
        "metadata": {"name": name, "annotations": notes, "creationTimestamp": created},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase, "containerStatuses": [{**status, "state": {"terminated": end}}]},
    }


@pytest.mark.parametrize(
    "known",
    [{}, {"children": (NODE,)}, {"pod": NODE}, {"pod": POD}],
    ids=["by its path", "by its child", "by its node", "by its name"],
)
def test_a_failed_run_shows_the_end_of_the_failing_pods_log(cluster: Kubeflow, known: dict[str, Any]) -> None:
    path = "pud-x7k2p.root.exit-handler-1.defence.{}.executor({})"
    train = path.format("train", 1) if not known else "elsewhere"
    cluster.pods = [
        pod("pud-x7k2p-first-try", "first", path.format("train", 0), "Failed", "2026-11-01T10:00:00Z"),
        pod(POD, NODE, train, "Failed", "2026-11-01T10:05:00Z"),
        pod("pud-x7k2p-poison", "other", path.format("poison", 0), "Succeeded", "2026-11-01T10:09:00Z"),
    ]
    cluster.log = "epoch 1\npud.base.errors.InputError: labels.npy is missing\n"
    cluster.looks = [run("FAILED", *around("FAILED"), task("train", "FAILED", **known))]
    with pytest.raises(RunFailed) as error:
        send(cluster)
    message = told(error)
    assert f"the end of the log of train, pod {POD} (OOMKilled, exit code 137):\n  epoch 1\n" in message
    assert message.endswith("  pud.base.errors.InputError: labels.npy is missing")


def test_a_pod_that_is_gone_does_not_hide_the_failure(cluster: Kubeflow) -> None:
    cluster.looks = [run("FAILED", task("train", "FAILED"))]
    with pytest.raises(RunFailed, match=r"train FAILED\n.*its pod is gone.*kubectl logs"):
        send(cluster)


@pytest.mark.parametrize("state", ["CANCELED", "SKIPPED"])
def test_a_run_that_was_cancelled_or_skipped_is_no_success(kubeflow: Kubeflow, state: str) -> None:
    kubeflow.looks = [run("RUNNING", task("train", "RUNNING")), run("CANCELING"), run(state, task("train", state))]
    with pytest.raises(RunFailed, match=f"ended {state}") as error:
        send(kubeflow)
    assert ("train CANCELED" in told(error)) == (state == "CANCELED")


def test_a_timeout_names_the_step_and_leaves_the_run_alone(kubeflow: Kubeflow) -> None:
    kubeflow.looks = [run("RUNNING", task("poison", "SUCCEEDED"), task("train", "RUNNING"), task("detect", "PENDING"))]
    with pytest.raises(RunFailed, match=r"not done after 0\.3 s but RUNNING, train RUNNING; it goes on"):
        send(kubeflow, timeout=0.3)
    after = kubeflow.requests[kubeflow.requests.index("POST /apis/v2beta1/runs") + 1 :]
    assert set(after) == {f"GET /apis/v2beta1/runs/{RUN}"}


def test_a_token_that_expires_is_one_sentence_and_the_run_goes_on(kubeflow: Kubeflow) -> None:
    for denied in (problem(401), problem(403), (200, "<html>log in</html>")):
        kubeflow.looks = [run("RUNNING", task("train", "RUNNING")), denied]
        with pytest.raises(InputError, match="no longer accepted") as error:
            send(kubeflow)
        message = told(error)
        assert "\n" not in message
        assert RUN in message
        assert "goes on" in message
        assert f"kubectl create token default-editor -n {NAMESPACE}" in message


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_away_for_a_moment_is_survived(
    kubeflow: Kubeflow, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    kubeflow.looks = [run("RUNNING"), problem(status), problem(status), run("RUNNING"), run("SUCCEEDED")]
    assert send(kubeflow) == RUN
    assert capfd.readouterr().err.count("trying again") == 1


def test_a_server_that_stays_away_ends_at_the_timeout(kubeflow: Kubeflow) -> None:
    kubeflow.looks = [run("RUNNING"), problem(503)]
    with pytest.raises(RunFailed, match=r"not done after 0\.4 s"):
        send(kubeflow, timeout=0.4)


def test_a_refused_connection_while_waiting_is_survived(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow.looks = [run("RUNNING"), run("SUCCEEDED")]
    whole, ports = kfp_server_api.RunServiceApi.run_service_get_run, iter(["http://127.0.0.1:9"])

    def once_elsewhere(self: Any, *arguments: Any, **options: Any) -> Any:
        self.api_client.configuration.host = next(ports, kubeflow.url)
        return whole(self, *arguments, **options)

    monkeypatch.setattr(kfp_server_api.RunServiceApi, "run_service_get_run", once_elsewhere)
    assert send(kubeflow) == RUN


@pytest.mark.parametrize(
    ("parameters", "thing"),
    [
        ({"trigga": "blend"}, "no parameter trigga: choose from accelerator, accelerator_count"),
        ({"seed": "three"}, "parameter seed is 'three': give a whole number"),
        ({"seed": 1.5}, "parameter seed is 1.5: give a whole number"),
        ({"seed": True}, "parameter seed is True: give a whole number"),
        ({"poison_rate": "NaN"}, "parameter poison_rate is 'NaN': give a number"),
        ({"attack": 7}, "parameter attack is 7: give a string"),
        ({"train_settings": "[1]"}, "parameter train_settings is '[1]': give a JSON object"),
        ({"train_settings": {"rate": float("inf")}}, "parameter train_settings"),
        ({"cpu_tolerations": {}}, "parameter cpu_tolerations is {}: give a JSON list"),
    ],
)
def test_a_wrong_parameter_is_refused_before_any_request(
    kubeflow: Kubeflow, parameters: dict[str, Any], thing: str
) -> None:
    with pytest.raises(InputError) as error:
        send(kubeflow, parameters=parameters)
    assert thing in told(error)
    assert kubeflow.requests == []


@pytest.mark.parametrize(
    ("name", "content", "thing"),
    [
        ("nowhere.yaml", None, "is missing: run make compile"),
        ("pud.json", "{}", "is not a YAML file"),
        ("empty.yaml", "", "is not a compiled pipeline"),
        ("list.yaml", "[1, 2]", "is not a compiled pipeline"),
        ("broken.yaml", "a: [", "is not a compiled pipeline"),
        ("dvc.yaml", "stages: {}", "is not a compiled pipeline"),
    ],
)
def test_what_is_no_compiled_pipeline_is_refused_before_any_request(
    kubeflow: Kubeflow, tmp_path: Path, name: str, content: str | None, thing: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=thing):
        send(kubeflow, pipeline=path)
    assert kubeflow.requests == []


@pytest.mark.parametrize(
    ("changed", "thing"),
    [
        ({"endpoint": "kubeflow.example.com"}, "no URL"),
        ({"endpoint": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"ca_bundle": Path("nowhere.pem")}, "nowhere.pem is missing"),
        ({"token": f"Bearer {TOKEN}"}, "without Bearer"),
        ({"token": f"{TOKEN}\nX-More: {TOKEN}"}, "without Bearer"),
        ({"token": f"{TOKEN}é"}, "without Bearer"),
    ],
)
def test_a_wrong_endpoint_or_token_is_one_sentence(kubeflow: Kubeflow, changed: dict[str, Any], thing: str) -> None:
    with pytest.raises(InputError) as error:
        send(kubeflow, **changed)
    assert thing in told(error)
    assert "\n" not in told(error)
    assert kubeflow.submitted == []


@pytest.mark.parametrize(
    ("creation", "thing"),
    [
        (problem(401), "refuses the token for namespace team-vision (401 Unauthorized told 401)"),
        (problem(403), "kubectl create token default-editor"),
        (problem(503), "answered 503"),
        ((400, {"message": f"bad header Bearer {TOKEN}"}), "bad header Bearer (token)"),
        ((200, "<html>log in</html>"), "a login page perhaps"),
    ],
)
def test_a_refused_submission_is_one_sentence_without_the_token(
    kubeflow: Kubeflow, creation: Answer, thing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    kubeflow.creation = creation
    with pytest.raises(InputError) as error:
        send(kubeflow)
    assert thing in told(error)
    assert "\n" not in told(error)
    output = capfd.readouterr()
    assert TOKEN not in output.out + output.err


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_tls_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subprocess.run([*new, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(418)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    there = Kubeflow(url=f"https://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(InputError, match="give the cluster's CA bundle"):
            send(there)
        with pytest.raises(InputError, match="answered 418"):
            send(there, ca_bundle=certificate)
        with pytest.raises(InputError, match="answered 418"):
            send(there, verify_tls=False)
    finally:
        server.shutdown()
        server.server_close()


def test_the_plain_command_of_kubeflow_is_accepted_too(kubeflow: Kubeflow, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("kfp"), "--endpoint", kubeflow.url, "--namespace", NAMESPACE]
    arguments = ["run", "submit", "-e", "pud", "-f", PIPELINE, "attack=blend"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert RUN in done.stdout
    (made,) = kubeflow.submitted
    assert made.runtime_config.parameters == {"attack": "blend"}


def test_nothing_of_the_platform_is_imported_before_it_is_needed() -> None:
    script = f"import sys, {submission.__name__}; print({{'kfp', 'kubernetes', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
