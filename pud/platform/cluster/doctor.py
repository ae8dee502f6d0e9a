"""Pre-flight: what a run needs, looked at one by one before anything is spent.

Nothing that this prints holds a credential. Nothing is changed, but for an object that is written and removed again.
"""

import base64
import dataclasses
import io
import itertools
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pud.artifacts.storage import BUCKETS, DIGEST, S3, TEMPORARY_PREFIX, bucket_names, parse, said
from pud.base.errors import InputError, without_userinfo
from pud.platform.cluster.bootstrap import EXPERIMENT
from pud.platform.cluster.requirements import (
    BUCKET_NAMES,
    GIB,
    LAUNCHER,
    Compiled,
    Launcher,
    Reference,
    Step,
    estimate_of,
    quantity,
    read,
    stripped,
)
from pud.platform.cluster.submit import REQUEST_SECONDS, _cluster

SINGLE_USER_NAMESPACE = "kubeflow"
OLDEST_KUBEFLOW = (2, 15)  # of Kubeflow Pipelines, as in Kubeflow 1.11; tests hold the pipeline against it
HEALTH = ("v2beta1", "v1beta1")  # the older API tells the version; the newer one only where the UI's server answers
TIMEOUT: dict[str, Any] = {"_request_timeout": REQUEST_SECONDS}  # of each request to Kubernetes
STORAGE_VARIABLES = {"AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
ADDRESSES = ("AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI")  # a port that is forwarded has another one here
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
LISTED = 3  # of many nodes

# (verb, resource): what watching a run needs. What else is looked at depends on what the run refers to: ``wanted``
NEEDED = (("list", "pods"), ("get", "pods/log"))
PLURALS = {
    "configMap": "configmaps",
    "secret": "secrets",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "serviceAccount": "serviceaccounts",
}


@dataclass(frozen=True)
class Check:
    """What one look found. ok: None where it could not be looked at, or where a run does without."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        word = {True: "ok  ", False: "FAIL", None: "warn"}[self.ok]
        return f"{word} {self.name}: {self.detail}" + (f" -> {self.remedy}" if self.remedy and not self.ok else "")


def render(checks: Iterable[Check]) -> str:
    """Return one line for each check."""
    return "\n".join(map(str, checks))


def exit_code(checks: Iterable[Check]) -> int:
    """Return 1 if a check failed; warnings are no failure."""
    return int(any(check.ok is False for check in checks))


# ------------------------------------------------------------------------------------------------------- the checks


def examine(
    *,
    endpoint: str,
    namespace: str,
    token: str = "",
    ca_bundle: Path | None = None,
    service_account: str = "",
    pipeline: Path,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[Check]:
    """Return what a run with these parameters would find in the cluster.

    The object store and MLflow are asked as the pods would: with the names and keys that the config maps and secrets
    give to them, and with those of the environment where these cannot be read. AWS_ENDPOINT_URL_S3 and
    MLFLOW_TRACKING_URI of the environment come first: from here the servers may have other addresses.

    Args:
        endpoint: URL of Kubeflow Pipelines; empty: not looked at.
        namespace: The namespace of the runs; empty where Kubeflow Pipelines serves a single user.
        token: Bearer token for the endpoint, empty for none.
        ca_bundle: PEM file of the authorities to trust; None: the public ones, and AWS_CA_BUNDLE for the object store.
        service_account: Of the run's pods; empty: Kubeflow's own, which may far too much where it serves a single user.

    Raises:
        InputError: the pipeline, a parameter or the CA bundle is wrong.
    """
    if ca_bundle is not None and not ca_bundle.is_file():
        raise InputError(f"CA bundle {ca_bundle} is missing: give a PEM file")
    compiled = read(pipeline, parameters or {})
    namespace = namespace or SINGLE_USER_NAMESPACE
    checks = _tried("Kubeflow", kubeflow, endpoint, token.strip(), ca_bundle)
    known, launcher, launchers = dict[str, str](), Launcher(), dict[str, str]()
    api, reached = _kubernetes()
    checks.append(reached)
    if api is not None:
        others = [Reference("serviceAccount", service_account)] if service_account else []
        if namespace != SINGLE_USER_NAMESPACE:  # there kfp-launcher is Kubeflow's own
            launcher = read_launcher(api, namespace)
            others += [LAUNCHER, *([launcher.keys] if launcher.keys else [])]
        checks += _in_the_cluster(api, namespace, compiled, others)
        known = pod_environment(api, namespace, [*compiled.references, BUCKET_NAMES])
        launchers = pod_environment(api, namespace, [launcher.keys] if launcher.keys else [])
    values = {**environment, **known, **{name: environment[name] for name in ADDRESSES if environment.get(name)}}
    if namespace == SINGLE_USER_NAMESPACE and not service_account:
        detail = f"runs of a stranger's model would have Kubeflow's own, which may do nearly anything in {namespace}"
        checks.append(Check("service account", False, detail, "give --service-account pud-runner"))
    checks += _tried("object store", object_store, values, ca_bundle, compiled.parameters)
    checks += _tried("pipeline root", pipeline_root, launcher, launchers, values, known, ca_bundle, namespace)
    checks += _tried("MLflow", mlflow, values, known, ca_bundle, compiled.parameters)
    secrets = [_secrets(one) for one in (known, launchers, environment)]
    return _without_secrets(checks, [token.strip(), *itertools.chain(*secrets)])


def _tried(name: str, look: Callable[..., Check | list[Check]], *arguments: Any) -> list[Check]:
    """Return what a look found. What it raises is a warning, so that it hides no other, unless it is the caller's."""
    try:
        found = look(*arguments)
    except InputError as error:
        return [Check(name, False, *_split(str(error)))]
    except Exception as error:
        if getattr(error, "status", None) == 403:
            return [Check(name, None, "this account may not look", "ask for the right, or an administrator to look")]
        return [Check(name, None, f"could not be looked at ({_reason(error)})", "look again")]
    return found if isinstance(found, list) else [found]


def _reason(error: BaseException) -> str:
    """Return why something failed, without what was sent or answered: that may hold credentials."""
    status = getattr(error, "status", None)
    answer = f"{status} {getattr(error, 'reason', '')}" if isinstance(status, int) and status else ""
    reason = getattr(error, "reason", None)
    return answer or type(reason if isinstance(reason, Exception) else error).__name__


def _secrets(values: Mapping[str, str]) -> list[str]:
    found = [values.get(name, "") for name in SECRET_VARIABLES]
    return found + [url[1] for value in values.values() if (url := re.match(r"[\w+.-]+://[^/:@]*:(\S+)@", value))]


def _without_secrets(checks: list[Check], secrets: Iterable[str]) -> list[Check]:
    """Return the checks as they are, unless a text holds a secret after all."""
    pattern = "|".join(sorted(map(re.escape, filter(None, set(secrets))), key=len, reverse=True))
    if not pattern:
        return checks
    hide = re.compile(pattern)
    return [
        dataclasses.replace(one, detail=hide.sub("***", one.detail), remedy=hide.sub("***", one.remedy))
        for one in checks
    ]


# ------------------------------------------------------------------------------------------------------------- HTTP


def _get(
    url: str, headers: Mapping[str, str], ca_bundle: Path | str | None, method: str = "GET", body: bytes | None = None
) -> Any:
    """Return the answer to a request: certificates are verified, redirections are not followed."""
    import urllib3

    pool = urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED", ca_certs=str(ca_bundle) if ca_bundle else None, timeout=REQUEST_SECONDS
    )
    return pool.request(method, url, body=body, headers=dict(headers), redirect=False, retries=False)


