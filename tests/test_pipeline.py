"""The compiled pipeline: not stale, in the right order, placed as asked, and blind to the ground truth."""

import ast
import copy
import importlib
import inspect
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kfp import dsl
from kfp.dsl import Dataset, Input, Model
from kfp.dsl.types.type_utils import InconsistentTypeException

from components.artifacts import Detection, GroundTruth, Probe, Report
from pipelines.placement import DATA_GIB, SCRATCH_GIB, SCRATCH_NAME
from pipelines.pud import COMPILED
from pipelines.rounds import ROUNDS
from pud.artifacts.ground_truth import load_truth
from pud.artifacts.storage import MOUNTED_CA
from pud.base.errors import InputError
from pud.data.readers import open_split

ROOT = Path(__file__).parent.parent
GPU, CPU = ("train", "adversarial-probe", "purify", "evaluate"), ("check", "poison", "detect", "conclude", "finish")
DEFENDING = ("train", "adversarial_probe", "detect", "purify")
STEPLESS = ("check", "finish")
COMPONENTS = (*DEFENDING, "poison", "evaluate", *STEPLESS)
COMPONENTS += ("receive", "measure", "conclude", "release", "gate")
SECRET_TYPES = {"system.PudGroundTruth", "system.PudReport"}
MAXIMUM_BODY_LINES = 40

SPEC, PLATFORM = yaml.safe_load_all(COMPILED.read_text())
EXECUTORS = SPEC["deploymentSpec"]["executors"]
PLACES = PLATFORM["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def component_of(label: str) -> str:
    """Return the component that an executor such as exec-evaluate-2-2 runs."""
    return max((name for name in GPU + CPU if label.startswith(f"exec-{name}")), key=len)


@dataclass(frozen=True)
class Task:
    """A task that runs a container. sources: of each artifact input the task that makes it, nested pipelines looked
    through; graph_inputs: the parameters of the graph that the task is in."""

    label: str
    spec: dict[str, Any]
    sources: dict[str, str]
    graph_inputs: set[str]

    @property
    def stage(self) -> str:
        return self.spec["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"]


def tasks_of(part: dict[str, Any], path: str, given: dict[str, str]) -> dict[str, Task]:
    """Return the tasks inside a graph by their path; ``given`` names the makers of the graph's own artifact inputs."""
    found: dict[str, Task] = {}
    for name, spec in part["dag"]["tasks"].items():
        sources = {key: maker(part, path, given, about) for key, about in artifacts_of(spec).items()}
        inner = SPEC["components"][spec["componentRef"]["name"]]
        if "dag" in inner:
            found |= tasks_of(inner, f"{path}{name}/", sources)
        else:
            parameters = set(part["inputDefinitions"]["parameters"])
            found[path + name] = Task(inner["executorLabel"], spec, sources, parameters)
    return found


def artifacts_of(spec: dict[str, Any]) -> dict[str, Any]:
    return spec.get("inputs", {}).get("artifacts", {})


def maker(part: dict[str, Any], path: str, given: dict[str, str], about: dict[str, Any]) -> str:
    """Return the path of the task that makes an artifact."""
    if "componentInputArtifact" in about:
        return given[about["componentInputArtifact"]]
    name, key = about["taskOutputArtifact"]["producerTask"], about["taskOutputArtifact"]["outputArtifactKey"]
    inner = SPEC["components"][part["dag"]["tasks"][name]["componentRef"]["name"]]
    if "dag" not in inner:
        return path + name
    (selector,) = inner["dag"]["outputs"]["artifacts"][key]["artifactSelectors"]
    return f"{path}{name}/{selector['producerSubtask']}"


def component(name: str) -> Any:
    return getattr(importlib.import_module(f"components.{name}"), name)


def body(path: Path) -> str:
    """Return a compiled file without the comment at its top, whose dictionaries kfp writes in random order."""
    return "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#"))


TASKS = tasks_of(SPEC["root"], "", {})
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def found(name: str, **sources: str) -> list[str]:
    """Return the paths of the tasks of a component whose inputs come from these tasks."""
    return [
        path
        for path, task in TASKS.items()
        if component_of(task.label) == name and sources.items() <= task.sources.items()
    ]


def models() -> list[str]:
    """Return the paths of train and of each round's purify, in the order in which the model passes through them."""
    path = found("train")
    while following := found("purify", model=path[-1]):
        path += following
    return path


