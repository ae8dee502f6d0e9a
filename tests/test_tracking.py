"""Tracking against a real MLflow server: runs are found again, closed, kept apart, and sent later if it was killed."""

import html
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from servers import TrackingServer, serving

from components.tracking import tracking_of
from pud.artifacts.verdict import save_verdict
from pud.base.errors import InputError, without_userinfo
from pud.base.files import write_json
from pud.reporting.experiment import COLUMNS, VIEW, VIEW_TAG
from pud.reporting.report import SCALARS
from pud.reporting.tracking import (
    PARENT_TAG,
    PLATFORM_RUN,
    ROUND_TAG,
    RUN_KEY,
    Tracking,
    _client,
    _experiment,
    check,
    close,
    log_findings,
    log_stage,
    note_of,
    page_of,
    parent_run,
    sync,
)

LOST_SECONDS = 30
STAGES = [("infected", 0), ("round", 1), ("round", 2), ("purified", 3)]
DRIFT = {"share_to_target": 0.1, "similarity_to_triggered": 0.5, "similarity_to_clean": 0.6, "n": 10}
PGD = {"attack": "PGD", "epsilon": 0.03, "steps": 20, "restarts": 1, "n": 10, "seed": 0, "value": 0.8}
RESULT = dict.fromkeys(SCALARS[1:], 0.9) | {"robust_accuracy": [PGD], "drift": DRIFT, "seconds": 1.0}
REPORT: dict[str, Any] = {
    "format": "pud-report/2",
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
        account(monkeypatch, "pud", "long-password")
        assert _experiment(client, "others") == client.get_run(foreign).info.experiment_id  # readable, of no kind
        assert page_of(Tracking(server.uri, "others")).endswith("workflowType=machine_learning")  # without our view
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


def test_the_experiment_is_marked_as_one_of_models_and_has_our_view(server: TrackingServer) -> None:
    """As mlflow's UI marks an experiment; one that is something else by choice stays it."""
    client, kind = MlflowClient(server.uri), "mlflow.experimentKind"
    client.create_experiment("kind: none")
    client.create_experiment("kind: other", tags={kind: "genai_development"})
    for name in ("kind: new", "kind: none", "kind: other"):
        found = client.get_experiment(_experiment(client, name))
        page = f"#/experiments/{found.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
        assert page_of(Tracking(server.uri, name)) == page
        assert found.tags[kind] == ("genai_development" if name == "kind: other" else "custom_model_development")


def test_a_view_that_people_changed_stays_theirs_and_of_what_nobody_recorded_there_is_no_page(
    server: TrackingServer,
) -> None:
    client = MlflowClient(server.uri)
    client.create_experiment("view: changed", tags={VIEW_TAG: "theirs"})
    assert client.get_experiment(_experiment(client, "view: changed")).tags[VIEW_TAG] == "theirs"
    assert page_of(Tracking(server.uri, "view: none")) == ""
    assert client.get_experiment_by_name("view: none") is None


def test_each_column_of_the_view_is_something_that_a_finished_run_has(server: TrackingServer, tmp_path: Path) -> None:
    tracking = Tracking(server.uri, "view", "a run")
    record(tracking)
    counts = {"clean": 6, "poisoned": 4}
    said = {"verdict": "backdoor to 0, 3", "verdict_code": "backdoor", "target_labels": [0, 3], "unjudged": {}}
    said |= {"confidence": 0.9, "rounds_done": 2, "classes": list("abcd"), "counts": counts}
    save_verdict(tmp_path, said, {"kind": "defence"})
    log_findings(tracking, tmp_path)
    (parent,) = [run for run in server.runs("view") if run.data.tags[ROUND_TAG] == "all"]
    tags = ("kind", "verdict_code", "target_labels", "accused_images")
    assert [parent.data.tags[f"pud.{key}"] for key in tags] == ["defence", "backdoor", "0, 3", "4"]
    known = {f"tags.`{key}`" for key in parent.data.tags} | {f"metrics.`{key}`" for key in parent.data.metrics}
    assert set(COLUMNS) <= known
    view = json.loads(MlflowClient(server.uri).get_experiment(parent.info.experiment_id).tags[VIEW_TAG])
    assert json.loads(view["state"])["selectedColumns"] == [*COLUMNS]


def test_a_data_set_is_recorded_whose_digest_is_longer_than_mlflow_takes(server: TrackingServer) -> None:
    report = {**REPORT, "rounds": [], "dataset": {**REPORT["dataset"], "digest": "0123456789abcdef" * 4}}
    tracking = Tracking(server.uri, "received data", "a run")
    log_stage(tracking, report, "infected", step=0, model=None, detection=None, parameters={})
    (run,) = server.runs("received data")
    assert [one.dataset.digest for one in run.inputs.dataset_inputs] == ["0123456789abcdef0123456789abcdef0123"]


def test_the_description_of_a_run_is_its_table_so_far(server: TrackingServer) -> None:
    tracking, commit = Tracking(server.uri, "described", "a run"), "5a1b" * 10
    planted = {"name": "badnets", "settings": {}, "mapping": "all-to-one", "poison_rate": 0.1, "target_label": 0}
    whole = {**REPORT, "attack": planted, "git_commit": commit}
    stages = [({**whole, "rounds": [], "purified": None}, "infected", 0), (whole, "round", 1)]
    del stages[0][0]["purified"]
    rows = []
    for report, stage, step in stages:
        log_stage(tracking, report, stage, step=step, model=None, detection=None, parameters={})
        (parent,) = [run for run in server.runs("described") if run.data.tags[ROUND_TAG] == "all"]
        note = parent.data.tags["mlflow.note.content"]
        about, _, *lines = note.splitlines()
        assert "attack **badnets**" in about
        assert "data set **sample**" in about
        assert {line.count("|") for line in lines} == {9}
        rows.append([line.split("|")[1].strip() for line in lines[2:]])
    assert rows == [["infected"], ["infected", "round 1", "round 2", "purified"]]
    assert "| infected | 90.00 | 90.00 | 90.00 | PGD-20 80.0 (n=10) |" in note
    assert parent.data.tags["mlflow.source.name"] == "pud"
    assert parent.data.tags["mlflow.source.git.commit"] == commit


def test_a_name_that_others_gave_is_no_markdown_and_no_html() -> None:
    name = "<img src=x onerror=alert(1)> [a](http://evil) ![b](//evil) | *c* `d` www.evil.example\n# e &lt;"
    note = note_of({**REPORT, "dataset": {"name": name}})
    about, *_ = note.splitlines()
    assert len(note.splitlines()) == len(note_of(REPORT).splitlines())
    assert not set(about) & set("<>[]|`!:/_\\")
    assert "www." not in about
    assert html.unescape(about).endswith(f"data set **{' '.join(name.split())}**")
    assert len(note_of({**REPORT, "rounds": [RESULT] * 500})) <= 8000


def untracked(folder: Path, tracking: Tracking, stages: list[tuple[str, int]]) -> None:
    """Write what a run leaves that lost MLflow for these stages, after all of them."""
    write_json(folder / "report.json", REPORT)
    known = {"reason": "lost", "parameters": {"train": {"seed": 0}}, "model": str(folder / "gone"), "detection": None}
    where = {key: getattr(tracking, key) for key in ("uri", "experiment", "run_key", "name")}
    lost = [known | where | {"stage": stage, "step": step} for stage, step in stages]
    (folder / "untracked.json").write_text(json.dumps(lost))


@pytest.fixture
def configured(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> TrackingServer:
    """The MLflow server that this user's environment names."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    return server


def test_what_mlflow_missed_is_sent_to_where_the_run_looked_for_it(configured: TrackingServer, tmp_path: Path) -> None:
    server = configured
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


def test_a_finished_run_is_closed_whichever_stage_mlflow_missed(configured: TrackingServer, tmp_path: Path) -> None:
    tracking, client = Tracking(configured.uri, "late", "a", "a"), MlflowClient(configured.uri)
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


def test_a_folder_that_is_not_beside_the_run_is_sent_to_nobody(configured: TrackingServer, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("secret")
    run = tmp_path / "runs/run"
    run.mkdir(parents=True)
    untracked(run, Tracking(configured.uri, "stranger", "a", "a"), STAGES[-1:])
    lost = json.loads((run / "untracked.json").read_text())
    (run / "untracked.json").write_text(json.dumps([{**lost[0], "model": str(tmp_path / "private")}]))
    assert sync(run) == ["purified 3 recorded, without its model"]


def test_a_stranger_s_folder_gets_this_user_s_password_sent_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(monkeypatch, "pud", "long-password")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    asked = []

    def evil(method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        asked.append(headers.get("authorization"))
        return 404, {}

    with serving(evil) as uri:
        untracked(tmp_path, Tracking(uri, "pud", "a"), STAGES)
        with pytest.raises(InputError, match=rf"names MLflow at '{uri}'.*--tracking-uri"):
            sync(tmp_path)
        assert asked == []
    untracked(tmp_path, Tracking(f"sqlite:///{tmp_path}/mlflow.db", "pud", "a"), STAGES)
    with pytest.raises(InputError, match=r"sqlite:.*--tracking-uri"):
        sync(tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def test_the_address_of_the_default_or_of_the_command_line_is_taken(
    configured: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs/run"
    run.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    untracked(run, Tracking(f"sqlite:///{tmp_path}/mlflow.db", "local", "a"), STAGES)
    assert len(sync(run)) == len(STAGES)
    assert (tmp_path / "mlflow.db").is_file()
    untracked(run, Tracking("http://127.0.0.1:9", "named", "a"), STAGES)
    assert len(sync(run, configured.uri)) == len(STAGES)
    assert len(configured.runs("named")) == 3


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "the folder itself", "pipe"])
def test_what_a_link_leads_to_is_never_sent(kind: str, configured: TrackingServer, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("secret")
    run, model = tmp_path / "runs/run", tmp_path / "runs/run/model"
    (run / "real/inner").mkdir(parents=True)
    links = {
        "link to a file": lambda: (run / "real/inner/file").symlink_to(tmp_path / "private/key"),
        "link to a folder": lambda: (run / "real/inner/folder").symlink_to(tmp_path / "private"),
        "the folder itself": lambda: None,
        "pipe": lambda: os.mkfifo(run / "real/inner/pipe"),
    }
    links[kind]()
    if kind == "the folder itself":
        model.symlink_to(run / "real")
    else:
        (run / "real").rename(model)
    tracking = Tracking(configured.uri, f"links, {kind}", "a")
    untracked(run, tracking, STAGES)
    lost = json.loads((run / "untracked.json").read_text())
    (run / "untracked.json").write_text(json.dumps([*lost[:-1], {**lost[-1], "model": str(model)}]))
    with pytest.raises(InputError, match=r"runs/run/model.*is a link or no file"):
        sync(run)
    assert MlflowClient(configured.uri).get_experiment_by_name(tracking.experiment) is None


def test_what_mlflow_refuses_is_kept_and_its_reason_said(configured: TrackingServer, tmp_path: Path) -> None:
    client = MlflowClient(configured.uri)
    client.delete_experiment(client.create_experiment("deleted"))
    untracked(tmp_path, Tracking(configured.uri, "deleted", "a"), STAGES)
    with pytest.raises(InputError, match=r"at stage infected \(.*active"):
        sync(tmp_path)
    assert (tmp_path / "untracked.json").exists()


@pytest.mark.parametrize(
    "uri", ["http://somebody:opensesame@127.0.0.1:9", "postgresql://somebody:open@sesame@127.0.0.1:9/mlflow"]
)
def test_a_password_in_the_uri_is_never_said(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sesame" not in repr(Tracking(uri))
    with pytest.raises(InputError, match="cannot be reached") as refused:
        check(Tracking(uri))
    untracked(tmp_path, Tracking(uri, "pud", "a"), STAGES)
    with pytest.raises(InputError, match=r"://127\.0\.0\.1:9.*--tracking-uri") as elsewhere:
        sync(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=r"://127\.0\.0\.1:9.*cannot be reached") as lost:
        sync(tmp_path)
    for error in (refused.value, elsewhere.value, lost.value):
        assert "sesame" not in str(error)
        assert "somebody" not in str(error)
        assert error.__suppress_context__ or not error.__context__


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
