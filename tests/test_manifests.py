"""The manifests: rendered by kubectl, held against Kubernetes' schemas, against each other and against the pipeline."""

import copy
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from components.guard import FINAL
from pipelines.placement import CA_FOLDER, CA_MAP, DATA_CACHE_GIB, DATA_GIB, SCRATCH_GIB
from pud.artifacts.storage import BUCKETS
from pud.platform.cluster import doctor, requirements
from pud.platform.cluster.bootstrap import ACCOUNT, ADMINISTRATOR

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent
MANIFESTS, PIPELINE = ROOT / "manifests", ROOT / "pipelines" / "pud.yaml"
OVERLAYS = {"local": "pud", "gpu": "pud", "single-user": "kubeflow"}  # and their namespaces
KUBERNETES = "1.37"
GIB = requirements.GIB
RUN_LABEL = {"pipelines.kubeflow.org/v2_component": "true"}  # Kubeflow's, on the pods of its runs
WORKLOADS = {"Deployment", "StatefulSet", "Job"}
# what Kubeflow Pipelines' own manifests have, in 2.15.0 and in 2.17.0: {the label app or component: port}
KUBEFLOWS_PODS = {"ml-pipeline": 8887, "metadata-grpc-server": 8080, "seaweedfs": 8333, "minio": 9000}
KUBEFLOWS = {("Secret", "mlpipeline-minio-artifact"), ("ServiceAccount", "ml-pipeline-ui")}
KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
VARIABLES = {  # what a container's program looks for, wherever it comes from
    "bootstrap": {"AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI", *KEYS, *BUCKETS, *ADMINISTRATOR, *ACCOUNT},
    "mlflow": {
        "MLFLOW_BACKEND_STORE_URI",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_REGION",
        *KEYS,
    },
}
Object = dict[str, Any]

credentials = SimpleNamespace(**runpy.run_path(str(MANIFESTS / "credentials.py")))
references = cache(lambda: requirements.read(PIPELINE, {}).references)


def kustomize(folder: Path) -> str:
    kubectl = Path(sys.executable).with_name("kubectl")
    return subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True).stdout


@cache
def kustomized(overlay: str) -> str:
    return kustomize(MANIFESTS / "overlays" / overlay)


def rendered(overlay: str) -> list[Object]:
    """The objects of an overlay and the secrets that are made beside them."""
    made: list[Object] = credentials.manifest(OVERLAYS[overlay])["items"]
    return [*yaml.safe_load_all(kustomized(overlay)), *made]


def pod_of(one: Object) -> Object:
    return one["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def mounts_of(workload: Object) -> list[Object]:
    return [mount for container in pod_of(workload)["containers"] for mount in container["volumeMounts"]]


def labels_of(workload: Object) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]  # type: ignore[no-any-return]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector["matchLabels"].items())