def _unreachable(name: str, url: str, variable: str, error: BaseException) -> Check:
    """Return why a URL does not answer, and what to do."""
    from urllib3.exceptions import NameResolutionError, SSLError

    host = urlsplit(url).hostname or ""
    if isinstance(error, NameResolutionError) and (re.search(r"\.svc(\.cluster\.local)?$", host) or "." not in host):
        remedy = f"kubectl port-forward it and set {variable}, or run pud doctor in a pod"
        return Check(name, None, f"{without_userinfo(url)} has a name inside of the cluster only", remedy)
    if isinstance(error, SSLError):
        return Check(name, False, f"the certificate of {without_userinfo(url)} is not trusted", "give --ca-bundle")
    return Check(
        name, False, f"{without_userinfo(url)} does not answer ({_reason(error)})", "check the address and the network"
    )


def kubeflow(endpoint: str, token: str, ca_bundle: Path | None) -> Check:
    """Kubeflow Pipelines answers, takes the token, and is new enough for what the pipeline asks of it."""
    from urllib3.exceptions import HTTPError

    name = "Kubeflow"
    if not endpoint:
        return Check(name, None, "no endpoint was given", "give --endpoint")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer, older = (
            _get(f"{endpoint.rstrip('/')}/apis/{version}/healthz", headers, ca_bundle) for version in HEALTH
        )
    except HTTPError as error:
        return _unreachable(name, endpoint, "KFP_ENDPOINT", error)
    if answer.status in (301, 302, 303, 307, 308, 401, 403):
        return Check(
            name, False, f"{without_userinfo(endpoint)} does not take the token ({answer.status})", "get a new token"
        )
    told = _object(answer)
    if told is None:
        detail = f"{without_userinfo(endpoint)} does not answer as Kubeflow Pipelines does ({answer.status})"
        return Check(name, False, detail, "check the address, such as https://HOST/pipeline, and the token")
    tags = [str(one.get(key) or "") for one in (told, _object(older) or {}) for key in ("apiServerTagName", "tag_name")]
    tag = next(filter(None, tags), "")
    version = re.match(r"v?(\d+)\.(\d+)", tag)
    oldest = ".".join(map(str, OLDEST_KUBEFLOW))
    if not version:
        remedy = f"look at the image of deployment ml-pipeline: it must be {oldest} or newer"
        return Check(name, None, f"{without_userinfo(endpoint)} tells no version", remedy)
    if (int(version[1]), int(version[2])) < OLDEST_KUBEFLOW:
        return Check(name, False, f"version {tag} is older than the pipeline needs", f"upgrade to {oldest} or newer")
    return Check(name, True, f"{without_userinfo(endpoint)}, version {tag}")


