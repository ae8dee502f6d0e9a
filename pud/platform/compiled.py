"""A compiled pipeline and the parameters given to it: read, and checked before anything is spent."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pud.base.config import MAXIMUM_WHOLE
from pud.base.errors import InputError

PACKAGE = Path(__file__).parents[1]
# what a wheel holds of the tree beside pud; an editable install has the tree itself
BUNDLED = bundled if (bundled := PACKAGE / "bundled").is_dir() else PACKAGE.parent
PIPELINE = Path("pipelines/pud.yaml")

# parameterType of a compiled pipeline: (what a person should give, the test of a value)
Check = Callable[[Any], bool]
TYPES: dict[str, tuple[str, Check]] = {
    "STRING": ("a string", lambda value: isinstance(value, str)),
    "BOOLEAN": ("true or false", lambda value: isinstance(value, bool)),
    "NUMBER_INTEGER": (
        "a whole number from 0 to 2^53",
        lambda value: _is_number(value) and value == int(value) and 0 <= value <= MAXIMUM_WHOLE,
    ),
    "NUMBER_DOUBLE": ("a number", lambda value: _is_number(value)),
    "LIST": ("a JSON list", lambda value: isinstance(value, list)),
    "STRUCT": ("a JSON object", lambda value: isinstance(value, dict)),
}
NUMBERS = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}  # kfp.local takes no 0 for 0.0


def default_pipeline() -> Path:
    """Return the compiled rehearsal of this folder, else the one that came with the package."""
    return pipeline_called(PIPELINE.stem)


def pipeline_called(name: str) -> Path:
    """Return the compiled pipeline of this name, of this folder, else the one that came with the package.

    Raises:
        InputError: there is none.
    """
    own = PIPELINE.with_name(f"{name}.yaml")
    for path in (own, BUNDLED / own):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in (BUNDLED / PIPELINE).parent.glob("*.yaml")))
    raise InputError(f"there is no pipeline {name!r}: choose one of {known}, or give the path of a compiled one")


def root_of(pipeline: Path) -> Path:
    """Return the folder that holds the ``components`` of a compiled pipeline: its own tree's, else the package's."""
    tree = pipeline.resolve().parent.parent
    return tree if (tree / "components" / "guard.py").is_file() else BUNDLED


def read_parameters(pairs: Sequence[str], file: Path | None) -> dict[str, Any]:
    """Gather parameters from a JSON file and from ``NAME=VALUE`` pairs, which win; a pair's value stays text.

    ``checked`` reads text as the type that the pipeline declares, so ``accelerator_count=0`` stays a string and
    ``seed=0`` becomes a number.

    Raises:
        InputError: a pair without ``=``, or a file that is no JSON object.
    """
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = json.loads(file.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"parameter file {file} cannot be read as JSON ({error}): give a JSON object") from None
        if not isinstance(given, dict):
            raise InputError(f"parameter file {file} holds no JSON object: give {{name: value}}")
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InputError(f"parameter {pair!r} has no name or no value: give NAME=VALUE")
        given[name] = value
    return given


def read_pipeline(path: Path) -> dict[str, Any]:
    """Return the pipeline spec of a compiled pipeline.

    Raises:
        InputError: the file is missing, or Kubeflow's own model does not accept it.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run make compile, or give --pipeline")
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(f"{path} is not a YAML file: give the pipeline that make compile writes")
    import yaml
    from google.protobuf.json_format import ParseDict, ParseError
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

    try:
        spec: dict[str, Any] = next(yaml.safe_load_all(path.read_text("utf-8-sig")), {})
        ParseDict(spec, PipelineSpec())
        spec["root"]["dag"], spec["components"], spec["pipelineInfo"]["name"]
    except (yaml.YAMLError, ParseError, TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not a compiled pipeline ({reason}): give what make compile writes") from None
    return spec


def checked(parameters: Mapping[str, Any], spec: Mapping[str, Any], pipeline: Path) -> dict[str, Any]:
    """Return the parameters as the pipeline's types.

    Raises:
        InputError: a name that the pipeline does not know, a value of another type, a parameter that is missing, or
            settings that a step would refuse.
    """
    from pud.steps.settings import check_settings  # torch takes two seconds

    known = parameters_of(spec)
    if unknown := sorted(parameters.keys() - known.keys()):
        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"{pipeline} has no parameter {', '.join(unknown)}: choose from {names}")
    needed = {name for name, given in known.items() if not given.get("isOptional") and "defaultValue" not in given}
    if missing := sorted(needed - parameters.keys()):
        raise InputError(f"{pipeline} needs {', '.join(missing)}: give each as NAME=VALUE")
    read = {name: _as_declared(name, value, known[name]["parameterType"]) for name, value in parameters.items()}
    check_settings(read)
    return read


def parameters_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pipeline says of its parameters, by name."""
    return dict(spec["root"].get("inputDefinitions", {}).get("parameters", {}))


def steps_of(spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the tasks that run a container, in whatever nested pipeline they are."""
    components = spec["components"]
    return {name for name, task in tasks_of(spec) if "executorLabel" in components[task["componentRef"]["name"]]}


def tasks_of(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the specification of each task, of the pipeline and of those nested in it."""
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _as_declared(name: str, value: Any, kind: str) -> Any:
    wanted, fits = TYPES.get(kind, ("JSON", lambda _: True))
    read = value
    try:
        if isinstance(value, str) and kind != "STRING":
            read = json.loads(value)
        json.dumps(read, allow_nan=False)
        right = fits(read)
    except (ValueError, TypeError, OverflowError, RecursionError):
        right = False
    if not right:
        raise InputError(f"parameter {name} is {repr(value)[:200]}: give {wanted}")
    return NUMBERS[kind](read) if kind in NUMBERS else read
