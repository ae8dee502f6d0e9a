"""Tracking against a real MLflow server: runs are found again, closed, kept apart, and sent later if it was killed."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from servers import TrackingServer

from components.tracking import tracking_of
from pud.errors import InputError, without_userinfo
from pud.files import write_json
from pud.report import SCALARS
from pud.tracking import (
    PARENT_TAG,
    PLATFORM_RUN,
    ROUND_TAG,
    RUN_KEY,
    Tracking,
    _client,
    check,
    close,
    log_stage,
    parent_run,
    sync,
)

LOST_SECONDS = 30
STAGES = [("infected", 0), ("round", 1), ("round", 2), ("purified", 3)]
DRIFT = {"share_to_target": 0.1, "similarity_to_triggered": 0.5, "similarity_to_clean": 0.6, "n": 10}
PGD = {"attack": "PGD", "epsilon": 0.03, "steps": 20, "restarts": 1, "n": 10, "seed": 0, "value": 0.8}
RESULT = dict.fromkeys(SCALARS, 0.9) | {"robust_accuracy": [PGD], "drift": DRIFT, "seconds": 1.0}
REPORT: dict[str, Any] = {
    "format": "pud-report/1",
    "infected": RESULT,
    "rounds": [RESULT, RESULT],
    "purified": RESULT,
    "git_commit": "",
    "dataset": {"name": "sample", "digest": "0" * 32, "uri": "file:data"},
}


def record(tracking: Tracking, stages: list[tuple[str, int]] = STAGES) -> None:
    """Record stages as the tasks of a run do, each with what the report holds by then."""
    for stage, step in stages:
        until = {**REPORT, "rounds": REPORT["rounds"][:step]}
        log_stage(tracking, until, stage, step=step, model=None, detection=None, parameters={"train": {"seed": 0}})


def test_a_reachable_server_passes_the_check(server: TrackingServer) -> None:
    check(Tracking(server.uri))


@pytest.mark.parametrize("run_key", ["a run", 'it\'s "a" run\\'])
def test_a_stage_recorded_twice_finds_the_runs_that_it_made(run_key: str, server: TrackingServer) -> None:
    tracking = Tracking(server.uri, f"twice {len(run_key)}", run_key)
    for _ in range(2):
        record(tracking)
    close(tracking, "FINISHED")
    assert sorted(run.data.tags[ROUND_TAG] for run in server.runs(tracking.experiment)) == ["1", "2", "all"]
    assert {run.info.status for run in server.runs(tracking.experiment)} == {"FINISHED"}


def test_close_ends_the_open_runs_of_its_key_and_no_other(server: TrackingServer) -> None:
    tracking, other = Tracking(server.uri, "closed", "a run"), Tracking(server.uri, "closed", "another run")
    record(tracking, STAGES[:2])
    record(other, STAGES[:1])
    close(tracking, "KILLED")
    status = {
        (run.data.tags[RUN_KEY], run.data.tags[ROUND_TAG]): run.info.status for run in server.runs(tracking.experiment)
    }
    assert status == {("a run", "all"): "KILLED", ("a run", "1"): "FINISHED", ("another run", "all"): "RUNNING"}


def test_a_continued_run_is_open_again(server: TrackingServer) -> None:
    tracking = Tracking(server.uri, "again", "a run")
    client, experiment, _ = _client(tracking)
    parent = parent_run(client, experiment, tracking).info.run_id
    close(tracking, "FAILED")
    assert parent_run(client, experiment, tracking).info.run_id == parent
    assert client.get_run(parent).info.status == "RUNNING"


@pytest.mark.parametrize("given", ["", "task", "elsewhere", "deleted", "no id"])
def test_there_is_one_parent_and_a_child_a_round_whatever_the_platform_says(
    given: str, server: TrackingServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow's plugin opens a run and one below it for each task; its run may be on another server, or gone."""
    tracking, client = Tracking(server.uri, f"plugin {given}", "a run"), MlflowClient(server.uri)
    experiment = client.create_experiment(tracking.experiment)
    whole = client.create_run(experiment).info.run_id
    task = client.create_run(experiment, tags={PARENT_TAG: whole}).info.run_id
    deleted = client.create_run(experiment).info.run_id
    client.delete_run(deleted)
    values = {"task": task, "elsewhere": "0" * 32, "deleted": deleted, "no id": "it's/none"}
    if given:
        monkeypatch.setenv(PLATFORM_RUN, values[given])
    check(tracking)
    record(tracking)
    close(tracking, "FINISHED")
    ours = {run.info.run_id: run for run in server.runs(tracking.experiment) if ROUND_TAG in run.data.tags}
    rounds = {run.data.tags[ROUND_TAG]: run for run in ours.values()}
    assert len(ours) == 3
    assert {rounds[number].data.tags[PARENT_TAG] for number in "12"} == {rounds["all"].info.run_id}
    assert (rounds["all"].info.run_id == whole) == (given == "task")
    assert rounds["all"].info.status == ("RUNNING" if given == "task" else "FINISHED")
    assert ("a run of our own" in capsys.readouterr().err) == (given in ("elsewhere", "deleted", "no id"))