def _object(answer: Any) -> dict[str, Any] | None:
    """Return the JSON object that was answered, None where something else was."""
    try:
        told = json.loads(answer.data) if answer.status == 200 else None
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def mlflow(
    values: Mapping[str, str], pods: Mapping[str, str], ca_bundle: Path | None, parameters: Mapping[str, Any]
) -> Check | list[Check]:
    """MLflow is healthy, takes the host name that the pods use, and takes the name and password."""
    from urllib3.exceptions import HTTPError
    from urllib3.util import make_headers

    name, tracking = "MLflow", parameters.get("tracking") or {}
    if tracking.get("off"):
        return Check(name, True, "off by the tracking parameter")
    inside = tracking.get("uri") or pods.get("MLFLOW_TRACKING_URI", "")
    given = values.get("MLFLOW_TRACKING_URI", "")  # the pods', unless this user gave another
    url = (inside if given in ("", pods.get("MLFLOW_TRACKING_URI", "")) else given).rstrip("/")
    if not url:
        return Check(name, None, "no server is named, nothing will be recorded", "make the config map pud-tracking")
    if not (inside or url).startswith(("http://", "https://")):
        return Check(
            name, False, f"{without_userinfo(inside or url)} is no server that pods reach", "give an http(s) URL"
        )
    host = urlsplit(inside or url).netloc.rpartition("@")[2]
    headers = {"Host": host}
    user, password = values.get("MLFLOW_TRACKING_USERNAME", ""), values.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        headers |= make_headers(basic_auth=f"{user}:{password}")
    try:
        health = _get(f"{url}/health", {"Host": host}, ca_bundle)
        answer = _get(f"{url}/api/2.0/mlflow/experiments/search?max_results=1", headers, ca_bundle)
    except HTTPError as error:
        return _unreachable(name, url, "MLFLOW_TRACKING_URI", error)
    if health.status != 200:
        return Check(
            name, False, f"{without_userinfo(url)} is not healthy ({health.status})", "look at the server's log"
        )
    if answer.status == 403 and b"Invalid Host header" in answer.data:
        remedy = f"start it with --allowed-hosts {host.partition(':')[0]},{host.partition(':')[0]}:*"
        return Check(name, False, f"{without_userinfo(url)} refuses requests for host {host}", remedy)
    if answer.status == 401:
        remedy = "correct pud-tracking-credentials, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        wrong = "refuses the name or the password" if user else "asks for a name and a password"
        return Check(name, False, f"{without_userinfo(url)} {wrong}", remedy)
    if answer.status != 200 or (b"experiments" not in answer.data and answer.data.strip() != b"{}"):
        detail = f"{without_userinfo(url)} does not answer as MLflow does ({answer.status})"
        return Check(name, False, detail, "check the address and this user's permissions")
    found = Check(
        name, True, f"{without_userinfo(url)}, for host {host}" + (f", as {user}" if user else ", without a name")
    )
    experiment = tracking.get("experiment") or EXPERIMENT
    return [found, *_tried("MLflow artifacts", mlflow_artifacts, url, headers, ca_bundle, experiment)]


