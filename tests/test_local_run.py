"""The whole compiled pipeline through ``pud run``: a kill in the middle, its report, its MLflow runs, its cache."""

import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from servers import TrackingServer

from pipelines.rounds import ROUNDS
from pud import __version__
from pud.base.errors import InputError
from pud.platform.cli import app
from pud.platform.local_run import dvc_digest, git_commit, how_to_open, local_data, run_name

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((Path(__file__).parent / "report.schema.json").read_text())
TINY = {
    "train_size": 300,
    "train_settings": {"epochs": 2},
    "probe_settings": {"noise_draws": 1, "mix_draws": 1, "steps": 1, "splits": 1, "adversarial_images": 50},
    "purify_settings": {"epochs": [1], "steps": 1},
    "evaluate_settings": {
        "pgd_images": 1,
        "pgd_steps": 3,
        "autoattack_images": 1,
        "masking_images": 2,
        "drift_images": 10,
    },
}
RUN_SECONDS, PASSWORD = 600, "opensesame"


def command(folder: Path, data: Path, name: str, *options: str) -> list[str]:
    """Return the arguments of a tiny run; it is started in ``folder``, where all that it writes should be."""
    parameters = [part for key, value in TINY.items() for part in ("-p", f"{key}={json.dumps(value)}")]
    where = ["--pipeline", str(ROOT / "pipelines" / "pud.yaml"), "-p", f"data_uri=file:{data}"]
    return [str(Path(sys.executable).with_name("pud")), "run", "--name", name, *where, *parameters, *options]


@dataclass(frozen=True)
class Ended:
    """How a start of a run ended, and what there was then."""

    code: int
    said: str
    errors: str
    log: str
    mlflow: list[dict[str, str]]
    processes: list[int]
    temporary: list[Path]
    with_password: list[Path]

    @classmethod
    def of(cls, process: subprocess.Popen[str], said: str, folder: Path, database: Path) -> "Ended":
        more, errors = process.communicate(timeout=RUN_SECONDS)
        files = [path for path in (folder / "runs").rglob("*") if path.is_file() and not path.is_symlink()]
        return cls(
            process.returncode,
            said + more,
            errors,
            (folder / "runs" / "tiny" / "kfp.log").read_text(),
            mlflow_runs(database),
            alive(str(folder)),
            list((folder / "runs" / "tiny").glob("tmp*")),
            [path for path in files if PASSWORD in path.read_bytes().decode("latin-1")],
        )


@dataclass(frozen=True)
class Runs:
    """A run that was killed with a server to track it, started again, and once more when it was done, without one."""

    folder: Path
    killed: Ended
    resumed: Ended
    again: Ended

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def runs(sample_folder: Path, server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    tracked = ("--tracking-uri", server.uri.replace("://", f"://somebody:{PASSWORD}@"))

    def start(*options: str) -> subprocess.Popen[str]:
        given = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command(folder, sample_folder, "tiny", *options), **given)

    first = start(*tracked)
    killed = Ended.of(first, said_until_killed(first), folder, server.folder)
    resumed = Ended.of(start(*tracked), "", folder, server.folder)
    return Runs(folder, killed, resumed, Ended.of(start(), "", folder, folder))


def said_until_killed(process: subprocess.Popen[str]) -> str:
    """Send SIGTERM in the task after the first evaluate, and return what the run said up to it."""
    said, measured = "", False
    for line in process.stdout:
        said += line
        if measured and line.startswith("-- "):
            process.send_signal(signal.SIGTERM)
            break
        measured |= line.startswith("-- evaluate")
    return said


def alive(text: str) -> list[int]:
    """Return the processes other than this one whose command line or working folder names ``text``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid():
            try:
                if text in (process / "cmdline").read_text() or text in os.readlink(process / "cwd"):
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def mlflow_runs(folder: Path) -> list[dict[str, str]]:
    """Return the id, status and tags of every MLflow run in a folder's database."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("select run_uuid, status from runs").fetchall()
        tags = database.execute("select run_uuid, key, value from tags").fetchall()
    about = {run: {"id": run, "status": status} for run, status in rows}
    for run, key, value in tags:
        about[run][key] = value
    return list(about.values())


def parents(runs: list[dict[str, str]]) -> list[dict[str, str]]:
    return [run for run in runs if "mlflow.parentRunId" not in run]


def executed(log: str) -> set[str]:
    """Return the components of the tasks that a log says were started; kfp starts nothing on a cache hit."""
    names = re.findall(r"Executing task '([\w-]+)'", re.sub(r"\x1b\[\d+m", "", log))
    return {re.sub(r"-\d+$", "", name) for name in names}


def test_the_report_satisfies_the_schema(runs: Runs) -> None:
    report = json.loads((runs.run / "report.json").read_text())
    jsonschema.validate(report, SCHEMA)
    assert len(report["rounds"]) == ROUNDS
    assert [record["attack"] for record in report["purified"]["robust_accuracy"]] == ["PGD", "AutoAttack"]