def test_a_run_of_the_platform_that_this_account_may_not_write_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server.auth.client import AuthServiceClient  # which loads the whole server

    server = TrackingServer(tmp_path, "admin-password")
    try:
        server.start()
        account(monkeypatch, "admin", server.password)
        client = MlflowClient(server.uri)
        foreign = client.create_run(client.create_experiment("others")).info.run_id
        AuthServiceClient(server.uri).create_user("pud", "long-password")
        account(monkeypatch, "pud", "long-password")
        monkeypatch.setenv(PLATFORM_RUN, foreign)
        tracking = Tracking(server.uri, "ours", "a run")
        record(tracking)
        close(tracking, "FINISHED")
        assert sorted(run.data.tags[ROUND_TAG] for run in server.runs("ours")) == ["1", "2", "all"]
        account(monkeypatch, "admin", server.password)
        assert ROUND_TAG not in client.get_run(foreign).data.tags
    finally:
        server.kill()


def account(monkeypatch: pytest.MonkeyPatch, name: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_two_runs_of_one_name_at_once_do_not_disturb_each_other(server: TrackingServer) -> None:
    given = {"uri": server.uri, "experiment": "together"}
    both = [tracking_of(given, job, "figures") for job in ("5a1b", "77fe")]

    def whole(tracking: Tracking) -> None:
        record(tracking)
        close(tracking, "FINISHED")

    with ThreadPoolExecutor(2) as pool:  # both make the experiment
        list(pool.map(check, both))
    record(both[0], STAGES[:1])
    whole(both[1])
    (open_run,) = [run for run in server.runs("together") if run.info.status == "RUNNING"]
    assert open_run.data.tags[RUN_KEY] == "5a1b"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(whole, both))
    parents = [run for run in server.runs(both[0].experiment) if PARENT_TAG not in run.data.tags]
    assert {run.info.run_name for run in parents} == {"figures"}
    assert sorted(run.data.tags[RUN_KEY] for run in parents) == ["5a1b", "77fe"]
    for parent in parents:
        children = [
            run for run in server.runs(both[0].experiment) if run.data.tags.get(PARENT_TAG) == parent.info.run_id
        ]
        assert len(children) == 2


def untracked(folder: Path, tracking: Tracking, stages: list[tuple[str, int]]) -> None:
    """Write what a run leaves that lost MLflow for these stages, after all of them."""
    write_json(folder / "report.json", REPORT)
    known = {"reason": "lost", "parameters": {"train": {"seed": 0}}, "model": str(folder / "gone"), "detection": None}
    where = {key: getattr(tracking, key) for key in ("uri", "experiment", "run_key", "name")}
    lost = [known | where | {"stage": stage, "step": step} for stage, step in stages]
    (folder / "untracked.json").write_text(json.dumps(lost))


def test_what_mlflow_missed_is_sent_to_where_the_run_looked_for_it(server: TrackingServer, tmp_path: Path) -> None:
    tracking, whole = Tracking(server.uri, "synced", "a", "a"), Tracking(server.uri, "undisturbed", "a", "a")
    untracked(tmp_path, tracking, STAGES)
    with pytest.raises(InputError, match="cannot be reached"):
        sync(tmp_path, "http://127.0.0.1:9")
    assert (tmp_path / "untracked.json").exists()
    assert sync(tmp_path)[-1] == "purified 3 recorded, without its model"
    record(whole)
    close(whole, "FINISHED")
    assert server.content(tracking.experiment) == server.content(whole.experiment)
    assert sync(tmp_path) == ["nothing is missing in MLflow"]


