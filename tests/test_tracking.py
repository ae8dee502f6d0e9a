"""Tracking against a real MLflow server: runs are found again, closed, and a lost server is one sentence."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pud.errors import InputError
from pud.files import write_json
from pud.report import SCALARS
from pud.tracking import (
    PARENT_TAG,
    ROUND_TAG,
    RUN_KEY,
    Tracking,
    _client,
    _find_or_create,
    check,
    close,
    parent_run,
    sync,
)

START_SECONDS, LOST_SECONDS = 120, 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of an MLflow server."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not healthy(uri):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.5)
        yield uri, process
    finally:
        stop(process)


def healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def test_a_reachable_server_passes_the_check(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    check(Tracking(server[0]))


def test_parent_and_child_are_made_once_and_found_again(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    client, experiment = _client(Tracking(server[0], "twice"))
    parents = {parent_run(client, experiment, "a run").info.run_id for _ in range(2)}
    (parent,) = parents
    tags = {RUN_KEY: "a run", ROUND_TAG: "1", PARENT_TAG: parent}
    children = {_find_or_create(client, experiment, "round 1", tags).info.run_id for _ in range(2)}
    other = parent_run(client, experiment, "another run").info.run_id
    assert len(children) == 1
    assert {run.info.run_id for run in client.search_runs([experiment])} == {*parents, *children, other}


def test_close_ends_the_open_runs_of_its_key_and_no_other(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    tracking = Tracking(server[0], "closed", "a run")
    client, experiment = _client(tracking)
    parent = parent_run(client, experiment, "a run").info.run_id
    child = _find_or_create(client, experiment, "round 1", {RUN_KEY: "a run", ROUND_TAG: "1", PARENT_TAG: parent})
    other = parent_run(client, experiment, "another run").info.run_id
    client.set_terminated(child.info.run_id, "FINISHED")
    close(tracking, "KILLED")
    status = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
    assert status == {parent: "KILLED", child.info.run_id: "FINISHED", other: "RUNNING"}


def test_a_continued_run_is_open_again(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    tracking = Tracking(server[0], "again", "a run")
    client, experiment = _client(tracking)
    parent = parent_run(client, experiment, "a run").info.run_id
    close(tracking, "FAILED")
    assert parent_run(client, experiment, "a run").info.run_id == parent
    assert client.get_run(parent).info.status == "RUNNING"


def test_the_run_that_kubeflow_s_plugin_opened_is_the_parent_and_stays_the_plugin_s(
    server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, experiment = _client(Tracking(server[0], "plugin"))
    whole = client.create_run(experiment).info.run_id
    task = client.create_run(experiment, tags={PARENT_TAG: whole}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", task)
    tracking = Tracking(server[0], "another experiment", "a run")
    client, found = _client(tracking)
    assert found == experiment
    assert parent_run(client, found, "a run").info.run_id == whole
    child = _find_or_create(client, found, "round 1", {RUN_KEY: "a run", ROUND_TAG: "1", PARENT_TAG: whole})
    close(tracking, "FINISHED")
    status = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
    assert status == {whole: "RUNNING", task: "RUNNING", child.info.run_id: "FINISHED"}


def test_what_mlflow_missed_is_sent_once_it_is_back(
    server: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    drift = {"share_to_target": 0.1, "similarity_to_triggered": 0.5, "similarity_to_clean": 0.6, "n": 10}
    record = {"attack": "PGD", "epsilon": 0.03, "steps": 20, "restarts": 1, "n": 10, "seed": 0, "value": 0.8}
    result = dict.fromkeys(SCALARS, 0.9) | {"robust_accuracy": [record], "drift": drift, "seconds": 1.0}
    about = {"name": "sample", "digest": "0" * 32, "uri": "file:data"}
    report = {"infected": result, "rounds": [result, result], "purified": result, "git_commit": "", "dataset": about}
    write_json(tmp_path / "report.json", {"format": "pud-report/1", **report})
    known = {"reason": "lost", "parameters": {"seed": 0}, "model": str(tmp_path / "gone"), "detection": None}
    stages = [("infected", 0), ("round", 1), ("round", 2), ("purified", 3)]
    lost = [known | {"stage": stage, "step": step, "experiment": "sync", "run_key": "a"} for stage, step in stages]
    (tmp_path / "untracked.json").write_text(json.dumps(lost))
    with pytest.raises(InputError, match="cannot be reached"):
        sync(tmp_path, "http://127.0.0.1:9")
    assert (tmp_path / "untracked.json").exists()
    assert sync(tmp_path, server[0])[-1] == "purified 3 recorded, without its model"
    client, experiment = _client(Tracking(server[0], "sync"))
    runs = {run.data.tags[ROUND_TAG]: run for run in client.search_runs([experiment])}
    assert sorted(runs) == ["1", "2", "all"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert sync(tmp_path, server[0]) == ["nothing is missing in MLflow"]


def test_two_runs_at_once_do_not_disturb_each_other(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    client, experiment = _client(Tracking(server[0], "together"))

    def whole(key: str) -> str:
        parent = parent_run(client, experiment, key).info.run_id
        for number in "12":
            tags = {RUN_KEY: key, ROUND_TAG: number, PARENT_TAG: parent}
            _find_or_create(client, experiment, f"round {number}", tags)
        close(Tracking(server[0], "together", key), "FINISHED")
        return parent

    with ThreadPoolExecutor(2) as pool:
        parents = list(pool.map(whole, ("one", "other")))
    for parent in parents:
        assert len(client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{parent}'")) == 2


def test_a_lost_server_is_one_sentence_soon(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    uri, process = server
    stop(process)
    started = time.monotonic()
    with pytest.raises(InputError, match="cannot be reached") as refused:
        check(Tracking(uri))
    assert time.monotonic() - started < LOST_SECONDS
    assert uri in str(refused.value)
    assert "\n" not in str(refused.value)
