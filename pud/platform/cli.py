"""The command ``pud``: each step alone, and the whole pipeline on this machine."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import click

from pud import defences, detectors
from pud.adversarial.robustness import EvaluateConfig
from pud.artifacts.verdict import EXIT_CODES
from pud.attacks.poisoning import PoisonConfig
from pud.base.config import words_of
from pud.base.errors import InputError
from pud.base.files import is_full, read_json, room
from pud.defences.pud import DEFAULT_PRESET, PRESETS, PurifyConfig
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.platform.commands_clean import clean_command
from pud.platform.commands_examine import defend_command, scan_command
from pud.platform.commands_history import compare_command, runs_command
from pud.platform.commands_import import import_command
from pud.platform.options import (
    FOLDER,
    architecture_option,
    cluster,
    data_options,
    device_option,
    finish,
    folder,
    json_option,
    metrics_option,
    parameter_option,
    pipeline_option,
    seed_option,
    settings,
    tracking_option,
)
from pud.reporting.report import INFECTED, PURIFIED, ROUND, load_report, table

SECTIONS = {
    "A model and pictures of your own": ("import", "scan", "defend"),
    "A rehearsal on this machine, in this order": ("fetch", "run", "report"),
    "Its steps alone, in this order": ("poison", "train", "probe", "detect", "purify", "evaluate"),
    "On a cluster": ("doctor", "bootstrap", "submit"),
    "Afterwards": ("runs", "compare", "clean", "verify", "sync", "gc"),
}


class Commands(click.Group):
    """Commands listed in the order of use."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(90)) for name in names])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def app() -> None:
    """Progressive Unified Defense: purify an infected image classifier and its poisoned training data.

    With a model and pictures of your own: pud import, then pud scan. To see it work on a planted backdoor: pud fetch,
    then pud run (some ten minutes).
    Every command has --help.
    """


@app.command("fetch")
@click.argument("name", default="fashion-mnist")
@click.option("--out", type=FOLDER, default=Path("data"), show_default=True, help="Folder to write.")
def fetch_command(name: str, out: Path) -> None:
    """Get a public data set, checked and always the same bytes."""
    from pud.platform.fetch import fetch

    fetch(name, out)


@app.command("poison")
@data_options[0]
@data_options[1]
@folder("--dataset", "Poisoned data set to write.")
@folder("--ground-truth", "Ground truth to write.")
@seed_option
@device_option
@metrics_option
@settings(PoisonConfig)
@json_option("--attack-settings", "The attack's own settings, by name, as JSON: see pud/attacks.")
def poison_command(metrics: Path | None, attack_settings: dict[str, Any], **options: Any) -> None:
    """Plant a backdoor in a data set."""
    from pud.attacks import attack_config
    from pud.platform.local_run import local_data
    from pud.steps.poison import poison_step

    options["strength"] = attack_config(options["config"].attack, attack_settings)
    options["data_uri"] = local_data(options["data_uri"])
    finish(poison_step(**options), metrics)


@app.command("train")
@folder("--dataset", "Data set to train on.")
@folder("--model", "Model to write.")
@seed_option
@device_option
@metrics_option
@settings(TrainConfig)
def train_command(metrics: Path | None, **options: Any) -> None:
    """Train a model plainly: on a poisoned data set it becomes infected."""
    from pud.steps.train import train_step

    finish(train_step(**options), metrics)


@app.command("probe")
@folder("--model", "Model to probe.")
@architecture_option
@folder("--dataset", "Data set that it was trained on.")
@folder("--out", "Probe to write.", "probe_folder")
@seed_option
@device_option
@metrics_option
@settings(ProbeConfig)
def probe_command(metrics: Path | None, **options: Any) -> None:
    """Gather the evidence that detection needs from a model."""
    from pud.steps.probe import probe_step

    finish(probe_step(**options), metrics)


@app.command("detect")
@folder("--infected-probe", "Probe of the infected model.")
@folder("--probe", "Probe of the current model; in round 0 the same.")
@folder("--detection", "Detection to write.")
@click.option(
    "--exit-code", is_flag=True, help="Exit with 0 if none is found, 3 for a backdoor, 4 if it could not be judged."
)
@metrics_option
@click.option("--detector", default=detectors.DEFAULT, show_default=True, help="What decides: see pud/detectors.")
@settings(DetectConfig, of_any="detector")
def detect_command(
    metrics: Path | None, exit_code: bool, detector: str, settings: dict[str, Any], **options: Any
) -> None:
    """Find which training images are poisoned, and which class they lead to."""
    from pud.artifacts.detection import FORMAT
    from pud.steps.detect import detect_step

    found, config = detectors.detector_settings({"detector": detector, **settings})
    finish(detect_step(config=config, detector=found.name, **options), metrics)
    if exit_code:
        said = read_json(options["detection"] / "detection.json", FORMAT, verdict_code=str)
        sys.exit(EXIT_CODES[said["verdict_code"]])