def mlflow_artifacts(url: str, headers: Mapping[str, str], ca_bundle: Path | None, experiment: str) -> Check:
    """MLflow takes, gives back and removes a small artifact of the experiment, with the name that the pods have."""
    from urllib3.exceptions import HTTPError

    name, content = "MLflow artifacts", str(uuid.uuid4().int).encode()
    by_name = f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment, safe='')}"
    found = _get(by_name, headers, ca_bundle)
    if found.status == 404:
        return Check(name, None, f"there is no experiment {experiment} to try it in", "run pud bootstrap")
    location = json.loads(found.data)["experiment"]["artifact_location"] if found.status == 200 else ""
    if not location.startswith("mlflow-artifacts:"):
        remedy = "start the server with --serve-artifacts and name a new experiment in the tracking parameter"
        return Check(
            name, None, f"not through the server: experiment {experiment} has {without_userinfo(location)}", remedy
        )
    place = f"{urlsplit(location).path}/{TEMPORARY_PREFIX}pud-doctor-{uuid.uuid4().hex}"
    answers, server = {}, "look at the server's log: its key, its bucket, --serve-artifacts"
    for doing, method, body in (("write", "PUT", content), ("read", "GET", None), ("remove", "DELETE", None)):
        try:
            answer = _get(f"{url}/api/2.0/mlflow-artifacts/artifacts{place}", headers, ca_bundle, method, body)
        except HTTPError as error:  # it waits for a store that does not answer
            return Check(name, False, f"the server cannot {doing} one ({_reason(error)})", server)
        if answer.status == 403:
            remedy = f"give it MANAGE on the experiment {experiment}, or name another in the tracking parameter"
            return Check(name, False, f"this account may not {doing} in experiment {experiment}", remedy)
        if answer.status != 200:
            return Check(name, False, f"the server cannot {doing} one ({answer.status})", server)
        answers[doing] = answer
    if answers["read"].data != content:
        return Check(name, False, "other bytes come back than were sent", "look at the server's log")
    return Check(name, True, f"written, read and removed in experiment {experiment}")


# ------------------------------------------------------------------------------------------------------- Kubernetes


def _kubernetes() -> tuple[Any, Check]:
    """Return a client of the Kubernetes API, None if it does not answer, and what was found."""
    from kubernetes import client
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    name, host = "Kubernetes", ""
    try:
        api = _cluster().api_client
        host = api.configuration.host
        version = client.VersionApi(api).get_code(**TIMEOUT).git_version
    except ConfigException:
        return None, Check(name, False, "there is no kubeconfig and no service account", "set KUBECONFIG")
    except client.ApiException as error:
        remedy = "sign in again: the kubeconfig's credentials may have run out"
        return None, Check(name, False, f"{without_userinfo(host)} refuses ({_reason(error)})", remedy)
    except HTTPError as error:
        return None, Check(
            name, False, f"{without_userinfo(host)} does not answer ({_reason(error)})", "check the kubeconfig"
        )
    except Exception as error:  # a kubeconfig may run any program to sign in
        return None, Check(name, False, f"cannot be asked ({_reason(error)})", "try kubectl version")
    return api, Check(name, True, f"{without_userinfo(host)}, version {version}")


def _in_the_cluster(api: Any, namespace: str, compiled: Compiled, others: Sequence[Reference]) -> list[Check]:
    from kubernetes import client

    core = client.CoreV1Api(api)
    from_store = str(compiled.parameters.get("data_uri", "")).startswith("dvc:s3://")
    checks = _tried("namespace", namespace_exists, core, namespace)
    references = [*compiled.references, *others]
    checks += _tried("rights", rights, client.AuthorizationV1Api(api), namespace, wanted(namespace, references))
    for name in sorted({step.pool for step in compiled.steps}, reverse=True):
        checks += _tried(name, pool, core, name, compiled.steps)
    for one in references:
        needed = not one.optional or (from_store and not STORAGE_VARIABLES.isdisjoint(one.keys.values()))
        checks += _tried(_words(one), referred, core, namespace, one, needed)
    return checks + _tried("quota", quota, core, namespace, estimate_of(compiled).at_once)


