"""MLflow: one parent run for a pipeline run, a child for each round, found by tags. registry.py alone needs it too."""

import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pud.artifacts.storage import MOUNTED_CA
from pud.artifacts.verdict import load_verdict

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the URL would have its password
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_name, _value)
if MOUNTED_CA.is_file() and "MLFLOW_TRACKING_INSECURE_TLS" not in os.environ:
    os.environ.setdefault("MLFLOW_TRACKING_SERVER_CERT_PATH", str(MOUNTED_CA))

from mlflow import MlflowClient
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from pud.artifacts.detection import load_detection
from pud.base.errors import InputError, without_userinfo
from pud.base.files import MAXIMUM_JSON_BYTES, within
from pud.base.progress import say
from pud.reporting import experiment
from pud.reporting.plots import plot_drift, plot_rounds, plot_suspicion
from pud.reporting.report import INFECTED, NOTE_CHARACTERS, PURIFIED, ROUND, UNTRACKED, load_report, note_of
from pud.reporting.report import scalars_of as stage_scalars

RUN_KEY, ROUND_TAG, PARENT_TAG = "pud.run_key", "pud.round", "mlflow.parentRunId"
PLATFORM_RUN = "MLFLOW_RUN_ID"  # set by Kubeflow's MLflow plugin
FOREIGN = ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "INVALID_PARAMETER_VALUE")  # the last: deleted or no id
LOST = (MlflowException, OSError)
SQLITE = "sqlite:///"
SOURCE, COMMIT = {"mlflow.source.name": "pud", "mlflow.source.type": "JOB"}, "mlflow.source.git.commit"
NOTE = "mlflow.note.content"
DIGEST_CHARACTERS = 36  # of a data set's, which MLflow takes; the report has the whole


@dataclass(frozen=True)
class Tracking:
    """Where a pipeline run is recorded.

    run_key: the key by which its MLflow run is found again, no other run's; name: what people see, the key if empty.
    """

    uri: str = field(default=f"{SQLITE}mlflow.db", repr=False)  # may hold a password
    experiment: str = "pud"
    run_key: str = ""
    name: str = ""


def _client(tracking: Tracking) -> tuple[MlflowClient, str, Run | None]:
    """Return the client, the experiment's id, and the run that the platform opened for us, if it did."""
    client = MlflowClient(tracking_uri=tracking.uri)
    if run := platform_run(client):
        return client, run.info.experiment_id, run
    return client, _experiment(client, tracking.experiment), None


def _experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, made where there is none; another run may do so at the same time.

    One of no kind and without our view gets them, if this account may write it: no run fails for how a page looks.
    """
    tags = experiment.experiment_tags()
    if found := client.get_experiment_by_name(name):
        for key in tags.keys() - found.tags.keys():
            with suppress(MlflowException):
                client.set_experiment_tag(found.experiment_id, key, tags[key])
        return found.experiment_id
    try:
        return client.create_experiment(name, tags=dict[str, Any](tags))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return _experiment(client, name)


def platform_run(client: MlflowClient) -> Run | None:
    """Return the run that Kubeflow's MLflow plugin opened for the pipeline run; None if there is none to write to.

    The plugin opens a run for the pipeline run and one below it for each task, whose id it gives to the task. It may do
    so on another server, or as somebody else: then the pipeline run is recorded as if there were no plugin.
    """
    given = os.environ.get(PLATFORM_RUN)
    if not given:
        return None
    try:
        whole = client.get_run(given).data.tags.get(PARENT_TAG, given)
        client.set_tag(whole, ROUND_TAG, "all")
        return client.get_run(whole)
    except MlflowException as error:
        if error.error_code not in FOREIGN:
            raise
        say(f"MLflow: {PLATFORM_RUN}={given} is no run that can be written here ({error.error_code}): a run of our own")
        return None


def check(tracking: Tracking) -> None:
    """Raise InputError unless the tracking server answers."""
    try:
        _client(tracking)
    except Exception as error:  # sqlalchemy, requests and mlflow each have their own
        raise InputError(
            f"MLflow at {without_userinfo(tracking.uri)} cannot be reached ({_reason(error)}): start it, "
            "give another --tracking-uri, or run with --no-tracking"
        ) from None  # its text may hold a password


def page_of(tracking: Tracking) -> str:
    """Return where below a server's address MLflow's UI shows the runs; empty if nothing is recorded there."""
    found = MlflowClient(tracking_uri=tracking.uri).get_experiment_by_name(tracking.experiment)
    return experiment.page_of(found.experiment_id, found.tags) if found else ""


def _reason(error: Exception) -> str:
    """Return the beginning of an error's text, without a password."""
    return "".join(without_userinfo(error).strip().splitlines()[:1])[:200]


def _condition(tags: dict[str, str]) -> str:
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _safe(run_key: str) -> str:
    """Return a key as the value of a tag: MLflow's filters know no way to write an apostrophe."""
    return quote(run_key, safe="/:@+,=() ")


