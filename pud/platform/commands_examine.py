"""The commands ``pud scan`` and ``pud defend``: a model and data from outside."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from pud.base.config import words_of
from pud.base.errors import InputError
from pud.data.images import OTHER
from pud.exchange.models import ModelConfig
from pud.platform.options import (
    FOLDER,
    device_option,
    parameter_option,
    seed_option,
    together,
    tracking_option,
)

REFUSED = 2  # as of bad input


def _names(context: click.Context, parameter: click.Parameter, given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",")]


def _numbers(context: click.Context, parameter: click.Parameter, given: str | None) -> list[float] | None:
    try:
        return None if given is None else [float(number) for number in given.split(",")]
    except ValueError:
        raise InputError(f"{parameter.opts[0]} is {given!r}: give numbers, such as 0.49,0.48,0.45") from None


# which model and data, and where the results go
examined = together(
    click.option("--model", default=None, help="Its weights: a file, a folder with model.json, s3://BUCKET/KEY."),
    click.option("--data", required=True, help="Its training data, or others: what pud import wrote, or dvc:..."),
    click.option("--out", type=FOLDER, required=True, help="Folder for the results; a stopped run goes on."),
    click.option("--architecture", default=None, help=words_of(ModelConfig, "architecture")),
    click.option("--classes", callback=_names, metavar="A,B,...", help=words_of(ModelConfig, "classes")),
    click.option("--mean", callback=_numbers, metavar="R,G,B", help=words_of(ModelConfig, "mean")),
    click.option("--std", callback=_numbers, metavar="R,G,B", help=words_of(ModelConfig, "std")),
    click.option("--bgr", is_flag=True, default=None, help=words_of(ModelConfig, "bgr")),
    click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever the verdict is."),
    parameter_option,
    seed_option,
    device_option,
)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of a command's options what they say of the model."""
    given = {setting.name: options.pop(setting.name) for setting in fields(ModelConfig)}
    return {name: value for name, value in given.items() if value not in (None, "")}


def exit_code(verdict: dict[str, Any], exit_zero: bool) -> int:
    """Return the exit code of a verdict; a repaired model that misses a gate is an error where nothing else is."""
    code = 0 if exit_zero else int(verdict["exit_code"])
    return code or (REFUSED if verdict["refused"] else 0)


@click.command("scan")
@examined
@click.option("--other", is_flag=True, help="The data are labelled, but not those that the model was trained on.")
def scan_command(exit_zero: bool, other: bool, **options: Any) -> None:
    """Is there a backdoor? Minutes; nothing is changed. Exit code 0: none found, 3: backdoor, 4: cannot be judged.

    The model's training data tell it. Of other or unlabelled pictures (pud import --unlabelled) "none found" is never
    said: a trigger need not be among them.
    """
    from pud.platform.examine import SCAN, examine

    given = {"pictures": OTHER} if other else {}
    verdict = examine(SCAN, model_settings=_settings(options), given=given, **options)
    sys.exit(exit_code(verdict, exit_zero))


@click.command("defend")
@examined
@click.option("--clean", is_flag=True, help="The data are few and known to be clean: repair the model with them.")
@click.option("--format", "formats", multiple=True, help="Another form of the repaired model: pt2, onnx.")
@click.option("--other", is_flag=True, hidden=True, help="Refused: see pud scan.")
@tracking_option
@click.option("--experiment", default="pud", show_default=True, help="MLflow experiment.")
@click.option("--no-tracking", is_flag=True, help="Record nothing in MLflow.")
def defend_command(
    clean: bool,
    exit_zero: bool,
    formats: tuple[str, ...],
    other: bool,
    tracking_uri: str,
    experiment: str,
    no_tracking: bool,
    **options: Any,
) -> None:
    """Scan, repair the model and clean the data. Exit codes as of scan, for the model as it was given."""
    if other:
        raise InputError("a model is repaired with the pictures it was trained on: give these, or use pud scan --other")
    from pud.platform.examine import CLEAN, DEFEND, examine
    from pud.platform.local_run import tracking_of

    out: Path = options["out"].resolve()
    tracking = None if no_tracking else tracking_of(tracking_uri, experiment, out)
    given = {**(CLEAN if clean else {}), "formats": list(formats)}
    verdict = examine(DEFEND, model_settings=_settings(options), given=given, tracking=tracking, **options)
    sys.exit(exit_code(verdict, exit_zero))
