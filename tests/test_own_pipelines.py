"""The pipelines for a model from outside: not stale, blind to any ground truth, and made of the same rounds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.rounds import ROUNDS

PIPELINES = Path(__file__).parent.parent / "pipelines"
NAMES = ("scan", "defend")
RUNS = {
    "scan": {"check": 1, "receive": 1, "adversarial-probe": 1, "detect": 1, "conclude": 1},
    "defend": {
        "check": 1,
        "receive": 1,
        "measure": ROUNDS + 2,
        "adversarial-probe": ROUNDS + 1,
        "detect": ROUNDS + 1,
        "purify": ROUNDS,
        "conclude": 1,
        "release": 1,
        "gate": 1,
        "finish": 1,
    },
}


def body(path: Path) -> str:
    return "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#"))


def spec_of(name: str) -> dict[str, Any]:
    return next(yaml.safe_load_all((PIPELINES / f"{name}.yaml").read_text()))


def commands_of(spec: dict[str, Any], component: str) -> set[str]:
    """Return the code that a component's containers run."""
    executors = spec["deploymentSpec"]["executors"]
    return {
        " ".join(about["container"]["command"])
        for label, about in executors.items()
        if label.removeprefix("exec-").rstrip("0123456789-") == component
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_pipeline_is_not_stale(name: str, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.yaml"
    subprocess.run([sys.executable, "-m", f"pipelines.{name}", str(out)], check=True, cwd=PIPELINES.parent)
    assert body(out) == body(PIPELINES / f"{name}.yaml"), "run make compile"


@pytest.mark.parametrize("name", NAMES)
def test_no_ground_truth_and_no_attack_is_anywhere_in_it(name: str) -> None:
    spec = spec_of(name)
    schemas = {
        about["artifactType"]["schemaTitle"]
        for component in spec["components"].values()
        for side in ("inputDefinitions", "outputDefinitions")
        for about in component.get(side, {}).get("artifacts", {}).values()
    }
    assert "system.PudGroundTruth" not in schemas
    assert "ground_truth" not in (PIPELINES / f"{name}.yaml").read_text()
    assert {"attack", "poison_rate", "target_label"} & spec["root"]["inputDefinitions"]["parameters"].keys() == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_component_runs_as_often_as_it_should(name: str) -> None:
    count = dict.fromkeys(RUNS[name], 0)
    for label in spec_of(name)["deploymentSpec"]["executors"]:
        count[label.removeprefix("exec-").rstrip("0123456789-")] += 1
    assert count == RUNS[name]


def test_the_rounds_of_a_defence_are_those_of_the_rehearsal_code_for_code() -> None:
    ours, rehearsal = spec_of("defend"), spec_of("pud")
    for component in ("adversarial-probe", "detect", "purify"):
        assert commands_of(ours, component) == commands_of(rehearsal, component)
        assert len(commands_of(ours, component)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_default(name: str) -> None:
    parameters = spec_of(name)["root"]["inputDefinitions"]["parameters"]
    assert [key for key, about in parameters.items() if "defaultValue" not in about] == []


@pytest.mark.parametrize("component", ["measure", "conclude", "release", "gate", "finish"])
def test_what_leaves_something_in_mlflow_is_never_taken_from_a_cache(component: str) -> None:
    spec = spec_of("defend")
    tasks = [
        task
        for part in (spec["root"], *spec["components"].values())
        for name, task in part.get("dag", {}).get("tasks", {}).items()
        if name.rstrip("0123456789-") == component
    ]
    assert tasks
    assert not any(task["cachingOptions"].get("enableCache", False) for task in tasks)
