"""What a run of the compiled pipeline asks of a cluster: pods, GPUs, objects, storage, time; and what to mirror."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from pud.artifacts.storage import BUCKETS, S3
from pud.base.errors import InputError
from pud.platform.compiled import checked, read_pipeline

PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?(.+?)'\]\}\}")
GIB = 1 << 30

# A task's mean (seconds from its start to the next one's, by kfp.log; megabytes of artifacts) on images of 28 x 28, on
# two CPU cores beside other work. A `pud run` of 20,000 images at 303b705 (684 s); and, from receive on, a `pud defend`
# of 1,000 at 2a36494 (255 s), most of which is start-up, AutoAttack and MLflow, their megabytes reckoned for 20,000.
MEASURED = {
    "check": (4, 0.0),
    "poison": (2, 31.3),
    "train": (58, 0.3),
    "adversarial-probe": (87, 3.1),
    "detect": (3, 0.4),
    "purify": (73, 0.7),
    "evaluate": (48, 0.1),
    "finish": (3, 0.0),
    "receive": (2, 24.1),
    "measure": (48, 0.1),
    "conclude": (5, 0.4),
    "release": (8, 24.4),
    "gate": (5, 0.0),
}
MEASURED_IMAGES = 20_000
POD_SECONDS = 30  # what a cluster adds to a step: a driver's pod, its own pod, the image being there


@dataclass(frozen=True)
class Reference:
    """An object of the namespace that a step refers to. keys: {its key: the variable that it becomes}."""

    kind: str
    name: str
    keys: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Step:
    """A task of the compiled pipeline, the caller's parameters filled in.

    before: all steps that end before it begins.
    asks: amounts by the names that a ResourceQuota uses, in units and bytes.
    """

    name: str
    component: str
    before: frozenset[str]
    image: str
    pool: str
    asks: Mapping[str, Decimal]
    node_selector: Mapping[str, str]
    tolerations: Sequence[Mapping[str, Any]]
    seconds: int
    disk: Decimal
    references: tuple[Reference, ...]

    @property
    def requests(self) -> dict[str, Decimal]:
        """What a node must have, by the names of its resources."""
        return stripped(self.asks)


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline and the values of all its parameters."""

    steps: tuple[Step, ...]
    parameters: Mapping[str, Any]

    @property
    def references(self) -> list[Reference]:
        """All objects that the steps refer to; what one step needs is not optional."""
        found: dict[tuple[str, str], Reference] = {}
        for one in itertools.chain.from_iterable(step.references for step in self.steps):
            known = found.get((one.kind, one.name), Reference(one.kind, one.name, optional=True))
            keys, optional = {**known.keys, **one.keys}, known.optional and one.optional
            found[one.kind, one.name] = Reference(one.kind, one.name, keys, optional)
        return list(found.values())


AUTHORITIES = "pud-ca"  # the config map of a site's own ones. Most sites have none, so that its absence tells nothing

# What a run reads although its pipeline does not name it
LAUNCHER = Reference("configMap", "kfp-launcher", {"defaultPipelineRoot": ""}, optional=True)
BUCKET_NAMES = Reference("configMap", "pud-storage", dict(zip(BUCKETS, BUCKETS, strict=True)))


@dataclass(frozen=True)
class Launcher:
    """What config map kfp-launcher tells Kubeflow's launcher: where the artifacts of a run go, and with which keys."""

    root: str = ""
    endpoint: str = ""
    region: str = S3.region
    keys: Reference | None = None

    @classmethod
    def of(cls, content: Mapping[str, str]) -> "Launcher":
        """Return what the entries of the config map say; no keys where they name no secret for where artifacts go."""
        root = content.get("defaultPipelineRoot", "")
        try:
            provider = yaml.safe_load(content["providers"])[urlsplit(root).scheme]["default"]
            secret = provider["credentials"]["secretRef"]
            keys = {secret["accessKeyKey"]: "AWS_ACCESS_KEY_ID", secret["secretKeyKey"]: "AWS_SECRET_ACCESS_KEY"}
            endpoint = f"http{'' if provider.get('disableSSL') else 's'}://{provider['endpoint']}"
            return cls(
                root, endpoint, provider.get("region", S3.region), Reference("secret", secret["secretName"], keys)
            )
        except (yaml.YAMLError, KeyError, TypeError, AttributeError):
            return cls(root)