def namespace_exists(core: Any, namespace: str) -> Check:
    """The namespace of the runs exists."""
    from kubernetes.client import ApiException

    try:
        found = core.read_namespace(namespace, **TIMEOUT)
    except ApiException as error:
        if error.status != 404:
            raise
        return Check("namespace", False, f"{namespace} is missing", "correct --namespace, or make a Kubeflow profile")
    if found.status and found.status.phase == "Terminating":
        return Check("namespace", False, f"{namespace} is being deleted", "give another --namespace")
    return Check("namespace", True, namespace)


def wanted(namespace: str, references: Iterable[Reference]) -> list[tuple[str, str, str]]:
    """Return (verb, resource, name) of all that submitting, watching and these checks do; no name: of any name.

    Where Kubeflow Pipelines serves many users it asks Kubernetes whether a user may make runs in a namespace.
    """
    submitting = [] if namespace == SINGLE_USER_NAMESPACE else [("create", "runs.pipelines.kubeflow.org", "")]
    looking = [("get", "namespaces", namespace), ("list", "resourcequotas", ""), ("list", "nodes", "")]
    objects = dict.fromkeys(("get", PLURALS[one.kind], one.name) for one in (*references, BUCKET_NAMES))
    return [*((verb, resource, "") for verb, resource in NEEDED), *submitting, *looking, *objects]


def rights(authorization: Any, namespace: str, asked: Iterable[tuple[str, str, str]]) -> Check:
    """This account may do what is asked for."""
    from kubernetes.client import V1ResourceAttributes, V1SelfSubjectAccessReview, V1SelfSubjectAccessReviewSpec

    def allowed(verb: str, resource: str, name: str) -> bool:
        kind, _, subresource = resource.partition("/")
        kind, _, group = kind.partition(".")
        attributes = V1ResourceAttributes(
            verb=verb,
            group=group or None,
            resource=kind,
            subresource=subresource or None,
            name=name or None,
            namespace=None if kind == "nodes" else namespace,
        )
        review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
        return bool(authorization.create_self_subject_access_review(review, **TIMEOUT).status.allowed)

    denied = [one for one in asked if not allowed(*one)]
    if not denied:
        return Check("rights", True, f"all that is needed in {namespace}")
    ok = False if {one[:2] for one in denied} & set(NEEDED) else None
    detail = "this account may not " + ", ".join(" ".join(filter(None, one)) for one in denied)
    return Check(
        "rights", ok, detail, f"ask an administrator for them in {namespace}: role and cluster role pud-operator"
    )


def pool(core: Any, name: str, steps: Iterable[Step]) -> Check:
    """Every step of a pool finds a node that it may run on and that is large enough."""
    nodes = core.list_node(**TIMEOUT).items
    mine = [step for step in steps if step.pool == name]
    for step in mine:
        refusals = [_refusal(node, step) for node in nodes]
        if all(refusals):
            found = [refusal for refusal in refusals if refusal]
            if step.node_selector and not any(refusal.passed for refusal in found):
                labels = ",".join(f"{key}={value}" for key, value in step.node_selector.items())
                remedy = (
                    f"right if the pool grows from zero, else label nodes or give -p {name[:3].lower()}_node_selector"
                )
                return Check(name, None, f"no node has {labels} now", remedy)
            if not nodes:
                return Check(name, False, "the cluster has no node", "add one")
            nearest = max(found, key=lambda refusal: refusal.passed).remedy.format(pool=name[:3].lower())
            listed = "; ".join(refusal.reason for refusal in found[:LISTED])
            more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
            return Check(name, False, f"no node takes {step.name.rpartition('/')[2]}: {listed}{more}", nearest)
    asked = _most(step.requests for step in mine)
    fitting = [node.metadata.name for node in nodes if not any(_refusal(node, step) for step in mine)]
    amounts = ", ".join(_amount(resource, count) for resource, count in sorted(asked.items()))
    shown = ", ".join(fitting[:LISTED]) + (", ..." if len(fitting) > LISTED else "")
    return Check(name, True, f"{len(fitting)} of {len(nodes)} nodes take every step ({amounts}): {shown}")


