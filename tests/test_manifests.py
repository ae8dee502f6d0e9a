"""The manifests: rendered by kubectl, held against Kubernetes' schemas, against each other and against the pipeline."""

import json
import re
import runpy
import subprocess
import sys
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pud.cluster import doctor

ROOT = Path(__file__).parent.parent
MANIFESTS, PIPELINE = ROOT / "manifests", ROOT / "pipelines" / "pud.yaml"
OVERLAYS = ["local", "gpu"]
KUBERNETES = "1.37"
RUN_LABEL = {"pipelines.kubeflow.org/v2_component": "true"}  # Kubeflow's, on the pods of its runs
WORKLOADS = {"Deployment", "StatefulSet", "Job"}
Object = dict[str, Any]

credentials = SimpleNamespace(**runpy.run_path(str(MANIFESTS / "credentials.py")))


@cache
def kustomized(overlay: str) -> str:
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [kubectl, "kustomize", MANIFESTS / "overlays" / overlay]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(overlay: str) -> list[Object]:
    """The objects of an overlay and the secrets that are made beside them."""
    made: list[Object] = credentials.manifest("pud")["items"]
    return [*yaml.safe_load_all(kustomized(overlay)), *made]


def pod_of(one: Object) -> Object:
    return one["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def broken_references(objects: list[Object]) -> list[str]:
    """Return every name, label, port or key that an object refers to and no object has."""
    named = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    workloads = [one for one in objects if one["kind"] in WORKLOADS]
    labelled = [one["spec"]["template"]["metadata"]["labels"] for one in workloads]
    broken: list[str] = []

    def need(kind: str, name: str, key: str = "") -> None:
        found = named.get((kind, name))
        content = {**found.get("data", {}), **found.get("stringData", {})} if found else {}
        if found is None or (key and key not in content):
            broken.append(f"{kind} {name} {key}".strip())

    for one in workloads:
        pod, labels = pod_of(one), one["spec"]["template"]["metadata"]["labels"]
        need("ServiceAccount", pod["serviceAccountName"])
        if one["kind"] != "Job" and not selects(one["spec"]["selector"]["matchLabels"], labels):
            broken.append(f"{one['metadata']['name']} does not select its own pods")
        if one["kind"] == "StatefulSet":
            need("Service", one["spec"]["serviceName"])
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                need("Secret", volume["secret"]["secretName"])
        for container in pod["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            broken += [f"volume {m['name']}" for m in container.get("volumeMounts", []) if m["name"] not in volumes]
            for source in container.get("envFrom", []):
                for kind, reference in source.items():
                    need({"secretRef": "Secret", "configMapRef": "ConfigMap"}[kind], reference["name"])
            for variable in container.get("env", []):
                for kind, reference in variable.get("valueFrom", {}).items():
                    if kind != "fieldRef":
                        kind = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}[kind]
                        need(kind, reference["name"], reference["key"])
            for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port is not None and port not in ports:
                    broken.append(f"port {port} of {container['name']}")
    for one in objects:
        name = one["metadata"]["name"]
        if one["kind"] == "Service":
            chosen = [work for work in workloads if selects(one["spec"]["selector"], _labels(work))]
            for port in one["spec"]["ports"]:
                if not any(port["targetPort"] in _ports(work) for work in chosen):
                    broken.append(f"Service {name} leads to no port {port['targetPort']}")
        if one["kind"] == "RoleBinding":
            need("Role", one["roleRef"]["name"])
            for subject in one["subjects"]:
                need(subject["kind"], subject["name"])
        if one["kind"] == "NetworkPolicy":
            peers = [rule for way in ("ingress", "egress") for rule in one["spec"].get(way, [])]
            selectors = [one["spec"]["podSelector"]]
            selectors += [
                peer["podSelector"]
                for rule in peers
                for peer in rule.get("from", rule.get("to", []))
                if "podSelector" in peer
            ]
            for selector in selectors:
                if not any(selects(selector["matchLabels"], labels) for labels in [*labelled, RUN_LABEL]):
                    broken.append(f"NetworkPolicy {name} selects nothing by {selector['matchLabels']}")
            for rule in one["spec"].get("ingress", []):
                ports = {
                    p
                    for w in workloads
                    if selects(one["spec"]["podSelector"]["matchLabels"], _labels(w))
                    for p in _ports(w)
                }
                broken += [f"NetworkPolicy {name}: {p['port']}" for p in rule["ports"] if p["port"] not in ports]
        for rule in one.get("rules", []):
            kind = {"secrets": "Secret", "configmaps": "ConfigMap"}.get(rule["resources"][0], "")
            for resource in rule.get("resourceNames", []):
                need(kind, resource)
    return broken


def _labels(workload: Object) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]  # type: ignore[no-any-return]


