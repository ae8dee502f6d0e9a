"""A model and data from outside, examined on this machine: ``pud scan`` and ``pud defend``."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pud.artifacts.verdict import FILE, load_verdict
from pud.base.errors import InputError
from pud.base.files import finished_folder
from pud.data.readers.npy import refuse_unlabelled
from pud.platform.compiled import checked, pipeline_called, read_parameters, read_pipeline, root_of
from pud.platform.local_run import (
    PAGE,
    as_parameter,
    dvc_digest,
    execute,
    git_commit,
    local_data,
    newest,
    own_command,
    source_digest,
    take_findings,
    tell_where_recorded,
)
from pud.reporting.report import load_report, table

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

SCAN, DEFEND = "scan", "defend"
PRODUCTS = {"repaired": "model.json", "cleaned": "train/dataset.json"}  # of a defence, each with a file in it
# what is known to be clean is not looked at, and the model is repaired with it
CLEAN = {"detect_settings": {"detector": "none"}, "purify_settings": {"preset": "aft"}}


def examine(
    pipeline: str,
    *,
    model: str | None,
    data: str,
    out: Path,
    model_settings: Mapping[str, Any],
    seed: int,
    device: str,
    parameters: tuple[str, ...],
    tracking: "Tracking | None" = None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Run the pipeline ``scan`` or ``defend`` into the folder ``out``, and return the verdict.

    Its ``refused`` says whether the repaired model misses a gate.

    What was finished before in this folder with the same inputs is not done again.

    Args:
        model: None trains one on the data first.
        given: more parameters of the pipeline.

    Raises:
        InputError: bad input; nothing finished is lost.
    """
    compiled = pipeline_called(pipeline)
    spec, root, data_uri = read_pipeline(compiled), root_of(compiled), local_data(data, ("train",))
    named = model_settings.get("architecture")
    arguments: dict[str, Any] = {
        "model_uri": "" if model is None else _local(model),
        "model_settings": dict(model_settings),
        **({"train_settings": {"architecture": named}} if named and model is None else {}),
        "data_uri": data_uri,
        "data_digest": dvc_digest(root, data_uri),
        "seed": seed,
        "device": device,
        "image": f"pud:{source_digest(root)}",
        "command": own_command(),
        **given,
    }
    if pipeline == DEFEND:
        refuse_unlabelled(Path(data_uri.partition(":")[2]) / "train")
        arguments |= {"tracking": as_parameter(tracking), "git_commit": git_commit(root)}
    arguments = checked({**arguments, **read_parameters(parameters, None)}, spec, compiled)
    folder = out.resolve()
    _refuse_foreign(folder)
    started, failed = time.time(), None
    try:
        execute(compiled, folder, arguments, tracking, cache=folder / ".cache")
    except InputError as error:  # where a gate is not met, all that comes before it is done
        failed = error
    if failed and not any(made.stat().st_mtime > started for made in (folder / "kfp").rglob("gate.json")):
        raise failed
    verdict = _gathered(folder, tracking)
    if failed:
        click.echo(f"pud: {failed}", err=True)
    return {**verdict, "refused": failed is not None}


def _local(model: str) -> str:
    """Return a model's URI with an absolute path if it is on this machine; tasks run in other folders."""
    if model.startswith(("s3://", "dvc:")):
        return model
    path = Path(model.removeprefix("file:"))
    if not path.exists():
        raise InputError(f"there is no model at {model}: give a file of weights, or a folder with model.json")
    return f"file:{path.resolve()}"


def _refuse_foreign(folder: Path) -> None:
    """Raise InputError for a folder that is no earlier run's: what is in it would be mixed up with the run's files."""
    if folder.exists() and not (folder / "kfp.log").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and no earlier run of pud is in it: give a new folder as --out")


def _gathered(folder: Path, tracking: "Tracking | None") -> dict[str, Any]:
    """Put what people look for into the run's folder, print it, and return the verdict."""
    take_findings(folder)
    for name, mark in PRODUCTS.items():
        if made := newest(folder, name):
            with finished_folder(folder / name, mark) as partial:
                shutil.copytree(made, partial, dirs_exist_ok=True, copy_function=shutil.copyfile)
    verdict = load_verdict(folder)
    if report := newest(folder, "report.json"):
        shutil.copyfile(report, folder / "report.json")
        click.echo("\n" + table(load_report(folder)))
    click.echo(f"\n{verdict['verdict']} (confidence {verdict['confidence']:.2f})")
    click.echo(f"verdict: {folder / FILE}   page: {folder / PAGE}")
    for name in PRODUCTS:
        if (folder / name).is_dir():
            click.echo(f"{name}: {folder / name}")
    if report:
        tell_where_recorded(folder, report.parent, tracking)
    return verdict