def test_a_run_leaves_its_record_and_nothing_temporary(runs: Runs) -> None:
    assert (runs.folder / "runs" / "latest").resolve() == runs.run
    assert {path.name for path in runs.run.iterdir()} == {
        "kfp",
        "kfp.log",
        "report.json",
        "report.html",
        "verdict.json",
    }
    assert {path.name for path in runs.folder.iterdir()} == {"runs", "mlflow.db", "mlruns"}
    assert not list(runs.folder.rglob("*.partial*"))


def test_a_run_says_what_it_does_and_prints_the_table(runs: Runs) -> None:
    begun = [line for line in runs.killed.said.splitlines() if line.startswith("-- ")]
    assert begun[:3] == ["-- check", "-- poison", "-- train"]
    lines = runs.again.said.splitlines()
    assert [line.split("  ")[0] for line in lines if re.match(r"(infected|round \d|purified)  ", line)] == [
        "infected",
        *(f"round {index + 1}" for index in range(ROUNDS)),
        "purified",
    ]


def test_a_run_has_one_finished_mlflow_parent_and_a_child_a_round(runs: Runs) -> None:
    (parent,) = parents(runs.again.mlflow)
    children = [run for run in runs.again.mlflow if run.get("mlflow.parentRunId") == parent["id"]]
    assert len(children) == ROUNDS
    assert sorted(child["pud.round"] for child in children) == [str(index + 1) for index in range(ROUNDS)]
    assert {run["status"] for run in (parent, *children)} == {"FINISHED"}


def test_mlflow_has_the_metrics_with_the_round_as_step(runs: Runs) -> None:
    (parent,) = parents(runs.again.mlflow)
    with sqlite3.connect(runs.folder / "mlflow.db") as database:
        steps = database.execute(
            "select distinct step, value from metrics where run_uuid = ? and key = 'clean_accuracy'", (parent["id"],)
        ).fetchall()
        names = {key for (key,) in database.execute("select distinct key from metrics")}
    report = json.loads((runs.run / "report.json").read_text())
    stages = [report["infected"], *report["rounds"], report["purified"]]
    assert set(steps) >= {(step, stage["clean_accuracy"]) for step, stage in enumerate(stages)}
    assert names >= {"attack_success_rate", "recovery_accuracy", "robust_accuracy_pgd", "detection_auroc"}


def test_mlflow_has_the_data_set_and_the_parameters(runs: Runs) -> None:
    report = json.loads((runs.run / "report.json").read_text())
    with sqlite3.connect(runs.folder / "mlflow.db") as database:
        data = database.execute("select name, digest from datasets").fetchall()
        parameters = dict(database.execute("select key, value from params").fetchall())
    assert data == [("fashion-mnist", report["dataset"]["digest"])]
    assert parameters["train.epochs"] == "2"
    assert {name.split(".")[0] for name in parameters} == {"train", "probe", "detect", "purify", "evaluate"}


def test_mlflow_has_the_table_the_plots_the_model_and_the_report(runs: Runs) -> None:
    (parent,) = parents(runs.again.mlflow)
    (artifacts,) = (runs.folder / "mlruns").rglob(f"{parent['id']}/artifacts")
    files = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    assert files >= {
        "report.json",
        "plots/drift.png",
        "plots/rounds.png",
        "plots/suspicion.png",
        "detection/detection.parquet",
        "model/model.safetensors",
        "model/model.json",
    }


def test_the_same_run_again_takes_what_was_done_from_the_cache(runs: Runs) -> None:
    assert runs.again.code == 0, runs.again.errors
    done = executed(runs.killed.log) | executed(runs.resumed.log)
    assert done >= {"poison", "train", "adversarial-probe", "detect", "purify", "evaluate"}
    assert executed(runs.again.log) - {"finish", "always-close-tracking"} == {"evaluate", "conclude"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="processes are looked up in /proc")
def test_a_killed_run_leaves_nothing_behind(runs: Runs) -> None:
    assert runs.killed.code != 0
    assert "Traceback" not in runs.killed.said + runs.killed.errors
    assert (runs.killed.processes, runs.killed.temporary) == ([], [])
    (parent,) = parents(runs.killed.mlflow)
    assert parent["status"] == "KILLED"


def test_a_killed_run_goes_on_when_it_is_started_again(runs: Runs) -> None:
    assert runs.resumed.code == 0, runs.resumed.errors
    assert executed(runs.resumed.log).isdisjoint({"poison", "train"})
    assert "purify" in executed(runs.resumed.log)
    (parent,) = parents(runs.resumed.mlflow)
    assert (parent["status"], parent["mlflow.runName"]) == ("FINISHED", "tiny")
    assert len(runs.resumed.mlflow) == 1 + ROUNDS