def test_the_compiled_pipeline_is_not_stale(tmp_path: Path) -> None:
    compiled_with(tmp_path)
    assert body(tmp_path / "pud.yaml") == body(COMPILED), "run make compile"


def parsed_by_the_oldest_kubeflow(spec: Any, platform: Any) -> subprocess.CompletedProcess[str]:
    protobufs = ROOT / "build" / "kfp-2.15"
    assert (protobufs / "kfp").is_dir(), "run make build/kfp-2.15"
    command = [sys.executable, "-I", "-S", str(ROOT / "tests" / "oldest_kubeflow.py"), str(protobufs)]
    return subprocess.run(command, input=json.dumps([spec, platform]), capture_output=True, text=True, check=False)


def test_the_oldest_kubeflow_that_is_supported_knows_every_field_of_both_documents() -> None:
    done = parsed_by_the_oldest_kubeflow(SPEC, PLATFORM)
    assert done.stdout == f"{len(EXECUTORS)}\n", done.stderr


def test_the_oldest_kubeflow_refuses_a_field_that_came_later() -> None:
    later = copy.deepcopy(PLATFORM)
    executors = later["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    next(iter(executors.values()))["securityContext"] = {"runAsNonRoot": True}
    assert "securityContext" in parsed_by_the_oldest_kubeflow(SPEC, later).stderr


def test_every_component_runs_as_often_as_the_rounds_ask() -> None:
    count = {name: len(found(name)) for name in GPU + CPU}
    assert count == {
        "check": 1,
        "poison": 1,
        "train": 1,
        "adversarial-probe": ROUNDS + 1,
        "detect": ROUNDS + 1,
        "purify": ROUNDS,
        "evaluate": ROUNDS + 2,
        "conclude": 1,
        "finish": 1,
    }
    assert len(TASKS) == len(EXECUTORS) == len(PLACES)


def test_every_step_works_on_the_poisoned_data_set() -> None:
    (poison,) = found("poison")
    makers = {task.sources["dataset"] for task in TASKS.values() if "dataset" in task.sources}
    truths = {task.sources["ground_truth"] for task in TASKS.values() if "ground_truth" in task.sources}
    assert makers == truths == {poison}


def test_the_model_passes_through_train_and_every_round() -> None:
    assert len(models()) == ROUNDS + 1


@pytest.mark.parametrize("index", range(ROUNDS + 1))
def test_every_detect_compares_the_infected_model_with_the_last_one(index: int) -> None:
    (infected,) = found("adversarial-probe", model=models()[0])
    (last,) = found("adversarial-probe", model=models()[index])
    (detection,) = found("detect", infected_probe=infected, probe=last)
    if index < ROUNDS:
        assert TASKS[models()[index + 1]].sources["detection"] == detection


def test_every_stage_is_measured_and_extends_the_report_before_it() -> None:
    (last,) = found("evaluate", model=models()[0])
    assert TASKS[last].stage == "infected"
    assert "previous_report" not in TASKS[last].sources
    for model in models()[1:]:
        (last,) = found("evaluate", model=model, previous_report=last, detection=TASKS[model].sources["detection"])
        assert TASKS[last].stage == "round"
    (last,) = found("evaluate", model=models()[-1], previous_report=last)
    assert TASKS[last].stage == "purified"


def test_finish_runs_whatever_happened() -> None:
    tasks = SPEC["root"]["dag"]["tasks"]
    assert tasks["finish"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert tasks["finish"]["dependentTasks"] == ["exit-handler-1"]


def test_another_cache_period_leaves_no_cached_task_but_the_look_at_the_settings() -> None:
    anew = {path for path, task in TASKS.items() if "cache_period" in task.spec["inputs"]["parameters"]}
    for _ in TASKS:  # a task is made anew if it takes what was
        anew |= {path for path, task in TASKS.items() if anew & {*task.sources.values()}}
    assert {component_of(TASKS[path].label) for path in TASKS.keys() - anew} == set(STEPLESS)


def test_every_pipeline_parameter_has_a_default() -> None:
    parameters = SPEC["root"]["inputDefinitions"]["parameters"]
    assert {name for name, about in parameters.items() if "defaultValue" not in about} == set()
    assert "artifacts" not in SPEC["root"]["inputDefinitions"]


@each_task
def test_only_what_has_side_effects_is_never_cached(task: Task) -> None:
    assert task.spec["cachingOptions"].get("enableCache", False) == (
        component_of(task.label) not in ("evaluate", "conclude", "finish")
    )


def test_a_run_is_tracked_under_its_id_which_no_other_run_shares_and_shown_under_its_name() -> None:
    for path in found("evaluate") + found("finish"):
        given = TASKS[path].spec["inputs"]["parameters"]
        assert given["job"]["runtimeValue"]["constant"] == dsl.PIPELINE_JOB_ID_PLACEHOLDER
        if "job_name" in given:
            assert given["job_name"]["runtimeValue"]["constant"] == dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    assert all("job_name" in TASKS[path].spec["inputs"]["parameters"] for path in found("evaluate"))


@each_task
def test_every_task_takes_its_image_from_the_parameter(task: Task) -> None:
    assert EXECUTORS[task.label]["container"]["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"
    assert "image" in task.spec["inputs"]["parameters"]["pipelinechannel--image"]["componentInputParameter"]


@each_task
def test_every_task_is_timed_and_asks_for_resources(task: Task) -> None:
    resources = EXECUTORS[task.label]["container"]["resources"]
    assert int(PLACES[task.label]["activeDeadlineSeconds"]) >= 3600
    assert float(resources["resourceCpuRequest"]) > 0
    assert resources["resourceMemoryRequest"].endswith("Gi")


@each_task
def test_the_last_retry_may_begin_after_every_try_before_it_took_its_longest(task: Task) -> None:
    retry, timeout = task.spec.get("retryPolicy"), int(PLACES[task.label]["activeDeadlineSeconds"])
    if retry:
        assert int(retry["backoffMaxDuration"].removesuffix("s")) >= (retry["maxRetryCount"] + 1) * timeout


@each_task
def test_only_where_a_pod_can_be_lost_is_a_task_tried_often_and_what_looks_at_settings_once(task: Task) -> None:
    tries = {"check": 0} | dict.fromkeys(GPU, 3)
    assert task.spec.get("retryPolicy", {}).get("maxRetryCount", 0) == tries.get(component_of(task.label), 1)


def test_settings_are_looked_at_before_anything_is_spent() -> None:
    tasks = {path.rpartition("/")[2]: task.spec for path, task in TASKS.items()}
    assert "check" in tasks["poison"]["dependentTasks"]
    assert "dependentTasks" not in tasks["check"]


def compiled_with(tmp_path: Path, **environment: str) -> Any:
    """Return where each task is placed by a pipeline that is compiled with these variables."""
    out = tmp_path / "pud.yaml"
    command = [sys.executable, "-m", "pipelines.pud", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, env={**os.environ, **environment})
    return list(yaml.safe_load_all(out.read_text()))[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_timeouts_and_disks_are_in_proportion_to_the_data_set(tmp_path: Path) -> None:
    larger = compiled_with(tmp_path, DATA_GIB=str(4 * DATA_GIB))
    for label, place in PLACES.items():
        asked, base = (int(one["activeDeadlineSeconds"]) for one in (larger[label], place))
        assert 2 * base < asked < 4 * base
        (scratch,) = [one for one in larger[label]["emptyDirMounts"] if one["volumeName"] == SCRATCH_NAME]
        assert scratch["sizeLimit"] == f"{1024 * (SCRATCH_GIB + 9 * DATA_GIB):.0f}Mi"


def test_poison_is_told_what_the_disks_have_room_for() -> None:
    (poison,) = found("poison")
    told = EXECUTORS[TASKS[poison].label]["container"]["env"]
    assert told == [{"name": "PUD_DATA_GIB", "value": f"{DATA_GIB:g}"}]


def test_a_limit_reaches_the_volume_that_kubeflow_mounts_without_one() -> None:
    volume, mount = {"name": SCRATCH_NAME, "emptyDir": {}}, {"name": SCRATCH_NAME, "mountPath": "/s3"}
    main = {"name": "main", "image": "pud", "volumeMounts": [mount]}
    spec = {"containers": [main], "volumes": [volume]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    limited = {"name": SCRATCH_NAME, "emptyDir": {"sizeLimit": "1Gi"}}
    patch = json.dumps({"spec": {"containers": [main], "volumes": [limited]}})  # as Kubeflow's driver makes of ours
    command = ["kubectl", "patch", "--local", "--filename=-", "--type=strategic", "--output=json", "--patch", patch]
    done = subprocess.run(command, input=json.dumps(pod), capture_output=True, text=True, check=True)
    merged = json.loads(done.stdout)["spec"]
    assert merged["volumes"] == [limited]
    assert merged["containers"][0]["volumeMounts"] == [mount]


@each_task
def test_every_task_gets_the_authorities_of_the_site_where_there_are_any(task: Task) -> None:
    (mounted,) = PLACES[task.label]["configMapAsVolume"]
    assert (mounted["configMapName"], mounted["optional"]) == ("pud-ca", True)
    assert mounted["mountPath"] == str(MOUNTED_CA.parent)


@each_task
def test_every_task_is_placed_on_its_pool_by_parameters_of_its_graph(task: Task) -> None:
    pool = "gpu" if component_of(task.label) in GPU else "cpu"
    place = PLACES[task.label]
    (toleration,) = place["tolerations"]
    selector = place["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
    names = {selector, toleration["tolerationJson"]["componentInputParameter"]}
    assert {name.removeprefix("pipelinechannel--") for name in names} == {
        f"{pool}_node_selector",
        f"{pool}_tolerations",
    }
    assert names <= task.graph_inputs, "the cluster resolves the names among the inputs of the task's graph"


@each_task
def test_only_tasks_that_run_the_model_get_an_accelerator_and_shared_memory(task: Task) -> None:
    accelerator = EXECUTORS[task.label]["container"]["resources"].get("accelerator")
    mounts = [one for one in PLACES[task.label]["emptyDirMounts"] if one["volumeName"] != SCRATCH_NAME]
    if component_of(task.label) in CPU:
        assert accelerator is None
        cache = [{"mountPath": "/var/cache/pud", "sizeLimit": "9216Mi", "volumeName": "data-cache"}]
        assert mounts == (cache if component_of(task.label) == "poison" else [])
    else:
        assert accelerator == {
            "resourceType": "{{$.inputs.parameters['pipelinechannel--accelerator']}}",
            "resourceCount": "{{$.inputs.parameters['pipelinechannel--accelerator_count']}}",
        }
        assert [(mount["mountPath"], mount["medium"]) for mount in mounts] == [("/dev/shm", "Memory")]


@each_task
def test_every_parameter_that_a_task_names_is_handed_into_its_graph(task: Task) -> None:
    named = {about.get("componentInputParameter") for about in task.spec["inputs"]["parameters"].values()} - {None}
    assert named <= task.graph_inputs


@pytest.mark.parametrize(
    ("secret", "taken_by", "made_by"),
    [(GroundTruth, {"evaluate"}, {"poison"}), (Report, {"evaluate", "conclude"}, {"evaluate"})],
)
def test_only_evaluate_takes_the_ground_truth_and_only_the_page_its_report(
    secret: type, taken_by: set[str], made_by: set[str]
) -> None:
    takers, makers = set(), set()
    for part in SPEC["components"].values():
        if "executorLabel" in part:
            for side, names in (("inputDefinitions", takers), ("outputDefinitions", makers)):
                artifacts = part.get(side, {}).get("artifacts", {}).values()
                if secret.schema_title in {about["artifactType"]["schemaTitle"] for about in artifacts}:
                    names.add(component_of(part["executorLabel"]))
    assert (takers, makers) == (taken_by, made_by)


@pytest.mark.parametrize("name", DEFENDING)
def test_a_defending_component_takes_no_artifact_of_any_type(name: str) -> None:
    types = {about.type.split("@")[0] for about in component(name).component_spec.inputs.values()}
    assert "system.Artifact" not in types


ARTIFACTS = {
    "train": {"dataset": Dataset},
    "adversarial_probe": {"model": Model, "dataset": Dataset},
    "detect": {"infected_probe": Probe, "probe": Probe},
    "purify": {"model": Model, "dataset": Dataset, "detection": Detection},
}
INPUTS = [(name, into) for name, inputs in ARTIFACTS.items() for into in inputs]


def compile_with(name: str, artifacts: dict[str, type]) -> None:
    """Compile a pipeline of one component whose artifact inputs are the pipeline's own, of these types."""
    takes = component(name).component_spec.inputs
    scalars = {"train_settings": {}, "settings": {}, "seed": 0, "device": "cpu"}
    constants = {key: value for key, value in scalars.items() if key in takes}

    def handed(*given: Any) -> None:
        component(name)(**dict(zip(artifacts, given, strict=True)), **constants)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    inputs = [inspect.Parameter(key, kind, annotation=Input[artifact]) for key, artifact in artifacts.items()]
    handed.__signature__ = inspect.Signature(inputs)
    dsl.pipeline(handed)


def test_the_defending_components_have_the_artifact_inputs_that_are_tried_below() -> None:
    for name, artifacts in ARTIFACTS.items():
        takes = component(name).component_spec.inputs
        assert {key for key, about in takes.items() if "@" in about.type} == artifacts.keys()
        compile_with(name, artifacts)


@pytest.mark.parametrize("secret", [GroundTruth, Report])
@pytest.mark.parametrize(("name", "into"), INPUTS)
def test_the_compiler_refuses_to_hand_a_defence_the_truth(name: str, into: str, secret: type) -> None:
    with pytest.raises(InconsistentTypeException, match=secret.schema_title):
        compile_with(name, {**ARTIFACTS[name], into: secret})


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_short_and_calls_one_step(name: str) -> None:
    tree = ast.parse((ROOT / "components" / f"{name}.py").read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    calls = [node.func.id for node in ast.walk(function) if isinstance(node, ast.Call) and hasattr(node.func, "id")]
    lines = function.end_lineno - function.body[0].lineno + 1
    assert lines <= MAXIMUM_BODY_LINES
    assert len([call for call in calls if call.endswith("_step")]) == (0 if name in STEPLESS else 1)
    assert callable(component(name).python_func)


@dataclass
class Made:
    """An artifact as a component is handed it."""

    name: str
    path: str

    def log_metric(self, name: str, value: float) -> None:
        """Kubeflow's page is not here."""


def test_poison_plants_the_attack_of_its_parameters_with_its_settings(sample_folder: Path, tmp_path: Path) -> None:
    outputs = {name: Made(name, str(tmp_path / name)) for name in ("dataset", "ground_truth", "metrics")}
    component("poison").python_func(
        data_uri=f"file:{sample_folder}",
        data_digest="",
        attack="label-consistent",
        attack_settings={"size": 2.0, "surrogate_epochs": 1.0},  # as Kubeflow hands numbers over
        mapping="all-to-one",
        poison_rate=0.5,
        target_label=3,
        train_size=300,
        cache_period="",
        seed=0,
        device="cpu",
        **outputs,
    )
    truth, about = load_truth(tmp_path / "ground_truth")
    assert (about["attack"], about["attack_settings"]["size"]) == ("label-consistent", 2)
    split = open_split(tmp_path / "dataset" / "train")
    assert (split.labels[truth.poisoned] == 3).all()
    patches = split.images[truth.poisoned][:, 0, :2, :2]
    assert (patches == np.array([[255, 0], [0, 255]])).all()


@pytest.mark.parametrize("name", ["adversarial-probe", "purify", "evaluate"])
def test_what_opens_a_model_is_told_which_network_the_user_named(name: str) -> None:
    for path in found(name):
        given = TASKS[path].spec["inputs"]["parameters"]["train_settings"]["componentInputParameter"]
        assert given.removeprefix("pipelinechannel--") == "train_settings"


OWN_NETWORK = """
from torch import nn

def make(*, input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
"""


def test_code_of_the_user_s_own_is_probed_where_the_pipeline_names_it_and_not_because_a_model_does(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    data, made = (
        Made("dataset", str(sample_folder)),
        {name: Made(name, str(tmp_path / name)) for name in ("model", "probe", "metrics")},
    )
    named = {"architecture": "own_network:make", "epochs": 1.0, "batch_size": 64.0}
    component("train").python_func(
        dataset=data, settings=named, seed=0, device="cpu", model=made["model"], metrics=made["metrics"]
    )
    few = {"splits": 0, "inversion_steps": 0, "noise_draws": 0, "mix_draws": 0, "adversarial_images": 10}
    probing = {"dataset": data, "settings": few, "seed": 0, "device": "cpu", **made}
    with pytest.raises(InputError, match="a file may not choose what code runs here"):
        component("adversarial_probe").python_func(train_settings={}, **probing)
    component("adversarial_probe").python_func(train_settings=named, **probing)
    assert (tmp_path / "probe" / "probe.json").is_file()