@dataclass(frozen=True)
class Refusal:
    """Why a node does not take a step. passed: how many conditions it met before this one."""

    passed: int
    reason: str
    remedy: str


def _refusal(node: Any, step: Step) -> Refusal | None:
    """Return the first condition that a node does not meet, None if it takes the step."""
    name, labels = node.metadata.name, node.metadata.labels or {}
    for key, wanted in step.node_selector.items():
        if labels.get(key) != str(wanted):
            return Refusal(0, f"{name} has no label {key}={wanted}", "label it")
    if node.spec and node.spec.unschedulable:
        return Refusal(1, f"{name} is cordoned", f"kubectl uncordon {name}")
    for taint in (node.spec and node.spec.taints) or []:
        blocks = taint.effect in ("NoSchedule", "NoExecute")
        if blocks and not any(tolerates(one, taint) for one in step.tolerations):
            shown = taint.key + (f"={taint.value}" if taint.value else "") + f":{taint.effect}"
            return Refusal(2, f"{name} has taint {shown}", "tolerate it: -p {pool}_tolerations")
    allocatable = node.status.allocatable or {}
    for resource, asked in sorted(step.requests.items(), key=lambda one: one[0] in ("cpu", "memory")):
        if (has := quantity(allocatable.get(resource, "0"))) < asked:
            reason = f"{name} has {_amount(resource, has)} of {_amount(resource, asked)}"
            if resource in ("cpu", "memory"):
                return Refusal(4, reason, "add a larger node")
            remedy = "add GPUs or their device plugin, or give -p accelerator_count (0: none) or -p accelerator"
            return Refusal(3, reason, remedy)
    return None


def tolerates(toleration: Mapping[str, Any], taint: Any) -> bool:
    """Tell whether a toleration covers a taint, as Kubernetes decides it."""
    if toleration.get("effect") not in (None, "", taint.effect):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    return toleration["key"] == taint.key and (exists or toleration.get("value", "") == (taint.value or ""))


