"""What may import what, proved in fresh interpreters and over the source tree."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLATFORM = ("kfp", "mlflow", "dvc", "minio", "kubernetes")
# a module imports from its own line and those above it, never from below
FLOORS = (
    {"base"},
    {"data"},
    {"models"},
    {"adversarial"},
    {"evidence"},
    {"detectors"},
    {"attacks", "defences"},
    {"evaluation"},
    {"artifacts"},
    {"exchange"},
    {"steps.settings", "reporting"},
    {"steps"},
    {"platform", "__main__"},
)
NEAR_THE_PLATFORM = {"pud.reporting.tracking", "pud.reporting.registry"}
DEFENDERS = (
    "pud.evidence.cross_examination",
    "pud.detectors.pud",
    "pud.evidence.probing",
    "pud.defences.pud",
    "pud.steps.detect",
    "pud.steps.probe",
    "pud.steps.purify",
)
TRUTH = ("pud.attacks.ground_truth", "pud.artifacts.ground_truth", "pud.attacks.poisoning", "pud.attacks")


IMPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(list(sys.modules)))
"""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NO_ATTACK = {f"pud.attacks{name}" for name in ("", ".contract", ".poisoning", ".ground_truth")}
ATTACKS = [path.stem.replace("_", "-") for path in ROOT.glob("pud/attacks/*.py") if name_of(path) not in NO_ATTACK]
ROOMS = [path for path in sorted(ROOT.glob("pud/*/*.py")) if path.parent.name != "platform"]
ALGORITHM = [name for path in ROOMS if (name := name_of(path)) not in NEAR_THE_PLATFORM]
STEPS = [name_of(path) for path in sorted(ROOT.glob("pud/steps/*.py"))]


def loaded_by(*modules: str) -> set[str]:
    """The names of all modules that a fresh interpreter holds after importing these."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *modules], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def platform_in(modules: set[str]) -> set[str]:
    return {name for name in PLATFORM if name in modules}


def test_the_lists_of_modules_are_not_empty() -> None:
    assert {"pud.detectors.pud", "pud.defences.pud", "pud.adversarial.pgd"} <= set(ALGORITHM)
    assert {"pud.steps.detect", "pud.steps.evaluate"} <= set(STEPS)


def test_no_algorithm_and_no_step_loads_the_platform() -> None:
    assert platform_in(loaded_by(*ALGORITHM, *STEPS)) == set()


def test_the_same_check_fails_for_tracking() -> None:
    assert platform_in(loaded_by("pud.reporting.tracking")) == {"mlflow"}


def test_no_defending_module_loads_the_ground_truth() -> None:
    assert loaded_by(*DEFENDERS) & set(TRUTH) == set()


def test_the_same_check_fails_for_what_reads_the_truth() -> None:
    assert {"pud.attacks.ground_truth", "pud.artifacts.ground_truth"} <= loaded_by("pud.artifacts.ground_truth")


def test_detect_starts_without_torch() -> None:
    detectors = [name_of(path) for path in ROOT.glob("pud/detectors/*.py")]
    modules = loaded_by("pud.steps.detect", *detectors)
    assert "scipy" in modules
    assert "torch" not in modules


def imports_of(path: Path) -> set[str]:
    """All modules that a file names in an import, wherever in the file; relative ones made absolute."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name_of(path).split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def roots_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)}


def importers_of(root: str) -> set[str]:
    files = [path for folder in ("pud", "components", "pipelines") for path in ROOT.glob(f"{folder}/**/*.py")]
    return {path.relative_to(ROOT).as_posix() for path in files if root in roots_of(path)}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("pud", {"components", "pipelines", "tests", "experiments"}),
        ("components", {"pipelines", "tests", "experiments"}),
    ],
)
def test_imports_go_one_way(folder: str, forbidden: set[str]) -> None:
    files = sorted(ROOT.glob(f"{folder}/**/*.py"))
    assert files
    assert {path.name: roots_of(path) & forbidden for path in files if roots_of(path) & forbidden} == {}


def test_only_tracking_and_the_registry_import_mlflow() -> None:
    assert importers_of("mlflow") == {"pud/reporting/tracking.py", "pud/reporting/registry.py"}


def test_only_storage_and_the_pre_flight_check_speak_to_the_object_store() -> None:
    assert importers_of("minio") <= {"pud/artifacts/storage.py", "pud/platform/cluster/doctor.py"}


def test_only_the_cluster_package_speaks_to_kubernetes() -> None:
    assert importers_of("kubernetes") <= {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("pud/platform/cluster/*.py")
    }


def test_nothing_imports_dvc() -> None:
    assert importers_of("dvc") == set()


def test_nothing_that_could_run_a_stranger_s_code_is_imported() -> None:
    assert importers_of("pickle") | importers_of("joblib") | importers_of("dill") == set()


@pytest.mark.parametrize("module", DEFENDERS)
def test_no_defending_file_names_the_ground_truth(module: str) -> None:
    path = ROOT / (module.replace(".", "/") + ".py")
    assert imports_of(path) & set(TRUTH) == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("pud/**/*.py")), ids=name_of)
def test_nothing_but_the_attacks_knows_an_attack_by_name(path: Path) -> None:
    """The default of the rehearsed attack is the one exception."""
    if path.parent.name == "attacks" and path.name != "poisoning.py":
        return
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    allowed = {"badnets"} if path.name == "poisoning.py" else set()
    assert texts & set(ATTACKS) <= allowed
    modules = {name_of(file) for file in ROOT.glob("pud/attacks/*.py") if name_of(file) not in NO_ATTACK}
    assert imports_of(path) & modules == set()


def floor_of(module: str) -> int:
    names = module.split(".")[1:3]
    for name in (".".join(names), names[0] if names else ""):
        for floor, rooms in enumerate(FLOORS):
            if name in rooms:
                return floor
    return -1  # the package itself


@pytest.mark.parametrize("path", sorted(ROOT.glob("pud/**/*.py")), ids=name_of)
def test_every_import_goes_down(path: Path) -> None:
    own = floor_of(name_of(path))
    assert own >= 0 or path == ROOT / "pud/__init__.py", f"{path} lies in no room of FLOORS"
    above = {name for name in imports_of(path) if name.startswith("pud.") and floor_of(name) > own}
    assert above == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("pud/**/*.py")), ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_plan_of_the_house_names_every_room() -> None:
    plan = (ROOT / "docs/architecture.md").read_text()
    rooms = [path.parent.relative_to(ROOT) for path in ROOT.glob("pud/**/__init__.py") if path.parent.name != "pud"]
    assert [room.as_posix() for room in rooms if f"`{room.as_posix()}/`" not in plan] == []