def broken_references(objects: list[Object]) -> list[str]:
    """Return every name, label, port, variable, path or key that an object refers to and no object has."""
    contents: dict[tuple[str, str], Object] = {
        (one["kind"], one["metadata"]["name"]): {**one.get("data", {}), **one.get("stringData", {})} for one in objects
    }
    [*namespaces] = {one["metadata"]["namespace"] for one in objects if one["kind"] == "NetworkPolicy"}
    contents["Namespace", ""] = {"name": namespaces[0]}
    workloads = [one for one in objects if one["kind"] in WORKLOADS]
    broken: list[str] = []

    def need(kind: str, name: str, *keys: str) -> None:
        if (kind, name) in KUBEFLOWS:
            return
        found = contents.get((kind, name))
        broken.extend(f"{kind} {name} {key}" for key in keys if key not in (found or {}))
        if found is None:
            broken.append(f"{kind} {name}")

    for one in workloads:
        need("ServiceAccount", pod_of(one)["serviceAccountName"])
        if one["kind"] != "Job" and not selects(one["spec"]["selector"], labels_of(one)):
            broken.append(f"{one['metadata']['name']} does not select its own pods")
        if one["kind"] == "StatefulSet":
            need("Service", one["spec"]["serviceName"])
        mounted = {claim["metadata"]["name"]: "" for claim in one["spec"].get("volumeClaimTemplates", [])}
        for volume in pod_of(one).get("volumes", []):
            mounted[volume["name"]] = volume.get("secret", {}).get("secretName", "")
            if mounted[volume["name"]]:
                need("Secret", mounted[volume["name"]])
            if "configMap" in volume:  # the one that a site may make: a private authority's certificates
                trusted = [mount["mountPath"] for mount in mounts_of(one) if mount["name"] == volume["name"]]
                if (volume["configMap"]["name"], trusted) != (CA_MAP, [CA_FOLDER]):
                    broken.append(f"{one['metadata']['name']}: not {CA_MAP} at {CA_FOLDER}")
        for container in pod_of(one)["containers"]:
            broken += broken_in(container, mounted, contents, need)
    told = json.dumps(list(contents.values()))
    addresses = set(re.findall(r"\b(\w[\w-]*)(?:\.[\w-]+\.svc)?:(\d{4})\b(?!\])", told))
    services = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Service"}
    for name, spec in services.items():
        chosen = [work for work in workloads if selects({"matchLabels": spec["selector"]}, labels_of(work))]
        for port in spec["ports"]:  # of the same number, so that a policy, an address and a log show one
            if (port["targetPort"], port["port"]) not in {pair for work in chosen for pair in ports_of(work).items()}:
                broken.append(f"Service {name} leads to no port {port['targetPort']} {port['port']}")
    served = {(name, str(port["port"])) for name, spec in services.items() for port in spec["ports"]}
    broken += [f"no Service at {':'.join(one)}" for one in served ^ addresses]
    for one in objects:
        if one["kind"] == "RoleBinding":
            for reference in (one["roleRef"], *one["subjects"]):
                need(reference["kind"], reference["name"])
        for rule in one.get("rules", []):
            for resource in rule.get("resourceNames", []):
                need({"secrets": "Secret", "configmaps": "ConfigMap"}[rule["resources"][0]], resource)
    for reference in references():
        need(reference.kind[0].upper() + reference.kind[1:], reference.name, *reference.keys)
    return broken + broken_buckets(contents, need) + broken_policies(objects)


def broken_in(container: Object, mounted: dict[str, str], contents: dict[Any, Object], need: Any) -> list[str]:
    """What a container refers to and does not have. mounted: {volume: its secret, or nothing}."""
    name, broken, known = container["name"], list[str](), set[str]()
    kinds = {
        "secretRef": "Secret",
        "configMapRef": "ConfigMap",
        "secretKeyRef": "Secret",
        "configMapKeyRef": "ConfigMap",
    }
    for source in container.get("envFrom", []):
        for kind, reference in source.items():
            need(kinds[kind], reference["name"])
            known |= contents.get((kinds[kind], reference["name"]), {}).keys()
    texts = container.get("args", [])
    for variable in container.get("env", []):
        for kind, reference in variable.get("valueFrom", {}).items():
            if kind in kinds:
                need(kinds[kind], reference["name"], reference["key"])
        used = set(re.findall(r"\$\((\w+)\)", variable.get("value", "")))
        broken += [f"{name}: {one} is not set before {variable['name']}" for one in used - known]
        known.add(variable["name"])
        texts = [*texts, variable.get("value", "")]
    used = set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", []))))
    broken += [f"{name}: {one} is not set" for one in (used | VARIABLES.get(name, set())) - known]
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    broken += [f"{name}: no volume {volume}" for volume in mounts.values() if volume not in mounted]
    for path in (found[1] for text in texts if (found := re.fullmatch(r"(?:-[\w.-]+=)?(/\S+)", text))):
        mount = next((one for one in mounts if path == one or path.startswith(f"{one}/")), None)
        if mount is None:
            broken.append(f"{name}: {path} is in no volume")
        elif secret := mounted.get(mounts[mount]):
            need("Secret", secret, path.removeprefix(f"{mount}/"))
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    if "args" in container:
        wanted = [port for port in ports.values() if not any(one.endswith(f"port={port}") for one in texts)]
        broken += [f"{name}: not started on port {port}" for port in wanted]
    probed = [container.get(f"{kind}Probe", {}).get("httpGet") for kind in ("readiness", "liveness", "startup")]
    return broken + [f"{name}: no port {one['port']}" for one in probed if one and one["port"] not in ports]