def _most(amounts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    most: dict[str, Decimal] = {}
    for one in amounts:
        most |= {name: max(count, most.get(name, count)) for name, count in one.items()}
    return most


def _amount(resource: str, count: Decimal) -> str:
    if resource.endswith("memory"):
        return f"{float(count / GIB):.3g} GiB {resource}"
    return f"{float(count):g} {resource}"


def _words(one: Reference) -> str:
    """Return a reference as a person writes it: ``config map pud-tracking``."""
    return re.sub(r"(?=[A-Z])", " ", one.kind).lower() + f" {one.name}"


def _content(core: Any, namespace: str, one: Reference) -> Mapping[str, Any]:
    """Return the entries of a config map or of a secret (in base64); other objects have none."""
    read_it = {
        "configMap": core.read_namespaced_config_map,
        "secret": core.read_namespaced_secret,
        "persistentVolumeClaim": core.read_namespaced_persistent_volume_claim,
        "serviceAccount": core.read_namespaced_service_account,
    }[one.kind]
    return getattr(read_it(one.name, namespace, **TIMEOUT), "data", None) or {}


def referred(core: Any, namespace: str, one: Reference, needed: bool) -> Check:
    """An object that the pipeline refers to exists, with all its keys; without an optional one a run does."""
    from kubernetes.client import ApiException

    ok, otherwise = (False, "") if needed else (None, ", a run does without")
    remedy = f"make it in {namespace}, as manifests/README.md says"
    try:
        content = _content(core, namespace, one)
    except ApiException as error:
        if error.status != 404:
            raise
        return Check(_words(one), ok, f"is missing{otherwise}", remedy)
    if missing := sorted(one.keys.keys() - content.keys()):
        return Check(_words(one), ok, f"has no {', '.join(missing)}{otherwise}", remedy)
    if empty := sorted(key for key in one.keys if not str(content[key]).strip()):
        return Check(_words(one), ok, f"has nothing under {', '.join(empty)}{otherwise}", remedy)
    return Check(_words(one), True, ", ".join(one.keys) or "is there")


def pod_environment(api: Any, namespace: str, references: Iterable[Reference]) -> dict[str, str]:
    """Return the variables that the pods get from the objects that can be read."""
    from kubernetes import client

    core, values = client.CoreV1Api(api), dict[str, str]()
    for one in references:
        try:
            content = _content(core, namespace, one)
            for key, variable in one.keys.items():
                if text := content.get(key):
                    values[variable] = base64.b64decode(text).decode() if one.kind == "secret" else text
        except Exception:  # the check of this object has told
            continue
    return values


def read_launcher(api: Any, namespace: str) -> Launcher:
    """Return what config map kfp-launcher says, as far as it can be read."""
    from kubernetes import client

    try:
        content = _content(client.CoreV1Api(api), namespace, LAUNCHER)
    except Exception:  # the check of this object has told
        return Launcher()
    return Launcher.of(content)


def quota(core: Any, namespace: str, asked: Mapping[str, Decimal]) -> Check:
    """The quotas of the namespace leave room for one run."""
    quotas = [one for one in core.list_namespaced_resource_quota(namespace, **TIMEOUT).items if _counts(one)]
    if not quotas:
        return Check("quota", True, f"{namespace} has none")
    # a quota may leave out "requests." and name pods as it names other objects
    amounts = {**stripped(asked), **asked, "count/pods": asked["pods"]}
    short = []
    for one in quotas:
        hard, used = (one.status and one.status.hard) or one.spec.hard or {}, (one.status and one.status.used) or {}
        for resource, limit in hard.items():
            left = quantity(limit) - quantity(used.get(resource, "0"))
            if resource in amounts and left < amounts[resource]:
                has, needed = (_amount(resource, count) for count in (max(left, Decimal(0)), amounts[resource]))
                short.append(f"{one.metadata.name} leaves {has} of {needed}")
    if short:
        return Check("quota", False, "; ".join(short), "wait for other runs to end, or ask for a larger quota")
    return Check("quota", True, f"{', '.join(one.metadata.name for one in quotas)} leaves room for a run")


def _counts(quota: Any) -> bool:
    """Tell whether a quota counts the pods of a run: they have requests, a time limit and no priority class."""
    return set(quota.spec.scopes or []) <= {"NotBestEffort", "Terminating"} and not quota.spec.scope_selector


# ----------------------------------------------------------------------------------------------------- object store


def object_store(values: Mapping[str, str], ca_bundle: Path | None, parameters: Mapping[str, Any]) -> list[Check]:
    """The object store answers and takes the pods' keys; the data set can be read with them."""
    name, uri = "object store", str(parameters.get("data_uri", ""))
    needed = uri.startswith("dvc:s3://")
    if missing := sorted(variable for variable in STORAGE_VARIABLES if not values.get(variable)):
        remedy = "set them, or make pud-storage and pud-storage-credentials as manifests/README.md says"
        return [Check(name, False if needed else None, f"{', '.join(missing)} are not known", remedy)]
    s3 = S3.from_environment(values)
    if ca_bundle is not None:
        s3 = dataclasses.replace(s3, ca_bundle=str(ca_bundle))
    client = s3.client()
    if unreachable := _no_answer(name, s3):
        return [unreachable]
    signed_in = store(s3, client)
    if not signed_in.ok:
        return [signed_in]
    data = parse(uri)[0] if needed else bucket_names(values)[0]
    found = _tried(f"bucket {data}", readable, s3, client, data)
    if found[0].ok:
        found += _tried("data set", data_set, s3, client, uri, str(parameters.get("data_digest") or ""))
    return [signed_in, *found]


def _no_answer(name: str, s3: S3) -> Check | None:
    from urllib3.exceptions import HTTPError

    try:
        _get(s3.endpoint, {}, s3.ca_bundle)
    except HTTPError as error:
        return _unreachable(name, s3.endpoint, "AWS_ENDPOINT_URL_S3", error)
    return None


def _split(sentence: str) -> tuple[str, str]:
    """Return what is wrong and the remedy of a sentence that has both."""
    detail, _, remedy = sentence.rpartition(": ")
    return detail, remedy


def store(s3: S3, client: Any) -> Check:
    """The object store is one, and takes the keys."""
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        client.list_buckets()
    except (MinioException, HTTPError) as error:
        if getattr(error, "code", "") != "AccessDenied":  # an identity need not be allowed to list them
            return Check("object store", False, *_split(said(error, s3).removeprefix("object store ")))
    return Check("object store", True, f"{without_userinfo(s3.endpoint)} takes the keys")


def readable(s3: S3, client: Any, name: str) -> Check:
    """A bucket is there, and the keys may look into it."""
    from minio.error import S3Error

    try:
        if not client.bucket_exists(name):
            return Check(f"bucket {name}", False, "is missing", "run pud bootstrap")
        next(client.list_objects(name), None)
    except S3Error as error:
        return Check(f"bucket {name}", False, *_split(said(error, s3).removeprefix("object store ")))
    return Check(f"bucket {name}", True, "can be read")


def pipeline_root(
    launcher: Launcher,
    keys: Mapping[str, str],
    values: Mapping[str, str],
    pods: Mapping[str, str],
    ca_bundle: Path | None,
    namespace: str,
) -> list[Check]:
    """Where Kubeflow's launcher puts a run's artifacts takes, gives back and removes an object, with its own keys."""
    name, expected = "pipeline root", bucket_names(values)[list(BUCKETS).index("PUD_PIPELINE_BUCKET")]
    place = urlsplit(launcher.root)
    if not launcher.root:
        return []
    if place.netloc != expected:
        detail = f"{launcher.root} of kfp-launcher is not in {expected}, the bucket that pud-storage names"
        return [Check(name, None, detail, "apply the manifests; what takes it back is told in manifests/README.md")]
    if launcher.keys is None:
        remedy = "name one under providers, as manifests/base/config.yaml does, or try a run"
        return [Check(name, None, f"kfp-launcher names no secret for {launcher.root}, so it was not tried", remedy)]
    if not STORAGE_VARIABLES - {"AWS_ENDPOINT_URL_S3"} <= keys.keys():
        return []  # the check of the secret has told
    one, other = (short(url, namespace) for url in (launcher.endpoint, pods.get("AWS_ENDPOINT_URL_S3", "")))
    endpoint = values["AWS_ENDPOINT_URL_S3"] if one == other else launcher.endpoint
    authorities = str(ca_bundle or values.get("AWS_CA_BUNDLE", ""))
    s3 = S3(endpoint, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], launcher.region, authorities)
    client = s3.client()
    return [_no_answer(name, s3) or written(name, s3, client, place.netloc, place.path.strip("/"))]