@app.command("purify")
@folder("--model", "Infected model, or the state that the round before wrote.")
@architecture_option
@folder("--dataset", "Data set that it was trained on.")
@folder("--detection", "Detection to act on; without one the data count as clean (model repair).", required=False)
@folder("--out", "State (and model) to write.", "purified")
@seed_option
@device_option
@metrics_option
@click.option(
    "--defence", default=defences.DEFAULT, show_default=True, help="How the model is purified: see pud/defences."
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default=None,
    help=f"Other defaults of ours  [default: {DEFAULT_PRESET}].",
)
@settings(PurifyConfig, of_any="defence")
def purify_command(
    metrics: Path | None, defence: str, preset: str | None, settings: dict[str, Any], **options: Any
) -> None:
    """Run one round of purification, or repair the model with clean data."""
    from pud.steps.purify import purify_step

    chosen = {"defence": defence, **({"preset": preset} if preset else {}), **settings}
    found, config = defences.defence_settings(chosen)
    finish(purify_step(config=config, defence=found.name, **options), metrics)


@app.command("evaluate")
@click.option("--stage", type=click.Choice([INFECTED, ROUND, PURIFIED]), required=True, help="What the model is.")
@folder("--model", "Model to measure.")
@architecture_option
@folder("--dataset", "Data set, of which the test images are used.")
@folder("--ground-truth", "Ground truth; no other step may see it.")
@folder("--detection", "Detection to measure.", required=False)
@folder("--previous-report", "Report to extend.", required=False)
@folder("--report", "Report to write.")
@seed_option
@device_option
@metrics_option
@settings(EvaluateConfig)
def evaluate_command(metrics: Path | None, **options: Any) -> None:
    """Measure a model and a detection against the ground truth."""
    from pud.steps.evaluate import evaluate_step

    finish(evaluate_step(**options), metrics)


@app.command("run")
@data_options[0]
@click.option(
    "--data-digest", default=None, help="Digest it must have  [default: the md5 in data.dvc for its own data]."
)
@pipeline_option
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder for the runs' records.")
@click.option("--name", default=None, help="Name of the run; an unfinished run of this name is continued.")
@click.option("--attack", default=PoisonConfig.attack, show_default=True, help=words_of(PoisonConfig, "attack"))
@tracking_option
@click.option("--experiment", default="pud", show_default=True, help="MLflow experiment.")
@click.option("--no-tracking", is_flag=True, help="Record nothing in MLflow.")
@parameter_option
@seed_option
@device_option
def run_command(**options: Any) -> None:
    """Run the compiled pipeline on this machine through kfp.local."""
    from pud.platform.local_run import run

    run(**options)