def broken_buckets(contents: dict[Any, Object], need: Any) -> list[str]:
    """Buckets that an identity is made for and no config map names, or the other way round; and Kubeflow's launcher."""
    storage = contents.get(("ConfigMap", "pud-storage"), {})
    named = {name: storage.get(name) for name in BUCKETS}
    identities = json.loads(
        contents.get(("Secret", "object-store-identities"), {}).get("s3.json", '{"identities": []}')
    )
    actions = [action for one in identities["identities"] for action in one["actions"]]
    broken = [f"bucket {one}" for one in {a.partition(":")[2] for a in actions if ":" in a} ^ {*named.values()}]
    if told := contents.get(("ConfigMap", "kfp-launcher")):
        launcher = requirements.Launcher.of(told)
        namespace = contents["Namespace", ""]["name"]
        endpoint = doctor.short(launcher.endpoint, namespace)
        if launcher.endpoint != endpoint.replace(":9000", f".{namespace}.svc:9000"):
            broken.append(f"{launcher.endpoint} is no full name")
        if (urlsplit(launcher.root).netloc, endpoint, launcher.region) != (
            named["PUD_PIPELINE_BUCKET"],
            storage.get("AWS_ENDPOINT_URL_S3"),
            storage.get("AWS_REGION"),
        ):
            broken.append(f"kfp-launcher: {launcher.root} at {launcher.endpoint} in {launcher.region}")
        if launcher.keys:
            need("Secret", launcher.keys.name, *launcher.keys.keys)
    return broken


def broken_policies(objects: list[Object]) -> list[str]:
    """Selectors and ports of network policies that no pod has, and ways that one end opens and the other does not."""
    workloads = [one for one in objects if one["kind"] in WORKLOADS]
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    ends: dict[str, list[Object]] = {"ingress": [], "egress": []}
    open_ways: dict[str, set[tuple[str, str, str]]] = {"ingress": set(), "egress": set()}
    broken = []
    for one in policies:
        own = one["spec"]["podSelector"]
        selectors = [own]
        for way, peers in (("ingress", "from"), ("egress", "to")):
            ends[way].append(own)
            for rule in one["spec"].get(way, []):
                if one["metadata"]["name"] == "runs":
                    broken += broken_ways_to_kubeflow(rule)
                inside = [peer for peer in rule[peers] if "namespaceSelector" not in peer]
                for other in (peer["podSelector"] for peer in inside if "podSelector" in peer):
                    selectors.append(other)
                    source, target = (other, own) if way == "ingress" else (own, other)
                    ports = [port["port"] for port in rule["ports"]]
                    open_ways[way] |= {(json.dumps(source), json.dumps(target), port) for port in ports}
                    found = {port for work in workloads if selects(target, labels_of(work)) for port in ports_of(work)}
                    broken += [f"{one['metadata']['name']}: no port {port}" for port in ports if port not in found]
        labelled = [RUN_LABEL, *map(labels_of, workloads)]
        names = [
            selector["matchLabels"] for selector in selectors if not any(selects(selector, lab) for lab in labelled)
        ]
        broken += [f"{one['metadata']['name']}: nothing has {name}" for name in names]
    for way, other, end in (("ingress", "egress", 0), ("egress", "ingress", 1)):
        bound = [json.dumps(selector) for selector in ends[other]]
        broken += [f"no {other} for {one}" for one in open_ways[way] - open_ways[other] if one[end] in bound]
    return broken


def broken_ways_to_kubeflow(rule: Object) -> list[str]:
    """Pods of Kubeflow that are none, and ports that they do not have or that a run has no use for."""
    broken = []
    for peer in rule["to"]:
        if peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name") == "kubeflow":
            selector = peer.get("podSelector", {})
            names = [*selector.get("matchLabels", {}).values()]
            names += [name for found in selector.get("matchExpressions", []) for name in found["values"]]
            ports = [port["port"] for port in rule.get("ports", [])]
            if not names or ports != [KUBEFLOWS_PODS.get(name) for name in names]:
                broken.append(f"Kubeflow's {names} at {ports}")
    return broken


def ports_of(workload: Object) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for one in pod_of(workload)["containers"] for p in one.get("ports", [])}