def short(url: str, namespace: str) -> str:
    """Return an address as pods of the namespace may shorten it: a service there has one name and three longer ones."""
    own = rf"^(\w+://[^/.:]+)\.{re.escape(namespace)}(?:\.svc(?:\.cluster\.local)?)?(?=[:/]|$)"
    return re.sub(own, r"\1", url).rstrip("/")


def written(name: str, s3: S3, client: Any, bucket: str, prefix: str) -> Check:
    """A bucket takes, gives back and removes a small object."""
    from minio.error import MinioException

    key, content = f"{prefix}/pud-doctor-{uuid.uuid4().hex}".lstrip("/"), str(uuid.uuid4().int).encode()
    doing = "write"
    try:
        made = client.put_object(bucket, key, io.BytesIO(content), len(content))
        doing = "read"
        answer = client.get_object(bucket, key)
        same = answer.data == content
        answer.release_conn()
        doing = "remove"
        client.remove_object(bucket, key, version_id=made.version_id)
    except MinioException as error:
        if getattr(error, "code", "") != "AccessDenied":
            return Check(name, False, *_split(said(error, s3).removeprefix("object store ")))
        what = "these keys may not write" if doing == "write" else f"these keys may write, but not {doing},"
        return Check(name, False, f"{what} in bucket {bucket}", "use keys with the rights in manifests/README.md")
    if not same:
        return Check(name, False, f"bucket {bucket} gives back other bytes than it took", "look at the store's log")
    return Check(name, True, f"written, read and removed in s3://{bucket}/{prefix} with the launcher's keys")


def data_set(s3: S3, client: Any, uri: str, digest: str) -> Check:
    """The data set of this digest was pushed to where the run will look for it."""
    from minio.error import S3Error

    name = "data set"
    if not uri.startswith("dvc:s3://"):
        return Check(name, None, f"{uri} is for the pods to see", "give -p data_uri=dvc:s3://BUCKET/PREFIX")
    if not DIGEST.fullmatch(digest):
        return Check(name, False, "its digest is not given", "give -p data_digest, the md5 in data.dvc with its .dir")
    place, prefix = parse(uri)
    try:
        client.stat_object(place, f"{prefix}/files/md5/{digest[:2]}/{digest[2:]}".lstrip("/"))
    except S3Error as error:
        return Check(name, False, *_split(said(error, s3).removeprefix("object store ")))
    return Check(name, True, f"{digest} is in {place}")