def _find_or_create(client: MlflowClient, experiment_id: str, name: str, tags: dict[str, str]) -> Run:
    """Return the one run with these tags: a retried task finds the run that its first try made."""
    order = ["attributes.start_time ASC"]
    found = client.search_runs([experiment_id], _condition(tags), max_results=1, order_by=order)
    return found[0] if found else client.create_run(experiment_id, tags=tags, run_name=name)


def parent_run(client: MlflowClient, experiment_id: str, tracking: Tracking, platform: Run | None = None) -> Run:
    """Return the run of the whole pipeline run, reopened if it had ended; the platform alone ends its own."""
    tags = {RUN_KEY: _safe(tracking.run_key), ROUND_TAG: "all"}
    if platform:
        client.log_batch(platform.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        return platform
    run = _find_or_create(client, experiment_id, tracking.name or tracking.run_key, tags)
    if run.info.status != "RUNNING":
        client.update_run(run.info.run_id, "RUNNING")
    return run


def scalars_of(result: dict[str, Any]) -> dict[str, float]:
    """Return a stage's metrics under the names that MLflow shows."""
    values = stage_scalars(result)
    values |= {f"robust_accuracy_{record['attack']}".lower(): record["value"] for record in result["robust_accuracy"]}
    found, rates = result.get("detection", {}), ("true_positive_rate", "false_positive_rate", "auroc")
    for key in (*rates, "calibration_error", "confidence", "accused_images"):
        if found.get(key) is not None:
            values[f"detection_{key}"] = found[key]
    values |= {f"drift_{key}": value for key, value in result.get("drift", {}).items() if key != "n"}
    return values | ({"seconds": round(result["seconds"], 2)} if "seconds" in result else {})


def log_stage(
    tracking: Tracking,
    report: dict[str, Any],
    stage: str,
    *,
    step: int,
    model: Path | None,
    detection: Path | None,
    parameters: dict[str, Any],
) -> None:
    """Record one evaluated stage: metrics with the round as step on the parent, a child run for each round.

    The last stage adds parameters, tables, plots and the purified model. The parent's description is the report so far.
    """
    client, experiment_id, platform = _client(tracking)
    parent = parent_run(client, experiment_id, tracking, platform).info.run_id
    result = report["rounds"][step - 1] if stage == ROUND else report[stage]
    now = _milliseconds()
    metrics = [Metric(key, float(value), now, step) for key, value in scalars_of(result).items()]
    tags = {NOTE: note_of(report), **({} if platform else SOURCE)}
    tags |= {COMMIT: report["git_commit"]} if report["git_commit"] else {}
    client.log_batch(parent, metrics=metrics, tags=[RunTag(key, value) for key, value in tags.items()])
    known = client.get_run(parent).data.params
    values = {name: str(value) for name, value in _flat(parameters).items() if name not in known}
    client.log_batch(parent, params=[Param(name, value) for name, value in values.items()])
    if stage == INFECTED:
        client.log_batch(parent, tags=[RunTag("pud.git_commit", report["git_commit"] or "unknown")])
        about = report["dataset"]
        data = DatasetEntity(about["name"], about["digest"][:DIGEST_CHARACTERS], "local", about["uri"])
        client.log_inputs(parent, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    if stage == ROUND:
        tags = {RUN_KEY: _safe(tracking.run_key), ROUND_TAG: str(step), PARENT_TAG: parent}
        child = _find_or_create(client, experiment_id, f"round {step}", tags).info.run_id
        client.log_batch(child, metrics=metrics)
        if detection:
            client.log_artifacts(child, str(detection), "detection")
        client.set_terminated(child, "FINISHED")
    if stage == PURIFIED:
        with tempfile.TemporaryDirectory() as scratch:
            plot_rounds(report, Path(scratch) / "rounds.png")
            if "drift" in result:
                plot_drift(report, Path(scratch) / "drift.png")
            if detection:
                plot_suspicion(load_detection(detection)[0], Path(scratch) / "suspicion.png")
            client.log_artifacts(parent, scratch, "plots")
        if detection:
            client.log_artifacts(parent, str(detection), "detection")
        if model:
            client.log_artifacts(parent, str(model), "model")
        client.log_dict(parent, report, "report.json")


@contextmanager
def unless_lost(tracking: Tracking, otherwise: str) -> Iterator[None]:
    """Let a run go on whose MLflow is lost in the block, and say so; otherwise: what is then left undone."""
    try:
        yield
    except LOST as error:
        say(f"MLflow at {without_userinfo(tracking.uri)} is lost: {otherwise} ({without_userinfo(error)[:200]})")


def log_findings(tracking: Tracking, findings: Path) -> None:
    """Record what was concluded, the page above all, with the run of the whole pipeline run."""
    client, experiment_id, platform = _client(tracking)
    parent = parent_run(client, experiment_id, tracking, platform).info.run_id
    said = load_verdict(findings)
    about = {key: str(said[key]) for key in ("kind", "verdict_code", "accused_images")}
    about["target_labels"] = ", ".join(map(str, said["target_labels"])) or "none"
    client.log_batch(parent, tags=[RunTag(f"pud.{key}", value[:NOTE_CHARACTERS]) for key, value in about.items()])
    client.log_artifacts(parent, str(findings), "findings")


def sync(folder: Path, uri: str | None = None) -> list[str]:
    """Record what a run could not when MLflow was lost, from its ``report.json`` and ``untracked.json``.

    Safe to run again. Artifacts that are no longer where the run left them, or do not lie beside its folder, are passed
    over. Returns a sentence for each stage; ``untracked.json`` is removed when all are recorded. The folder may be a
    stranger's: it alone decides neither who gets this user's password nor which files are sent.

    Args:
        uri: where MLflow is; None for where the run looked for it, if that is the server configured here.

    Raises:
        InputError: the run looked elsewhere, a file that would be sent is a link, MLflow cannot be reached, or is lost
            again; what is recorded by then stays.
    """
    report, path = load_report(folder), folder / UNTRACKED
    if not path.is_file():
        return ["nothing is missing in MLflow"]
    lost, said, near = _lost(path), list[str](), folder.resolve().parent
    places = [uri or _configured(one["uri"], path) for one in lost]
    found = [{key: _sendable(one[key], near) for key in ("model", "detection")} for one in lost]
    for one, place, files in zip(lost, places, found, strict=True):
        tracking = Tracking(place, one["experiment"], one["run_key"], one["name"])
        check(tracking)
        try:
            log_stage(tracking, report, one["stage"], step=one["step"], parameters=one["parameters"], **files)
            if PURIFIED in report:  # the run has come to its end
                close(tracking, "FINISHED")
        except LOST as error:
            where, reason = without_userinfo(tracking.uri), _reason(error)
            raise InputError(
                f"MLflow at {where} was lost again at stage {one['stage']} ({reason}): sync once it is back"
            ) from None
        gone = [key for key, file in files.items() if one[key] and not file]
        said.append(f"{one['stage']} {one['step']} recorded" + (f", without its {' and '.join(gone)}" if gone else ""))
    path.unlink()
    return said


def _configured(address: str, path: Path) -> str:
    """Return the URI, maybe with a password, by which this user reaches MLflow at the address that a file names.

    Raises:
        InputError: it is neither MLFLOW_TRACKING_URI nor the default: the environment's password is not for it.
    """
    database = Path(Tracking.uri.removeprefix(SQLITE)).resolve()
    known = {
        without_userinfo(uri): uri for uri in (f"{SQLITE}{database}", os.environ.get("MLFLOW_TRACKING_URI")) if uri
    }
    if found := known.get(shown := without_userinfo(address)):
        return found
    raise InputError(
        f"{path} names MLflow at {shown[:200]!r}, which is not the one configured here: if that is where your records "
        "belong, name it with --tracking-uri"
    )


def _sendable(given: str | None, near: Path) -> Path | None:
    """Return an artifact's folder, None if it is gone or does not lie below ``near``.

    Raises:
        InputError: something in it is neither a file nor a folder: what a link leads to would be sent.
    """
    folder = Path(given or "").resolve()
    if not given or near not in folder.parents or not folder.is_dir():
        return None
    within_it = (Path(place) / name for place, folders, files in os.walk(folder) for name in (*folders, *files))
    for path in (Path(given), *within_it):
        if not (stat.S_ISREG(mode := path.lstat().st_mode) or stat.S_ISDIR(mode)):
            raise InputError(
                f"{path} is a link or no file, and nothing of it is sent: put the file itself in its place"
            )
    return folder


def _lost(path: Path) -> list[dict[str, Any]]:
    """Read what a run left in ``untracked.json``."""
    kinds: dict[str, Any] = {"step": int, "parameters": dict, "model": str | None, "detection": str | None}
    kinds |= dict.fromkeys(("stage", "uri", "experiment", "run_key", "name"), str)
    try:
        lost: list[dict[str, Any]] = json.loads(within(path, MAXIMUM_JSON_BYTES).read_text())
        if all(isinstance(one[key], kind) for one in lost for key, kind in kinds.items()):
            return lost
        reason = "a value of the wrong type"
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = repr(error)[:200]
    raise InputError(f"{path} is not what a run leaves ({reason}): remove it")


def close(tracking: Tracking, status: str) -> None:
    """End the MLflow run and every round of it that is still open, with FINISHED, FAILED or KILLED."""
    client, experiment_id, platform = _client(tracking)
    still_open = _condition({RUN_KEY: _safe(tracking.run_key)}) + " and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], still_open):
        if not platform or run.info.run_id != platform.info.run_id:
            client.set_terminated(run.info.run_id, status)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _milliseconds() -> int:
    return int(time.time() * 1000)
