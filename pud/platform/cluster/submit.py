"""Submit the compiled pipeline to Kubeflow, and wait: however a run ends, it is told, with the step and its log."""

import io
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import yaml

from pud.artifacts.storage import KEPT_DAYS
from pud.base.errors import InputError
from pud.base.progress import say
from pud.platform.compiled import checked, parameters_of, read_pipeline, steps_of, tasks_of

DONE = "SUCCEEDED"
ENDED = {DONE, "FAILED", "CANCELED", "SKIPPED"}
NOT_TO_BLAME = {None, DONE, "SKIPPED", "PENDING", "RUNTIME_STATE_UNSPECIFIED"}
DENIED, TRANSIENT = {401, 403}, {429, 502, 503, 504}
REQUEST_SECONDS = 10.0
LONGEST_PAUSE = 60.0
LOG_LINES = 20
CACHE_PERIOD = "cache_period"


class RunFailed(Exception):
    """A run was submitted and did not succeed in time: the message names the run, the step and the end of its log."""


def submit(
    *,
    endpoint: str,
    namespace: str,
    token: str,
    ca_bundle: Path | None,
    verify_tls: bool = True,
    experiment: str,
    service_account: str = "",
    pipeline: Path,
    parameters: Mapping[str, Any],
    run_name: str | None,
    wait: bool,
    timeout_seconds: float,
    poll_seconds: float,
    cache: bool = True,
) -> str:
    """Submit a compiled pipeline and return the id of its run; with ``wait``, return once the run has succeeded.

    Args:
        endpoint: URL of Kubeflow Pipelines, such as ``https://kubeflow.example.com/pipeline``.
        namespace: The user's profile; empty where Kubeflow Pipelines serves a single user.
        token: Bearer token, empty for none. No output and no exception shows it.
        ca_bundle: PEM file of the authorities that sign the endpoint's certificate; None: the public ones.
        verify_tls: False accepts any certificate.
        experiment: Made if it is not there.
        service_account: Of the run's pods; empty: Kubeflow's own.
        parameters: Values by name. Text is read as the type that the pipeline declares.
        run_name: None: the pipeline's name and the time.
        timeout_seconds: How long to wait. The run goes on when it is over.
        poll_seconds: Pause between two looks at the run; while the endpoint does not answer it doubles up to a minute.
        cache: False: no step takes what Kubeflow's cache has of an earlier run, whose artifacts may have expired.

    Raises:
        InputError: what was given is wrong or was refused; or the token ran out while waiting, and the run goes on.
        RunFailed: the run failed, was cancelled or skipped, or was not done in time.
    """
    token = token.strip()
    try:
        compiled = read_pipeline(pipeline)
        arguments = checked({**_period(compiled), **parameters}, compiled, pipeline)
        with _explained(endpoint, namespace), tempfile.TemporaryDirectory() as scratch:
            client = _client(endpoint, namespace, token, ca_bundle, verify_tls)
            package = pipeline if cache else without_cache(pipeline, Path(scratch))
            run_id = _create(client, endpoint, experiment, service_account, package, arguments, run_name, namespace)
        run = _Run(client, run_id, endpoint.rstrip("/"), namespace, steps_of(compiled))
        say(f"submitted: {run}")
        if wait:
            run.wait(timeout_seconds, poll_seconds)
            if "tracking" in parameters_of(compiled):
                _say_where_recorded(arguments.get("tracking", {}))
    except (InputError, RunFailed) as error:
        if token and token in str(error):  # a server may echo what it was sent
            raise type(error)(str(error).replace(token, "(token)")) from None
        raise
    return run_id