def test_a_finished_run_is_closed_whichever_stage_mlflow_missed(server: TrackingServer, tmp_path: Path) -> None:
    tracking, client = Tracking(server.uri, "late", "a", "a"), MlflowClient(server.uri)
    record(tracking)
    close(tracking, "FINISHED")
    untracked(tmp_path, tracking, STAGES[:1])
    sync(tmp_path)
    experiment = client.get_experiment_by_name("late")
    assert experiment
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FINISHED"}


@pytest.mark.parametrize("content", ["{", "[1]", "[{}]", '{"stage": 1}'])
def test_what_no_run_left_is_refused(content: str, tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", REPORT)
    (tmp_path / "untracked.json").write_text(content)
    with pytest.raises(InputError, match="is not what a run leaves"):
        sync(tmp_path)


def test_a_folder_that_is_not_beside_the_run_is_sent_to_nobody(server: TrackingServer, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("secret")
    run = tmp_path / "runs/run"
    run.mkdir(parents=True)
    untracked(run, Tracking(server.uri, "stranger", "a", "a"), STAGES[-1:])
    lost = json.loads((run / "untracked.json").read_text())
    (run / "untracked.json").write_text(json.dumps([{**lost[0], "model": str(tmp_path / "private")}]))
    assert sync(run) == ["purified 3 recorded, without its model"]


def test_what_mlflow_refuses_is_kept_and_its_reason_said(server: TrackingServer, tmp_path: Path) -> None:
    client = MlflowClient(server.uri)
    client.delete_experiment(client.create_experiment("deleted"))
    untracked(tmp_path, Tracking(server.uri, "deleted", "a"), STAGES)
    with pytest.raises(InputError, match=r"at stage infected \(.*active"):
        sync(tmp_path)
    assert (tmp_path / "untracked.json").exists()


@pytest.mark.parametrize(
    "uri", ["http://somebody:opensesame@127.0.0.1:9", "postgresql://somebody:open@sesame@127.0.0.1:9/mlflow"]
)
def test_a_password_in_the_uri_is_never_said(uri: str, tmp_path: Path) -> None:
    assert "sesame" not in repr(Tracking(uri))
    with pytest.raises(InputError, match="cannot be reached") as refused:
        check(Tracking(uri))
    untracked(tmp_path, Tracking(uri, "pud", "a"), STAGES)
    with pytest.raises(InputError, match=r"://127\.0\.0\.1:9") as lost:
        sync(tmp_path)
    for error in (refused.value, lost.value):
        assert "sesame" not in str(error)
        assert "somebody" not in str(error)
        assert error.__suppress_context__


def test_a_password_in_the_uri_of_a_server_that_answers_is_in_no_output_and_no_record(
    server: TrackingServer, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking = Tracking(server.uri.replace("://", "://somebody:opensesame@"), "password", "a run")
    check(tracking)
    record(tracking)
    close(tracking, "FINISHED")
    assert "sesame" not in "".join(capfd.readouterr())
    database = b"".join(file.read_bytes() for file in server.folder.glob("mlflow.db*"))
    assert b"password" in database
    assert b"sesame" not in database


def test_only_the_name_and_password_leave_a_text() -> None:
    text = "at https://a:b@host:1/x@y and sqlite:////tmp/it@home, mail me@host"
    assert without_userinfo(text) == text.replace("a:b@", "")
    assert without_userinfo("postgresql://mlflow:open/sesame@host/db") == "postgresql://host/db"


def test_a_lost_server_is_one_sentence_soon(server: TrackingServer) -> None:
    server.kill()
    started = time.monotonic()
    with pytest.raises(InputError, match="cannot be reached") as refused:
        check(Tracking(server.uri))
    assert time.monotonic() - started < LOST_SECONDS
    assert server.uri in str(refused.value)
    assert "\n" not in str(refused.value)