def parameters_of(platform: str) -> Object:
    return json.loads((MANIFESTS / "parameters" / f"{platform}.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_passes_the_schemas_of_kubernetes(overlay: str) -> None:
    for one in rendered(overlay):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_the_namespace_passes_the_schemas_of_kubernetes_and_kubeflows_network_policies() -> None:
    one = yaml.safe_load((MANIFESTS / "namespace.yaml").read_text())
    kubernetes_validate.validate(one, KUBERNETES, strict=True)
    assert one["metadata"]["name"] == "pud"
    # what kubeflow/manifests selects in common/kubeflow-namespace/base/kubeflow/{ml-pipeline,metadata-grpc-server}.yaml
    assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kubeflow-profile"


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_another_namespace_needs_one_line_and_every_full_name_follows(overlay: str, tmp_path: Path) -> None:
    def names(text: str) -> set[str]:
        return set(re.findall(r"[\w-]+\.([\w-]+)\.svc\b", text))

    for components in ("", "components: [../../components/tls]\n"):
        text = kustomize(changed(overlay, tmp_path, components, namespace="other"))
        assert names(text) == {"other"}
        objects = [*yaml.safe_load_all(text)]
        namespaces = {one["metadata"].get("namespace") for one in objects if one["kind"] != "ClusterRole"}
        assert namespaces == {"other"}
        [launcher] = [one["data"] for one in objects if one["metadata"]["name"] == "kfp-launcher"]
        assert requirements.Launcher.of(launcher).endpoint.endswith("://object-store.other.svc:9000")


def test_kubeflows_ui_may_read_one_key_and_reach_one_port() -> None:
    objects = rendered("gpu")
    [binding] = [one for one in objects if one["kind"] == "RoleBinding" and one["metadata"]["name"] == "ml-pipeline-ui"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "ml-pipeline-ui", "namespace": "kubeflow"}]
    [role] = [one for one in objects if one["kind"] == "Role" and one["metadata"]["name"] == "ml-pipeline-ui"]
    [rule] = role["rules"]
    [launcher] = [one["data"] for one in objects if one["metadata"]["name"] == "kfp-launcher"]
    keys = requirements.Launcher.of(launcher).keys
    assert keys
    assert (rule["resources"], rule["verbs"], rule["resourceNames"]) == (["secrets"], ["get"], [keys.name])
    [policy] = [one for one in objects if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "object-store"]
    [way] = policy["spec"]["ingress"]
    assert way["ports"] == [{"port": "s3"}]
    assert [peer["podSelector"] for peer in way["from"] if "namespaceSelector" in peer] == [
        {"matchLabels": {"app": "ml-pipeline-ui"}}
    ]


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_a_run_reaches_four_ports_of_kubeflow_and_no_more(overlay: str) -> None:
    [policy] = [
        one for one in rendered(overlay) if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "runs"
    ]
    ways = [rule for rule in policy["spec"]["egress"] if "kubeflow" in json.dumps(rule["to"])]
    assert [broken_ways_to_kubeflow(rule) for rule in ways] == [[], [], []]
    assert {port["port"] for rule in ways for port in rule["ports"]} == {*KUBEFLOWS_PODS.values()}
    everywhere = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}]}
    assert broken_ways_to_kubeflow(everywhere)


def test_argo_keeps_no_logs_with_a_key_that_the_namespace_lacks() -> None:
    [found] = [one for one in rendered("gpu") if one["metadata"]["name"] == "artifact-repositories"]
    used = found["data"][found["metadata"]["annotations"]["workflows.argoproj.io/default-artifact-repository"]]
    assert yaml.safe_load(used) == {"archiveLogs": False}


def test_runs_of_a_single_user_have_an_account_that_may_read_one_key() -> None:
    objects = rendered("single-user")
    [role] = [one for one in objects if one["kind"] == "Role" and one["metadata"]["name"] == "pud-runner"]
    rights = {
        (verb, *rule["resources"], *rule.get("resourceNames", [])) for rule in role["rules"] for verb in rule["verbs"]
    }
    assert rights == {
        ("create", "workflowtaskresults"),
        ("patch", "workflowtaskresults"),
        ("get", "configmaps", "kfp-launcher"),
        ("get", "secrets", "mlpipeline-minio-artifact"),
    }
    [account] = [one for one in objects if one["kind"] == "ServiceAccount" and one["metadata"]["name"] == "pud-runner"]
    assert account["metadata"]["namespace"] == "kubeflow"
    assert "--service-account pud-runner" in (MANIFESTS / "README.md").read_text()


def storage_of(objects: list[Object]) -> dict[str, Decimal]:
    """Return the ephemeral storage, in bytes, of a container that names none."""
    [limits] = [one["spec"]["limits"][0] for one in objects if one["kind"] == "LimitRange"]
    return {name: requirements.quantity(limits[name]["ephemeral-storage"]) for name in ("default", "defaultRequest")}