def test_the_password_of_a_tracking_server_is_written_and_said_nowhere(runs: Runs) -> None:
    assert runs.resumed.with_password == []
    for ended in (runs.killed, runs.resumed):
        assert PASSWORD not in ended.said + ended.errors


def test_a_run_whose_task_fails_says_why_in_one_sentence(sample_folder: Path, tmp_path: Path) -> None:
    failing = [*command(tmp_path, sample_folder, "wrong"), "--no-tracking", "-p", "target_label=10"]
    done = subprocess.run(failing, cwd=tmp_path, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("pud: error: target class 10 is not there")
    assert not list((tmp_path / "runs" / "wrong").glob("tmp*"))


BROKEN_PACKAGE = """
import sys

class Broken:
    def find_spec(self, name, *_):
        if name == "pud.steps.poison":
            raise ImportError("the package is broken")

sys.meta_path.insert(0, Broken())
"""


def test_a_run_whose_task_dies_of_a_fault_of_the_code_names_that_and_the_task_s_log(
    sample_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN_PACKAGE)
    failing = [*command(tmp_path, sample_folder, "wrong"), "--no-tracking"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        failing, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("pud: error: ImportError: the package is broken (the whole log: ")


def test_two_processes_do_not_work_on_one_run(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs/busy").mkdir(parents=True)
    lock = os.open(tmp_path / "runs/busy", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    busy = [*command(tmp_path, sample_folder, "busy"), "--no-tracking"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="busy is under way"):
        app(busy[1:], standalone_mode=False)
    os.close(lock)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("my run", "my-run"), ("a_b.c-1", "a_b.c-1"), ("blend: 10 %", "blend-10"), ("L\u00e4ufe", "Laufe"), (" a", "a")],
)
def test_a_name_is_taken_as_that_of_a_folder_and_it_is_said(
    name: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_name(name) == folder
    assert (f"the run is called {folder}" in capsys.readouterr().err) == (name != folder)


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", " ", "latest", "latest ", "\u5b9f\u9a13", ".hidden"])
def test_a_name_that_leads_elsewhere_or_nowhere_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="names no run"):
        run_name(name)


@pytest.mark.parametrize("written", ["data", "file:data", "./data/"])
def test_a_folder_is_a_data_uri(
    written: str, sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(sample_folder)
    monkeypatch.chdir(tmp_path)
    assert local_data(written) == f"file:{sample_folder}"


def pictures(folder: Path) -> Path:
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "1.JPG").touch()
    return folder


def table_of_values(folder: Path) -> Path:
    folder.mkdir()
    (folder / "data.csv").write_text("1,2")
    return folder / "data.csv"


def training_images_only(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "dataset.json").touch()
    return folder


@pytest.mark.parametrize(
    ("make", "thing"),
    [
        (pictures, r"given holds pictures \(1\.JPG\)"),
        (table_of_values, r"data\.csv is a file"),
        (training_images_only, r"given has no test/dataset\.json"),
        (lambda folder: folder, "given is not there"),
    ],
)
def test_what_is_no_data_set_is_refused_with_what_one_is(make, thing: str, tmp_path: Path) -> None:
    given = make(tmp_path / "given")
    for uri in (str(given), f"file:{given}"):
        with pytest.raises(InputError, match=rf"{thing}: a data set is a folder .*images\.npy .*pud fetch"):
            local_data(uri)


def test_what_lies_elsewhere_is_left_to_the_step_that_fetches_it(tmp_path: Path) -> None:
    assert local_data("dvc:s3://bucket/data") == "dvc:s3://bucket/data"
    with pytest.raises(InputError, match="is not supported"):
        local_data("s3://bucket/data")


def test_outside_a_checkout_the_version_stands_for_the_commit(tmp_path: Path) -> None:
    assert re.fullmatch("[0-9a-f]{40}", git_commit(ROOT))
    (tmp_path / "project").mkdir()
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert git_commit(tmp_path / "project") == f"pud-{__version__}"


@pytest.mark.parametrize("text", ["", "outs: []", "outs: [{path: data}]", "{", "\0"])
def test_a_broken_data_dvc_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text(text)
    with pytest.raises(InputError, match=r"data\.dvc names no data"):
        dvc_digest(tmp_path, "data")


def test_how_to_open_mlflow_is_said_for_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_to_open("http://somebody:opensesame@127.0.0.1:9") == "open http://127.0.0.1:9/"
    assert how_to_open("http://127.0.0.1:9/", "#/experiments/1") == "open http://127.0.0.1:9/#/experiments/1"
    monkeypatch.chdir(ROOT)
    assert how_to_open(f"sqlite:///{ROOT / 'mlflow.db'}").startswith("make mlflow, then open")
    monkeypatch.chdir(tmp_path)
    other = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert how_to_open(other) == f"mlflow server --backend-store-uri {other}, then open http://127.0.0.1:5000/"