@app.command("submit")
@cluster
@click.option("--experiment", default="pud", show_default=True, help="Kubeflow experiment.")
@click.option("--name", "run_name", default=None, help="Name of the run.")
@click.option("--wait", is_flag=True, help="Wait; exit code 1 if the run fails, is cancelled or is not done in time.")
@click.option("--timeout", "timeout_seconds", default=86_400.0, show_default=True, help="Seconds to wait.")
@click.option("--poll", "poll_seconds", default=15.0, show_default=True, help="Seconds between two looks.")
@click.option("--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option("--cache/--no-cache", default=True, show_default=True, help="Take what Kubeflow has of earlier runs.")
def submit_command(parameters: tuple[str, ...], file: Path | None, insecure: bool, **options: Any) -> None:
    """Submit the compiled pipeline to a cluster."""
    from pud.platform.cluster.submit import RunFailed, submit
    from pud.platform.compiled import read_parameters

    try:
        run = submit(parameters=read_parameters(parameters, file), verify_tls=not insecure, **options)
    except RunFailed as error:
        click.echo(f"pud: {error}", err=True)
        sys.exit(1)
    click.echo(run)


@app.command("doctor")
@cluster
@click.option("--offline", is_flag=True, help="Look at no cluster: list the images and packages to mirror.")
@click.option("--manifests", type=FOLDER, default=Path("manifests"), show_default=True, help="For --offline.")
@click.option("--lock", type=FOLDER, default=Path("image/cpu.lock"), show_default=True, help="For --offline.")
def doctor_command(
    pipeline: Path,
    parameters: tuple[str, ...],
    file: Path | None,
    offline: bool,
    manifests: Path,
    lock: Path,
    **options: Any,
) -> None:
    """Check everything that a run needs, one line each: exit code 1 if something is missing."""
    from pud.platform.cluster import doctor, requirements
    from pud.platform.compiled import read_parameters

    given = read_parameters(parameters, file)
    if offline:
        click.echo(requirements.offline(pipeline, given, manifests=manifests, constraints=lock))
        return
    checks = doctor.examine(pipeline=pipeline, parameters=given, **options)
    click.echo(doctor.render(checks))
    click.echo(requirements.estimate(pipeline, given))
    sys.exit(doctor.exit_code(checks))


@app.command("verify")
@folder("--model", "Model whose chain of digests is recomputed.")
@folder("--dataset", "Data set that it was trained on.", required=False)
@folder("--parent", "Model that its round began with.", required=False)
@folder("--infected", "First model of the chain.", required=False)
@folder("--detection", "Detection that its round acted on.", required=False)
def verify_command(**options: Any) -> None:
    """Check that a model was made from what it says: exit code 1 if a digest differs."""
    from pud.artifacts.provenance import verify

    links = verify(**options)
    click.echo("\n".join(map(str, links)))
    sys.exit(any(link.holds is False for link in links))


@app.command("sync")
@click.argument("folder", type=FOLDER, default=Path("runs/latest"))
@click.option(
    "--tracking-uri",
    default=None,
    help="Of MLflow  [default: the one the run lost, if it is MLFLOW_TRACKING_URI or ./mlflow.db].",
)
def sync_command(folder: Path, tracking_uri: str | None) -> None:
    """Send to MLflow what a run could not record while it was lost."""
    from pud.reporting.tracking import sync

    click.echo("\n".join(sync(folder, tracking_uri)))


@app.command("bootstrap")
def bootstrap_command() -> None:
    """Make the buckets in the object store, and the account of runs in MLflow, that the environment names.

    AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; with MLFLOW_ADMIN_USERNAME and MLFLOW_ADMIN_PASSWORD
    the account MLFLOW_TRACKING_USERNAME too. Safe to run again.
    """
    from pud.artifacts.storage import S3, bootstrap, bucket_names
    from pud.platform.cluster.bootstrap import ADMINISTRATOR, make_account

    click.echo("\n".join(bootstrap(S3.from_environment(), bucket_names())))
    if os.environ.keys() & set(ADMINISTRATOR):
        click.echo(make_account(os.environ))


@app.command("gc")
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs.")
@click.option("--data-cache", type=FOLDER, default=None, help="Look at this cache of data sets instead.")
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Cached results and data older than this may go.",
)
@click.option("--yes", is_flag=True, help="Remove what is listed; without it nothing is removed.")
def gc_command(runs: Path, data_cache: Path | None, days: float, yes: bool) -> None:
    """List what no run needs any more, and remove it with --yes."""
    from pud.platform.cleanup import find, find_data, remove

    waste = find_data(data_cache, days) if data_cache else find(runs, days)
    for one in waste:
        click.echo(f"{one.bytes / 1e6:10.1f} MB  {one.path}  ({one.reason})")
    total = f"{sum(one.bytes for one in waste) / 1e6:.1f} MB in {len(waste)} places"
    if yes:
        remove(waste)
    click.echo(f"removed {total}" if yes else f"{total} can go: --yes removes them")


@app.command("report")
@click.argument("folder", type=FOLDER, default=Path("runs/latest"))
def report_command(folder: Path) -> None:
    """Print the table of a report."""
    click.echo(table(load_report(folder)))


for command in (import_command, scan_command, defend_command, runs_command, compare_command, clean_command):
    app.add_command(command)


def main() -> None:
    """Run the command; what the user got wrong is one sentence, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of classes, on a terminal that has not their letters
    try:
        app()
    except InputError as error:
        click.echo(f"pud: error: {error}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "pud":
            raise
        said = (
            f"this needs the Python package {error.name}, which is not installed: install PUD with all that it requires"
        )
        click.echo(f"pud: error: {said} (pip install, without --no-deps)", err=True)
        sys.exit(2)
    except Exception as error:
        name = error.filename if isinstance(error, OSError) else None
        if not name and not is_full(error):
            raise
        free = f" ({room(Path(name or '.').absolute())} are free there)" if is_full(error) else ""
        reason = f"{name}: {error.strerror}" if name else f"a disk has no room left: {error}"  # type: ignore[attr-defined]
        click.echo(f"pud: error: {reason}{free}: give another path, or make room or rights", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