def read(pipeline: Path, parameters: Mapping[str, Any]) -> Compiled:
    """Return the steps of a compiled pipeline as these parameters place them.

    Raises:
        InputError: the file is no compiled pipeline, or a parameter is not what it takes.
    """
    spec = read_pipeline(pipeline)
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {name: one.get("defaultValue") for name, one in declared.items()} | checked(parameters, spec, pipeline)
    try:
        _, *rest = yaml.safe_load_all(pipeline.read_text())
        kubernetes = rest[0]["platforms"].get("kubernetes", {}) if rest else {}
        platform = kubernetes.get("deploymentSpec", {}).get("executors", {})
        executors = spec["deploymentSpec"]["executors"]
        steps = tuple(
            _step(name, label, before, executors[label].get("container", {}), platform.get(label, {}), values)
            for name, (label, before) in _leaves(spec, spec["root"]["dag"], "", frozenset()).items()
        )
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__} {error}"
        raise InputError(f"{pipeline} is not a compiled pipeline ({reason}): give what make compile writes") from None
    return Compiled(steps, values)


def _leaves(
    spec: Mapping[str, Any], dag: Mapping[str, Any], path: str, inherited: frozenset[str]
) -> dict[str, tuple[str, frozenset[str]]]:
    """Return {step: (its executor, all steps before it)} of a pipeline and of those nested in it."""
    known: dict[str, dict[str, tuple[str, frozenset[str]]]] = {}

    def within(task: str) -> dict[str, tuple[str, frozenset[str]]]:
        if task not in known:
            before = set(inherited)
            for needed in dag["tasks"][task].get("dependentTasks", ()):
                for step, (_, earlier) in within(needed).items():
                    before |= {step, *earlier}
            component = spec["components"][dag["tasks"][task]["componentRef"]["name"]]
            if "dag" in component:
                known[task] = _leaves(spec, component["dag"], f"{path}{task}/", frozenset(before))
            else:
                known[task] = {path + task: (component["executorLabel"], frozenset(before))}
        return known[task]

    return {step: leaf for task in dag["tasks"] for step, leaf in within(task).items()}