def sizes_for(data_gib: float) -> dict[str, Decimal]:
    """Return what guard-rails.yaml says that a pipeline for this size of data sets needs."""
    return {"default": Decimal((5 * data_gib + 4) * GIB), "defaultRequest": Decimal(data_gib / 2 * GIB)}


def test_a_step_may_fill_the_disk_that_its_place_gives_it_and_the_patch_of_the_readme_follows(tmp_path: Path) -> None:
    assert storage_of(rendered("gpu")) == sizes_for(DATA_GIB)
    volumes = requirements.estimate(PIPELINE, {}).disk
    assert volumes == (SCRATCH_GIB + DATA_CACHE_GIB) * GIB
    assert storage_of(rendered("gpu"))["default"] == volumes + GIB
    [patch] = [block for block in readme_yaml() if "DATA_GIB=16" in block]
    objects = [*yaml.safe_load_all(kustomize(changed("gpu", tmp_path, patches=patch)))]
    assert storage_of(objects) == sizes_for(16)
    [quota] = [one["spec"]["hard"] for one in objects if one["kind"] == "ResourceQuota"]
    assert requirements.quantity(quota["requests.ephemeral-storage"]) >= 40 * 2 * sizes_for(16)["defaultRequest"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_server_has_more_room_on_paper_than_it_may_fill(overlay: str) -> None:
    for one in [one for one in rendered(overlay) if one["kind"] in WORKLOADS]:
        pod = pod_of(one)
        limits = [found["resources"]["limits"]["ephemeral-storage"] for found in pod["containers"]]
        volumes = [found["emptyDir"]["sizeLimit"] for found in pod["volumes"] if "emptyDir" in found]
        assert sum(map(requirements.quantity, limits)) > sum(map(requirements.quantity, volumes)), one["metadata"]


CERTIFIED = {"object-store": ("StatefulSet", 9000), "mlflow": ("Deployment", 5000)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_with_tls_every_address_and_probe_is_https_and_every_certificate_has_the_names(
    overlay: str, tmp_path: Path
) -> None:
    namespace = OVERLAYS[overlay]
    [lines] = [block for block in readme_yaml() if "components/tls" in block]
    text = kustomize(changed(overlay, tmp_path, lines))
    objects: list[Object] = [*yaml.safe_load_all(text), *credentials.manifest(namespace)["items"]]
    certificates = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Certificate"}
    made = dict.fromkeys(("ca.crt", "tls.crt", "tls.key"), "")
    for spec in certificates.values():
        objects.append({"kind": "Secret", "metadata": {"name": spec["secretName"]}, "data": made})
    if namespace == "kubeflow":
        objects.append({"kind": "ConfigMap", "metadata": {"name": "kfp-launcher"}})
    assert broken_references(objects) == []
    assert not re.search(r"http://(object-store|mlflow)", text)
    issuers = {one["metadata"]["name"] for one in objects if one["kind"] == "Issuer"}
    assert {spec["issuerRef"]["name"] for spec in certificates.values()} == issuers
    for name, (kind, _) in CERTIFIED.items():
        suffixes = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
        assert certificates[name]["dnsNames"] == [*(name + suffix for suffix in suffixes), "localhost"]
        [workload] = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
        [volume] = [one for one in pod_of(workload)["volumes"] if one["name"] == "tls"]
        assert volume["secret"]["secretName"] == certificates[name]["secretName"]
        server = pod_of(workload)["containers"][0]
        probes = [probe["httpGet"]["scheme"] for key, probe in server.items() if key.endswith("Probe")]
        assert probes
        assert {*probes} == {"HTTPS"}
        files = re.findall(r"/etc/tls/[\w.]+", " ".join(server["args"]))
        assert sorted(files) == ["/etc/tls/tls.crt", "/etc/tls/tls.key"]
        assert {"name": "tls", "mountPath": "/etc/tls", "readOnly": True} in server["volumeMounts"]
    if namespace != "kubeflow":  # nothing else of the launcher differs
        told, plain = (
            [yaml.safe_load(one["data"]["providers"]) for one in some if one["metadata"]["name"] == "kfp-launcher"]
            for some in (objects, rendered(overlay))
        )
        plain[0]["s3"]["default"]["disableSSL"] = False
        assert told == plain
    for one in objects:
        if "cert-manager" not in one.get("apiVersion", "cert-manager"):
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def changed(overlay: str, folder: Path, lines: str = "", *, patches: str = "", namespace: str = "") -> Path:
    """Return a copy of an overlay with more lines, more patches or another namespace."""
    shutil.rmtree(folder / "manifests", ignore_errors=True)
    shutil.copytree(MANIFESTS, folder / "manifests")
    file = folder / "manifests" / "overlays" / overlay / "kustomization.yaml"
    text = file.read_text().replace("patches:\n", "patches:\n" + "".join(f"  {one}\n" for one in patches.splitlines()))
    file.write_text((text.replace("namespace: pud\n", f"namespace: {namespace}\n") if namespace else text) + lines)
    return file.parent


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_that_an_object_refers_to_exists(overlay: str) -> None:
    objects = rendered(overlay)
    if OVERLAYS[overlay] == "kubeflow":
        objects.append({"kind": "ConfigMap", "metadata": {"name": "kfp-launcher"}})  # Kubeflow's own
    assert broken_references(objects) == []


REFERRED = ["Secret", "ConfigMap", "ServiceAccount", "Service", "Role", "Deployment", "StatefulSet"]
UNREFERRED = {  # used by people, and by Argo
    ("Secret", "pud-data-publisher"),
    ("Role", "pud-operator"),
    ("ConfigMap", "artifact-repositories"),
}


def test_the_check_of_references_notices_each_object_that_is_missing() -> None:
    objects = rendered("gpu")
    for missing in [one for one in objects if one["kind"] in REFERRED]:
        key = (missing["kind"], missing["metadata"]["name"])
        assert bool(broken_references([one for one in objects if one is not missing])) == (key not in UNREFERRED), key


# a mistake in a leaf at one of these places is a reference to nothing
MISTAKES = re.compile(
    r"/(serviceAccountName|serviceName|secretName|targetPort|containerPort|port|args/\d+|mountPath"
    r"|(matchLabels|selector|template/metadata/labels)/(app.kubernetes.io/name|pipelines.kubeflow.org/v2_component)"
    r"|(ports|volumes|volumeMounts|envFrom|env|subjects|volumeClaimTemplates)/\d+(/\w+)*/name|\w+KeyRef/(name|key)"
    r"|roleRef/name|resourceNames/\d+|data/(PUD_\w+|AWS_\w+|MLFLOW_\w+|defaultPipelineRoot|providers))$"
)
HARMLESS = re.compile(  # not a reference, or to what is outside of these objects
    r"NetworkPolicy/.*/port=(53|443|6443|8443)$|/mountPath=/(tmp|home/pud|var/run/postgresql)$"
    r"|/env/\d+/name=(PGDATA|POSTGRES_\w+|MLFLOW_(AUTH_CONFIG_PATH|DISABLE_TELEMETRY|SERVER_ENABLE_JOB_EXECUTION))$|/args/\d+=(?!.*[/$]|.*port=\d)"
    r"|-(s3.port.\w+|\w+.port)=0$|=-dataDir=/data/\w+$|^Service/.*/ports/\d+/name="
)


LAUNCHER_WORDS = (
    "pud-pipelines",
    "object-store.pud.svc:9000",
    ".pud.",
    ".svc",
    "us-east-1",
    "pud-pipeline-credentials",
    *sorted(KEYS),
)


def mistakes(value: Any, path: str) -> Iterator[tuple[str, list[Any], Any]]:
    """Yield (where, the keys that lead there, a wrong value) for each reference in an object."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            for where, keys, wrong in mistakes(one, f"{path}/{key}"):
                yield where, [key, *keys], wrong
    elif MISTAKES.search(path) and not HARMLESS.search(f"{path}={value}"):
        if "/kfp-launcher/" in path:
            for word in (word for word in LAUNCHER_WORDS if word in value):
                yield f"{path} {word}", [], value.replace(word, f"un{word}")
        elif isinstance(value, int):
            yield path, [], value + 1
        else:
            yield path, [], value.replace("$(", "$(UN") if "$(" in value else f"{value}x"


def test_the_check_of_references_notices_each_mistake_in_a_name_a_key_a_port_or_a_label() -> None:
    objects, unnoticed, count = rendered("gpu"), [], 0
    for index, one in enumerate(objects):
        if (one["kind"], one["metadata"]["name"]) in UNREFERRED:
            continue
        changed = []
        for where, keys, wrong in mistakes(one, f"{one['kind']}/{one['metadata']['name']}"):
            other = copy.deepcopy(one)
            place = other
            for key in keys[:-1]:
                place = place[key]
            place[keys[-1]] = wrong
            changed.append((f"{where}: {wrong}", other))
        for values in ("data", "stringData"):
            for key in one.get(values, {}):
                rest = {name: value for name, value in one[values].items() if name != key}
                changed.append((f"{one['metadata']['name']} without {key}", {**one, values: rest}))
        for what, other in changed:
            count += 1
            if not broken_references([*objects[:index], other, *objects[index + 1 :]]):
                unnoticed.append(what)
    assert not unnoticed, "\n".join([*unnoticed, str(count)])
    assert count > 150


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_a_namespace_is_in_it(overlay: str) -> None:
    names = {one["metadata"].get("namespace") for one in rendered(overlay) if one["kind"] != "ClusterRole"}
    assert names == {OVERLAYS[overlay]}


def test_nothing_for_a_single_user_binds_kubeflow_itself() -> None:
    objects = rendered("single-user")
    kinds = {one["kind"] for one in objects}
    assert not kinds & {"Namespace", "ResourceQuota", "LimitRange"}
    bound = [one["spec"]["podSelector"]["matchLabels"] for one in objects if one["kind"] == "NetworkPolicy"]
    assert bound
    assert all("app.kubernetes.io/name" in labels for labels in bound)


def test_what_the_pipeline_refers_to_is_there_with_every_key() -> None:
    assert len(references()) == 4  # broken_references holds them against the manifests


def test_an_operator_may_do_what_doctor_and_submit_need() -> None:
    objects = rendered("gpu")
    [launcher] = [one["data"] for one in objects if one["metadata"]["name"] == "kfp-launcher"]
    keys = requirements.Launcher.of(launcher).keys
    assert keys
    needed = [*references(), requirements.LAUNCHER, keys, requirements.Reference("serviceAccount", "pud-runner")]
    roles = [one for one in objects if one["kind"].endswith("Role") and one["metadata"]["name"] == "pud-operator"]
    rules = [rule for role in roles for rule in role["rules"]]

    def granted(verb: str, resource: str, name: str) -> bool:
        kind, _, group = resource.partition(".")
        return any(
            group in rule["apiGroups"]
            and kind in rule["resources"]
            and verb in rule["verbs"]
            and name in rule.get("resourceNames", [name])
            for rule in rules
        )

    assert [one for one in doctor.wanted("pud", needed) if not granted(*one)] == []
    assert not granted("get", "secrets", "object-store-root")
    cluster_wide = [role["rules"] for role in roles if role["kind"] == "ClusterRole"]
    assert [(rule["resources"], rule["verbs"]) for rules in cluster_wide for rule in rules] == [(["nodes"], ["list"])]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_that_may_speak_to_another_can_look_its_name_up(overlay: str) -> None:
    for one in [one for one in rendered(overlay) if one["kind"] == "NetworkPolicy" and one["spec"].get("egress")]:
        peers = [
            rule["to"] for rule in one["spec"]["egress"] if {"port": 53, "protocol": "UDP"} in rule.get("ports", [])
        ]
        assert [{"ipBlock": {"cidr": "169.254.0.0/16"}} in found for found in peers] == [True], one["metadata"]["name"]


def test_the_readme_lets_runs_reach_a_kubernetes_api_at_a_public_address(tmp_path: Path) -> None:
    [patch] = [block for block in readme_yaml() if "203.0.113.7" in block]
    assert "cidr: 203.0.113.7/32" in kustomize(changed("gpu", tmp_path, patches=patch))


def test_the_readme_puts_an_image_of_a_registry_into_every_overlay(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    [command] = re.findall(r"^sed -i .*kustomization.yaml$", (MANIFESTS / "README.md").read_text(), re.M)
    for tag in ("COMMIT", "NEXT"):  # an upgrade is the same command
        subprocess.run(["bash", "-c", command.replace("COMMIT", tag)], cwd=tmp_path, check=True)
        assert kustomize(tmp_path / "manifests" / "overlays" / "gpu").count(f"image: REGISTRY/pud:{tag}\n") == 2


def test_doctor_and_submit_of_the_readme_take_the_same_parameters() -> None:
    text = (MANIFESTS / "README.md").read_text()
    assert re.search(r"^set -- .*?--parameters .*?-p data_digest=DIGEST$", text, re.M | re.S)
    assert 'pud doctor "$@" && pud submit "$@"' in text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_root_writes_its_image_or_lacks_limits(overlay: str) -> None:
    for one in [one for one in rendered(overlay) if one["kind"] in WORKLOADS]:
        pod = pod_of(one)
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert labels_of(one)["sidecar.istio.io/inject"] == "false"
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert (
                {"cpu", "memory", "ephemeral-storage"}
                == container["resources"]["requests"].keys()
                == container["resources"]["limits"].keys()
            )
            name, _, tag = container["image"].rpartition(":")
            assert name == "pud" or tag not in ("", "latest")


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_the_quota_leaves_room_for_the_servers_and_a_run(overlay: str) -> None:
    objects = rendered(overlay)
    parameters = parameters_of({"gpu": "gke"}.get(overlay, overlay))
    asked = defaultdict(Decimal, requirements.estimate(PIPELINE, parameters).at_once)
    drivers = asked["pods"]  # one more pod beside each step
    asked["pods"] += drivers
    asked["requests.ephemeral-storage"] = asked["pods"] * 2 * storage_of(objects)["defaultRequest"]
    for one in [one for one in objects if one["kind"] in WORKLOADS]:
        asked["pods"] += 1
        for container in pod_of(one)["containers"]:
            for way, amounts in container["resources"].items():
                for resource, amount in amounts.items():
                    asked[f"{way}.{resource}"] += requirements.quantity(amount)
    assert asked["requests.ephemeral-storage"] > 0
    [quota] = [one for one in objects if one["kind"] == "ResourceQuota"]
    short = {
        name: limit
        for name, limit in quota["spec"]["hard"].items()
        if asked.get(name, Decimal(0)) > requirements.quantity(limit)
    }
    assert not short
    sizes = re.findall(r"^ +storage: (\S+)$", kustomized(overlay), re.M)
    assert sum(map(requirements.quantity, sizes)) <= requirements.quantity(quota["spec"]["hard"]["requests.storage"])


def readme_yaml() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (MANIFESTS / "README.md").read_text(), re.S)


def node_pools() -> dict[str, tuple[dict[str, str], list[str]]]:
    """Return {platform: (labels, taints)} of the nodes that the README's commands make."""
    text = (MANIFESTS / "README.md").read_text()
    [config] = [yaml.safe_load(block) for block in readme_yaml() if "ClusterConfig" in block]
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
    steps = requirements.read(PIPELINE, parameters).steps

    def found(node: Any) -> doctor.Check:
        return doctor.pool(SimpleNamespace(list_node=lambda **_: SimpleNamespace(items=[node])), "GPU pool", steps)

    assert found(a_node(labels, taints)).ok, found(a_node(labels, taints))
    assert found(a_node({}, taints)).ok is None, "a node of another pool would take the steps"
    for taint in taints:
        key = taint.partition("=")[0]
        kept = [one for one in parameters["gpu_tolerations"] if one["key"] != key]
        steps = requirements.read(PIPELINE, {**parameters, "gpu_tolerations": kept}).steps
        assert found(a_node(labels, taints)).ok is False, f"{taint} is tolerated without being named"


def test_the_setting_of_the_readme_ends_input_errors_and_overruns_and_tries_lost_pods_again() -> None:
    """The messages are those that Argo's inferFailedReason and podReconciliation make, and Kubernetes' own."""
    [block] = [yaml.safe_load(one) for one in readme_yaml() if "retryStrategy" in one]
    strategy = yaml.safe_load(block["workflowDefaults"])["spec"]["templateDefaults"]["retryStrategy"]
    assert (strategy["limit"], strategy["retryPolicy"]) == (0, "Always")  # else sub-pipelines would run again
    found = re.fullmatch(r"!\(lastRetry\.message matches '([^']+)'\)", strategy["expression"])
    assert found
    ended = {
        f"main: Error (exit code 1): {FINAL}: seed is -1: give a whole number": True,
        "Pod was active on the node longer than the specified deadline": True,
        "pod deleted": False,
        "Pod was terminated in response to imminent node shutdown.": False,
        "The node was low on resource: ephemeral-storage.": False,
        "main: OOMKilled (exit code 137)": False,
        "main: Error (exit code 1)": False,
    }
    assert {message: bool(re.search(found[1], message)) for message in ended} == ended


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