def _say_where_recorded(tracking: Mapping[str, Any]) -> None:
    """Say where MLflow shows the run, if this machine is told of a server, and that has the experiment.

    tracking: the pipeline's parameter; its address of the server is the pods', which may lead nowhere from here.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.get("off") or not uri.startswith("http"):
        return
    from pud.platform.local_run import how_to_open
    from pud.reporting.tracking import LOST, Tracking, page_of

    with suppress(*LOST):
        if page := page_of(Tracking(uri, tracking.get("experiment") or Tracking.experiment)):
            say(f"MLflow: {how_to_open(uri, page)}")


def _period(compiled: Mapping[str, Any], seconds: float | None = None) -> dict[str, str]:
    """Return the parameter that keeps Kubeflow's cache, which never forgets, from naming what the store has let expire.

    Half as long as runs are kept: what was made in it is there for as long again. seconds: since 1970; None: now.
    """
    period = int((time.time() if seconds is None else seconds) // (KEPT_DAYS / 2 * 86_400))
    return {CACHE_PERIOD: str(period)} if CACHE_PERIOD in compiled["root"]["inputDefinitions"]["parameters"] else {}


def without_cache(pipeline: Path, folder: Path) -> Path:
    """Write a compiled pipeline none of whose tasks is cached into a folder, and return its path.

    kfp's own ``enable_caching=False`` reaches the tasks of the outermost pipeline only.
    """
    documents = list(yaml.safe_load_all(pipeline.read_text()))
    for _, task in tasks_of(documents[0]):
        task["cachingOptions"] = {}
    out = folder / pipeline.name
    out.write_text(yaml.safe_dump_all(documents))
    return out


def _client(endpoint: str, namespace: str, token: str, ca_bundle: Path | None, verify_tls: bool) -> Any:
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"endpoint {endpoint!r} is no URL: give one such as https://kubeflow.example.com/pipeline")
    if not (token.isascii() and all(character.isprintable() and character != " " for character in token)):
        raise InputError("the token holds a space or a character that no token has: give it alone, without Bearer")
    if ca_bundle is not None and not ca_bundle.is_file():
        raise InputError(f"CA bundle {ca_bundle} is missing: give a PEM file")
    import kfp

    class Client(kfp.Client):
        """Kubeflow's client, but what is wrong with the endpoint is told at once and not after 25 seconds."""

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            return self.healthzs.healthz_service_get_healthz(_request_timeout=(REQUEST_SECONDS, REQUEST_SECONDS))

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every single retry
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that servers before 2.0 are not supported
        client = Client(
            host=endpoint,
            namespace=namespace,
            existing_token=token or None,
            ssl_ca_cert=str(ca_bundle) if ca_bundle else None,
            verify_ssl=verify_tls,
        )
    client.get_kfp_healthz()  # kfp's other requests would wait for ever for a host that does not answer
    return client


def _create(
    client: Any,
    endpoint: str,
    experiment: str,
    service_account: str,
    pipeline: Path,
    arguments: dict[str, Any],
    run_name: str | None,
    namespace: str,
) -> str:
    with redirect_stdout(io.StringIO()):  # kfp prints links of its own
        created = client.create_run_from_pipeline_package(
            str(pipeline),
            arguments=arguments,
            run_name=run_name,
            experiment_name=experiment,
            namespace=namespace or None,
            service_account=service_account or None,
        )
    if not created.run_id:
        raise InputError(
            f"{endpoint} does not answer as Kubeflow Pipelines does, a login page perhaps: check the URL, and "
            + _new_token(namespace)
        )
    return str(created.run_id)