def _ports(workload: Object) -> set[str]:
    return {port["name"] for container in pod_of(workload)["containers"] for port in container.get("ports", [])}


def parameters_of(platform: str) -> Object:
    return json.loads((MANIFESTS / "parameters" / f"{platform}.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_passes_the_schemas_of_kubernetes(overlay: str) -> None:
    for one in rendered(overlay):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_that_an_object_refers_to_exists(overlay: str) -> None:
    assert broken_references(rendered(overlay)) == []


REFERRED = ["Secret", "ConfigMap", "ServiceAccount", "Service", "Role", "Deployment", "StatefulSet"]
UNREFERRED = {("Secret", "pud-data-publisher"), ("Role", "pud-operator"), ("Service", "mlflow")}  # used from outside


def test_the_check_of_references_notices_each_object_that_is_missing() -> None:
    objects = rendered("gpu")
    for missing in [one for one in objects if one["kind"] in REFERRED]:
        key = (missing["kind"], missing["metadata"]["name"])
        assert bool(broken_references([one for one in objects if one is not missing])) == (key not in UNREFERRED), key


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_but_the_namespace_is_in_it(overlay: str) -> None:
    names = {one["metadata"].get("namespace") for one in rendered(overlay) if one["kind"] != "Namespace"}
    assert names == {"pud"}


def test_the_addresses_in_the_configuration_are_those_of_the_services() -> None:
    objects = rendered("gpu")
    services = {
        f"{one['metadata']['name']}:{p['port']}"
        for one in objects
        if one["kind"] == "Service"
        for p in one["spec"]["ports"]
    }
    text = json.dumps([one for one in objects if one["kind"] in ("ConfigMap", "Secret")])
    named = set(re.findall(r"\b((?:mlflow|object-store|postgres):\d{4})\b", text))
    assert named == services


def test_what_the_pipeline_refers_to_is_there_with_every_key() -> None:
    objects = {(one["kind"], one["metadata"]["name"]): one for one in rendered("gpu")}
    references = doctor.read(PIPELINE, {}).references
    assert len(references) == 4
    for reference in references:
        found = objects[reference.kind[0].upper() + reference.kind[1:], reference.name]
        assert reference.keys.keys() <= {**found.get("data", {}), **found.get("stringData", {})}.keys()


def test_an_operator_may_do_what_doctor_and_submit_need() -> None:
    [role] = [one for one in rendered("gpu") if one["kind"] == "Role" and one["metadata"]["name"] == "pud-operator"]
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    cluster_wide = {("list", "nodes")}
    assert {*doctor.NEEDED, *doctor.HELPFUL} - cluster_wide <= granted


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_root_writes_its_image_or_lacks_limits(overlay: str) -> None:
    for one in [one for one in rendered(overlay) if one["kind"] in WORKLOADS]:
        pod = pod_of(one)
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert (
                {"cpu", "memory"}
                == container["resources"]["requests"].keys()
                == container["resources"]["limits"].keys()
            )
            name, _, tag = container["image"].rpartition(":")
            assert name == "pud" or tag not in ("", "latest")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_quota_leaves_room_for_the_servers_and_a_run(overlay: str) -> None:
    objects = rendered(overlay)
    parameters = parameters_of({"gpu": "gke"}.get(overlay, overlay))
    asked = dict(doctor.estimate(PIPELINE, parameters).at_once)
    for one in [one for one in objects if one["kind"] in WORKLOADS]:
        asked["pods"] += 1
        for container in pod_of(one)["containers"]:
            for way, amounts in container["resources"].items():
                for resource, amount in amounts.items():
                    asked[f"{way}.{resource}"] += doctor._quantity(amount)
    [quota] = [one for one in objects if one["kind"] == "ResourceQuota"]
    short = {
        name: limit
        for name, limit in quota["spec"]["hard"].items()
        if asked.get(name, Decimal(0)) > doctor._quantity(limit)
    }
    assert not short
    sizes = re.findall(r"^ +storage: (\S+)$", kustomized(overlay), re.M)
    assert sum(map(doctor._quantity, sizes)) <= doctor._quantity(quota["spec"]["hard"]["requests.storage"])


def node_pools() -> dict[str, tuple[dict[str, str], list[str]]]:
    """Return {platform: (labels, taints)} of the nodes that the README's commands make."""
    text = (MANIFESTS / "README.md").read_text()
    [config] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    [group] = config["managedNodeGroups"]

    def of(pattern: str) -> dict[str, str]:
        [found] = re.findall(pattern, text)
        return dict(pair.split("=", 1) for pair in found.split(","))

    def taints(found: dict[str, str]) -> list[str]:
        return [f"{key}={value}" for key, value in found.items()]

    return {
        "gke": (of(r"--node-labels (\S+)"), taints(of(r"--node-taints (\S+)"))),
        "eks": (group["labels"], [f"{one['key']}={one['value']}:{one['effect']}" for one in group["taints"]]),
        "self-managed": (of(r"label node NODE (\S+)"), taints(of(r"taint node NODE (\S+)"))),
    }


def a_node(labels: dict[str, str], taints: list[str]) -> Any:
    found = [re.fullmatch(r"(.+)=(.+):(.+)", taint) for taint in taints]
    spec = SimpleNamespace(
        unschedulable=False, taints=[SimpleNamespace(key=m[1], value=m[2], effect=m[3]) for m in found if m]
    )
    allocatable = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    return SimpleNamespace(
        metadata=SimpleNamespace(name="gpu-1", labels=labels),
        spec=spec,
        status=SimpleNamespace(allocatable=allocatable),
    )


@pytest.mark.parametrize("platform", ["gke", "eks", "self-managed"])
def test_the_nodes_that_the_readme_makes_take_the_steps_of_these_parameters(platform: str) -> None:
    labels, taints = node_pools()[platform]
    parameters = parameters_of(platform)
    steps = doctor.read(PIPELINE, parameters).steps

    def found(node: Any) -> doctor.Check:
        return doctor.pool(SimpleNamespace(list_node=lambda **_: SimpleNamespace(items=[node])), "GPU pool", steps)

    assert found(a_node(labels, taints)).ok, found(a_node(labels, taints))
    assert found(a_node({}, taints)).ok is False, "a node of another pool would take the steps"
    for taint in taints:
        key = taint.partition("=")[0]
        kept = [one for one in parameters["gpu_tolerations"] if one["key"] != key]
        steps = doctor.read(PIPELINE, {**parameters, "gpu_tolerations": kept}).steps
        assert found(a_node(labels, taints)).ok is False, f"{taint} is tolerated without being named"


def test_no_manifest_holds_a_credential_and_no_two_are_alike() -> None:
    one, other = credentials.credentials(), credentials.credentials()
    constant = {"POSTGRES_DB", "POSTGRES_USER", "USERNAME", "MLFLOW_TRACKING_USERNAME"}
    for name, values in one.items():
        assert all(other[name][key] != value for key, value in values.items() if key not in constant)
    for overlay in OVERLAYS:
        assert all(one["kind"] != "Secret" for one in yaml.safe_load_all(kustomized(overlay)))
    ini = one["mlflow-auth"]["basic_auth.ini"]
    assert one["mlflow-admin"]["PASSWORD"] in ini
    assert one["mlflow-database"]["POSTGRES_PASSWORD"] in ini


def test_the_secrets_can_be_made_for_another_namespace() -> None:
    made = subprocess.run(
        [sys.executable, MANIFESTS / "credentials.py", "--namespace", "kubeflow"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {one["metadata"]["namespace"] for one in json.loads(made.stdout)["items"]} == {"kubeflow"}
