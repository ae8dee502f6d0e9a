"""The options that commands share, and how a command's settings become options."""

import json
import typing
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from pud.base.config import as_parameters, from_mapping, words_of
from pud.base.device import check_seed
from pud.base.errors import InputError
from pud.platform.compiled import PIPELINE, default_pipeline, pipeline_called

Command = Callable[..., Any]
FOLDER = click.Path(path_type=Path)


def settings(config: type, *, of_any: str = "", flags: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Add an option for every field of a config; the command receives the built config as ``config``.

    Args:
        of_any: what a step has several of, such as "defence", each with settings of its own; the options are those of
            ours. Then ``--settings`` takes any by name, and the command receives all that were given as ``settings``.
        flags: those that are true where they are named, and take no value.
    """
    defaults = as_parameters(config())
    lists = {name for name, kind in typing.get_type_hints(config).items() if typing.get_origin(kind) is tuple}

    def decorate(function: Command) -> Command:
        def command(**options: Any) -> Any:
            given = {name: value for name in defaults if (value := options.pop(name)) is not None}
            given = {name: _list(name, value) if name in lists else value for name, value in given.items()}
            if of_any:
                return function(settings={**options.pop("settings"), **given}, **options)
            return function(config=from_mapping(config, given), **options)

        command.__doc__ = function.__doc__
        command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        if of_any:
            command = json_option("--settings", f"The same, and those of any other {of_any}, by name as JSON.")(command)
        for name, default in reversed(defaults.items()):
            shown = json.dumps(default) if name in lists else default
            flag = name in flags
            text = words_of(config, name) + ("" if flag else f"  [default: {shown}]")
            option = click.option("--" + name.replace("_", "-"), name, default=None, is_flag=flag, help=text)
            command = option(command)
        return command

    return decorate


def _list(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"--{name.replace('_', '-')} is {text!r}: give a list such as [1, 2]") from error


def folder(flag: str, text: str, name: str | None = None, *, required: bool = True) -> Callable[[Command], Command]:
    """Add an option that takes a folder."""
    return click.option(flag, name or flag[2:].replace("-", "_"), type=FOLDER, required=required, help=text)


def json_option(flag: str, text: str) -> Callable[[Command], Command]:
    """Add an option that takes settings by name, as a pipeline's parameter does; the command receives a mapping."""

    def read(context: click.Context, parameter: click.Parameter, given: str) -> dict[str, Any]:
        with suppress(ValueError, RecursionError):
            if isinstance(found := json.loads(given), dict):
                return found
        raise InputError(f"{flag} is {given[:200]!r}: give settings by name, such as '{{\"size\": 5}}'")

    return click.option(flag, default="{}", show_default=True, callback=read, help=text)


def checked_seed(context: click.Context, parameter: click.Parameter, seed: int) -> int:
    """Refuse a seed that no step takes."""
    check_seed(seed)
    return seed


seed_option = click.option(
    "--seed", default=0, show_default=True, callback=checked_seed, help="Seed of every random choice, 0 to 2^53."
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
architecture_option = click.option(
    "--architecture",
    default=None,
    metavar="PACKAGE.MODULE:FACTORY",
    help="Your own code that model.json names as the network; it is imported only where it is named here too.",
)
metrics_option = click.option("--metrics", type=FOLDER, default=None, help="JSON file for the step's metrics.")
tracking_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    default="sqlite:///mlflow.db",
    show_default=True,
    show_envvar=True,
    help="MLflow server; wins over the environment.",
)
pipeline_option = click.option(
    "--pipeline",
    type=FOLDER,
    default=default_pipeline,
    show_default=f"{PIPELINE}, else the package's own",
    callback=lambda context, parameter, path: path if path.suffix else pipeline_called(str(path)),
    help="A compiled pipeline, or the name of one of ours: pud, scan, defend.",
)
parameter_option = click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="Any pipeline parameter."
)
data_options = (
    click.option("--data-uri", default="data", show_default=True, help="The clean data set: a folder, or dvc:..."),
    click.option("--data-digest", default="", help="Digest it must have, the md5 in data.dvc; empty: any."),
)


def finish(values: dict[str, float], metrics: Path | None) -> None:
    """Print a step's metrics, and write them where asked."""
    text = json.dumps(values, sort_keys=True)
    if metrics:
        metrics.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_text(text + "\n", "utf-8")
    click.echo(text)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what adds all of these options to a command, listed in this order."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# where Kubeflow is, who asks, and with which pipeline and parameters
cluster = together(
    click.option("--endpoint", envvar="KFP_ENDPOINT", default="", show_envvar=True, help="URL of Kubeflow."),
    click.option("--namespace", envvar="KFP_NAMESPACE", default="", show_envvar=True, help="Of the runs."),
    click.option("--token", envvar="KFP_EXISTING_TOKEN", default="", help="Better by KFP_EXISTING_TOKEN."),
    click.option("--ca-bundle", type=FOLDER, default=None, help="PEM file of the authorities to trust."),
    click.option("--service-account", default="", help="Of the run's pods  [default: Kubeflow's own]."),
    pipeline_option,
    parameter_option,
    click.option("--parameters", "file", type=FOLDER, default=None, help="JSON file of pipeline parameters."),
)