@contextmanager
def _explained(endpoint: str, namespace: str) -> Iterator[None]:
    """Turn what the client raises into a sentence. No cause is chained: it may quote what was sent."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in DENIED:
            raise InputError(
                f"{endpoint} refuses the token for namespace {namespace or '(none)'} ({_answer(error)}): "
                + _new_token(namespace)
            ) from None
        later = "try again later, after a look whether a run was made all the same"
        remedy = later if error.status in TRANSIENT else "check the endpoint and the namespace"
        raise InputError(f"{endpoint} answered {_answer(error)}: {remedy}") from None
    except HTTPError as error:
        remedy = "give the cluster's CA bundle" if "CERTIFICATE" in str(error) else "check the URL and the network"
        raise InputError(f"{endpoint} cannot be reached ({_cause(error)}): {remedy}") from None


def _new_token(namespace: str) -> str:
    command = f"kubectl create token default-editor -n {namespace or 'kubeflow'} --audience pipelines.kubeflow.org"
    return f"get a new token, for instance with `{command}`"


def _answer(error: Any) -> str:
    """Return the status of a refused request and what the server says of it."""
    try:
        body = json.loads(error.body)
        told = body.get("message") or body.get("error") or ""
    except (TypeError, ValueError, AttributeError):
        told = ""
    return " ".join(f"{error.status or ''} {error.reason or ''} {told}".split())[:300]


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rsplit(": ", 1)[-1][:200]


class _Run:
    """A submitted run, and what is needed to watch it."""

    def __init__(self, client: Any, run_id: str, endpoint: str, namespace: str, steps: set[str]) -> None:
        self.client, self.run_id, self.namespace, self.steps = client, run_id, namespace, steps
        self.link = f"{endpoint}/#/runs/details/{run_id}"
        self.shown: dict[str, str] = {}
        self.state, self.tasks = "PENDING", list[Any]()

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.link})"

    def wait(self, timeout_seconds: float, poll_seconds: float) -> None:
        """Look at the run until it has ended, and return if it succeeded."""
        deadline = time.monotonic() + timeout_seconds
        pause = poll_seconds
        while self.state not in ENDED:
            if (left := deadline - time.monotonic()) <= 0:
                raise RunFailed(f"{self} is not done after {timeout_seconds:g} s but {self._where()}; it goes on")
            trouble = self._look(min(left, REQUEST_SECONDS))
            if trouble and pause == poll_seconds:
                say(f"the endpoint does not answer ({trouble}): trying again")
            pause = min(2 * pause, max(poll_seconds, LONGEST_PAUSE)) if trouble else poll_seconds
            if self.state not in ENDED:
                time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        if self.state != DONE:
            log = "".join(map(self._log, self._to_blame())) if self.state == "FAILED" else ""
            raise RunFailed(f"{self} ended {self._where()}{log}")

    def _look(self, seconds: float) -> str:
        """Ask for the run and show what changed; return what stands in the way for a moment, if anything does."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            run = self.client.runs.run_service_get_run(self.run_id, _request_timeout=(seconds, seconds))
        except ApiException as error:
            if error.status in TRANSIENT:
                return _answer(error)
            if error.status in DENIED:
                raise self._expired(_answer(error)) from None
            raise RunFailed(f"{self} can no longer be watched, the endpoint answers {_answer(error)}") from None
        except HTTPError as error:
            return _cause(error)
        if run.run_id != self.run_id:
            raise self._expired("another page came, a login perhaps")
        self.state, self.tasks = run.state or self.state, (run.run_details and run.run_details.task_details) or []
        for name, state in [("run", self.state), *((task.display_name, task.state) for task in self.tasks)]:
            if state and self.shown.get(name) != state and name in {"run", *self.steps}:
                self.shown[name] = state
                say(f"{name} {state}")
        return ""

    def _expired(self, told: str) -> InputError:
        return InputError(f"the token is no longer accepted ({told}), but {self} goes on: {_new_token(self.namespace)}")

    def _to_blame(self) -> list[Any]:
        """Return the tasks that failed, else those that were under way.

        Argo's nodes are tasks too, and the nested pipelines, retries and executors around a step fail with it: steps
        and their drivers come first.
        """
        failed = [task for task in self.tasks if task.state == "FAILED"]
        tasks = failed or [task for task in self.tasks if task.state not in NOT_TO_BLAME]
        return [task for task in tasks if (task.display_name or "").removesuffix("-driver") in self.steps] or tasks

    def _where(self) -> str:
        """Return the state of the run and of the steps that it is due to."""
        named = [
            f"{task.display_name} {task.state}" + (f" ({task.error.message})" if task.error else "")
            for task in self._to_blame()
        ]
        return f"{self.state}, {', '.join(named) or 'no step named'}"

    def _log(self, task: Any) -> str:
        """Return the end of a failed task's log; without access to the cluster, the command that shows it."""
        namespace = self.namespace or "kubeflow"
        selector = f"pipeline/runid={self.run_id}"
        pod = task.pod_name or f"-l {selector} --prefix"
        try:
            found, reason, text = _pod_log(namespace, selector, task)
        except Exception as error:  # the cluster is a courtesy here: whatever it does, the run's failure is the news
            told = str(error).strip().splitlines()[:1] or [type(error).__name__]
            show = f"kubectl logs -n {namespace} {pod} -c main --tail={LOG_LINES}"
            return f"\nthe log of {task.display_name} cannot be read from here ({told[0][:120]}): {show}"
        lines = "".join(f"\n  {line}" for line in text.rstrip().splitlines()) or "\n  (empty)"
        return f"\nthe end of the log of {task.display_name}, pod {found}{reason}:{lines}"


def _pod_log(namespace: str, selector: str, task: Any) -> tuple[str, str, str]:
    """Return the name of a failed task's last pod, why its container ended, and the end of its log.

    Kubeflow 2.17 seldom tells a task's pod, and where it does it is Argo's node: pods are found by their annotations.
    """
    core = _cluster()
    nodes = {task.pod_name, *(child.pod_name for child in task.child_tasks or [])} - {None}

    def belongs(pod: Any) -> bool:
        notes = pod.metadata.annotations or {}
        path = notes.get("workflows.argoproj.io/node-name", "").split(".")
        return (
            bool({pod.metadata.name, notes.get("workflows.argoproj.io/node-id")} & nodes) or task.display_name in path
        )

    timeout = {"_request_timeout": REQUEST_SECONDS}
    pods = [
        pod for pod in core.list_namespaced_pod(namespace, label_selector=selector, **timeout).items if belongs(pod)
    ]
    if not pods:
        raise LookupError("its pod is gone")
    last = max(pods, key=lambda pod: (pod.status.phase == "Failed", pod.metadata.creation_timestamp))
    ends = [status.state.terminated for status in last.status.container_statuses or [] if status.name == "main"]
    reason = "".join(f" ({end.reason}, exit code {end.exit_code})" for end in ends if end)
    name = last.metadata.name
    text = core.read_namespaced_pod_log(name, namespace, container="main", tail_lines=LOG_LINES, **timeout)
    return name, reason, text


def _cluster() -> Any:
    """Return the Kubernetes API by the kubeconfig, or by the service account of the pod that this runs in."""
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_kube_config(client_configuration=configuration)
    except config.ConfigException:
        config.load_incluster_config(client_configuration=configuration)
    return client.CoreV1Api(client.ApiClient(configuration))