def _filled(value: Any, parameters: Mapping[str, Any]) -> Any:
    """Return what a compiled value becomes under these parameters."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: str(parameters.get(match[1], match[0])), value)
    if "componentInputParameter" in value:
        return parameters.get(value["componentInputParameter"].removeprefix("pipelinechannel--"))
    return _filled(value.get("runtimeValue", {}).get("constant", ""), parameters)


def _step(
    name: str,
    label: str,
    before: frozenset[str],
    container: Mapping[str, Any],
    platform: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Step:
    selector, tolerations = platform.get("nodeSelector", {}), platform.get("tolerations", [])
    placed = _filled(selector["nodeSelectorJson"], values) if "nodeSelectorJson" in selector else selector.get("labels")
    tolerated: list[Mapping[str, Any]] = []
    for one in tolerations:
        given = _filled(one["tolerationJson"], values) if "tolerationJson" in one else one
        tolerated += given if isinstance(given, list) else [given or {}]
    volumes = [one for one in platform.get("emptyDirMounts", []) if one.get("medium") != "Memory"]
    return Step(
        name=name,
        component=re.sub(r"^exec-|-\d+$", "", label),
        before=before,
        image=_filled(container.get("image", ""), values),
        pool="GPU pool" if "accelerator" in container.get("resources", {}) else "CPU pool",
        asks=_asks(container.get("resources", {}), values),
        node_selector=placed or {},
        tolerations=tolerated,
        seconds=int(platform.get("activeDeadlineSeconds", 0)),
        disk=sum((quantity(one["sizeLimit"]) for one in volumes if "sizeLimit" in one), Decimal(0)),
        references=tuple(_references(platform, values)),
    )


def _asks(resources: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Decimal]:
    asks = {"pods": Decimal(1)}
    for resource in ("Cpu", "Memory"):
        limit = _filled(resources.get(f"resource{resource}Limit", ""), values)
        # Kubernetes takes a limit for a missing request
        request = _filled(resources.get(f"resource{resource}Request", ""), values) or limit
        named = {f"requests.{resource.lower()}": request, f"limits.{resource.lower()}": limit}
        asks |= {name: quantity(amount) for name, amount in named.items() if amount}
    if accelerator := resources.get("accelerator"):
        count = _filled(accelerator.get("resourceCount", ""), values)
        if not count.isdecimal():
            raise InputError(f"accelerator_count is {count!r}: give 0 or more")
        if int(count):
            asks[f"requests.{_filled(accelerator.get('resourceType', ''), values)}"] = Decimal(count)
    return asks


def stripped(amounts: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name.removeprefix("requests."): amounts[name] for name in amounts if name.startswith("requests.")}


def _references(platform: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Reference]:
    for field_name, kind, key in (
        ("configMapAsEnv", "configMap", "configMapKey"),
        ("secretAsEnv", "secret", "secretKey"),
    ):
        for one in platform.get(field_name, []):
            name = _filled(one.get(f"{kind}NameParameter", one.get(f"{kind}Name", "")), values)
            keys = {pair[key]: pair["envVar"] for pair in one["keyToEnv"]}
            if name != AUTHORITIES:
                yield Reference(kind, name, keys, one.get("optional", False))
    for one in platform.get("pvcMount", []):
        name = _filled(one.get("pvcNameParameter", one.get("constant", "")), values)
        yield Reference("persistentVolumeClaim", name)


def quantity(text: Any) -> Decimal:
    """Return a Kubernetes quantity as a number."""
    from kubernetes.utils import parse_quantity

    return Decimal(parse_quantity(text))


# ------------------------------------------------------------------------------------------------ what a run asks for


@dataclass(frozen=True)
class Estimate:
    """What a run asks for. at_once: the most at any time, by the names that a ResourceQuota uses.

    seconds: on two CPU cores, as measured on images of 28 x 28; a GPU is faster and larger images are slower.
    longest: where every step takes all the time that it may, and none is tried again. disk: of one node.
    """

    steps: int
    at_once: Mapping[str, Decimal]
    seconds: float
    longest: float
    disk: Decimal
    artifacts_megabytes: float

    def __str__(self) -> str:
        requests = stripped(self.at_once)
        limits = {name: self.at_once.get(f"limits.{name}", Decimal(0)) for name in ("cpu", "memory")}
        gpus = [f"{count} {kind}" for kind, count in requests.items() if kind not in limits]
        lines = {
            "pods": f"{self.steps} steps, each after a short driver; {self.at_once['pods']} at once",
            "GPUs": f"{', '.join(gpus) or 'none'} at once",
            "CPU": f"{requests.get('cpu', 0):g} requested at once, {limits['cpu']:g} at most",
            "memory": f"{requests.get('memory', 0) / GIB:g} GiB requested at once, {limits['memory'] / GIB:g} at most",
            "storage": f"up to {self.disk / GIB:g} GiB of a node's disk, about {self.artifacts_megabytes:.0f} MB of "
            "artifacts (of images of 28 x 28)",
            "time": f"about {math.ceil(self.seconds / 60)} min on two CPU cores, "
            f"{self.longest / 3600:g} h at most without retries",
        }
        return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def estimate(pipeline: Path, parameters: Mapping[str, Any]) -> Estimate:
    """Return what a run with these parameters asks for.

    Raises:
        InputError: the file is no compiled pipeline, or a parameter is not what it takes.
    """
    return estimate_of(read(pipeline, parameters))


def estimate_of(compiled: Compiled) -> Estimate:
    steps = sorted(compiled.steps, key=lambda step: len(step.before))
    scale = int(compiled.parameters.get("train_size") or MEASURED_IMAGES) / MEASURED_IMAGES
    measured = {step.name: MEASURED.get(step.component, (0, 0.0)) for step in steps}
    return Estimate(
        steps=len(steps),
        at_once={
            name: most_at_once(steps, name) for name in dict.fromkeys(name for step in steps for name in step.asks)
        },
        seconds=_longest_path(steps, {name: seconds * scale + POD_SECONDS for name, (seconds, _) in measured.items()}),
        longest=_longest_path(steps, {step.name: float(step.seconds) for step in steps}),
        disk=max((step.disk for step in steps), default=Decimal(0)),
        artifacts_megabytes=sum(size for _, size in measured.values()) * scale,
    )


def most_at_once(steps: Sequence[Step], name: str) -> Decimal:
    """Return the most that steps of which none is before another ask for together."""
    if not steps:
        return Decimal(0)
    first, *others = steps
    beside = [step for step in others if first.name not in step.before and step.name not in first.before]
    with_it = first.asks.get(name, Decimal(0)) + most_at_once(beside, name)
    return with_it if len(beside) == len(others) else max(with_it, most_at_once(others, name))


def _longest_path(steps: Sequence[Step], seconds: Mapping[str, float]) -> float:
    ends: dict[str, float] = {}
    for step in steps:  # sorted, so that those before it are known
        ends[step.name] = seconds[step.name] + max((ends[name] for name in step.before), default=0.0)
    return max(ends.values(), default=0.0)


# ------------------------------------------------------------------------------------------------- without a network


@dataclass(frozen=True)
class Mirror:
    """What a cluster without internet must find in registries of its own."""

    images: list[str]
    packages: list[str]

    def __str__(self) -> str:
        return "\n".join([*(f"image {name}" for name in self.images), *(f"pip {name}" for name in self.packages)])


def offline(
    pipeline: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    constraints: Path,
    manifests: Path | None = None,
) -> Mirror:
    """Return the images of the steps and of the manifests, and the pinned Python packages that the image is built of.

    Kubeflow's own images are those of its release, and not among them.

    Raises:
        InputError: a file is missing or is not what it should be, or a parameter is not what the pipeline takes.
    """
    images = {step.image for step in read(pipeline, parameters or {}).steps}
    if manifests and not manifests.is_dir():
        raise InputError(f"{manifests} is no folder: give that of the manifests")
    files = sorted(path for pattern in ("*.yaml", "*.yml") for path in manifests.rglob(pattern)) if manifests else []
    try:
        documents = [one for file in files for one in yaml.safe_load_all(file.read_text())]
        lines = [line.split("#")[0].strip() for line in constraints.read_text().splitlines()]
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise InputError(f"what to mirror cannot be read ({error}): give the folders of the checkout") from None
    for image in _images(documents):
        images |= _kustomized(image, documents)
    return Mirror(sorted(images - {""}), [line for line in lines if line])


def _images(document: Any) -> Iterator[str]:
    """Yield each container image that a manifest names, however deep."""
    if isinstance(document, dict):
        if isinstance(document.get("image"), str):
            yield document["image"]
        document = list(document.values())
    if isinstance(document, list):
        for one in document:
            yield from _images(one)


def _kustomized(image: str, documents: Iterable[Any]) -> set[str]:
    """Return what kustomizations make of an image: a name, a tag or a digest of its own; itself where none does."""
    name = re.sub(r"(:[^:/@]+)?(@.*)?$", "", image)
    lists = [one["images"] for one in documents if isinstance(one, dict) and isinstance(one.get("images"), list)]
    found = set()
    for rule in itertools.chain.from_iterable(lists):
        if rule["name"] == name:
            kept = "" if "digest" in rule else image.removeprefix(name)
            tag = f":{rule['newTag']}" if "newTag" in rule else kept
            found.add(rule.get("newName", name) + tag + (f"@{rule['digest']}" if "digest" in rule else ""))
    return found or {image}
