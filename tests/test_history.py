"""Earlier runs: all are listed, the newest first, whatever else lies there; two are compared figure by figure."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_report import small_report

from pud.artifacts.detection import save_detection
from pud.artifacts.model import FORMAT as MODEL_FORMAT
from pud.artifacts.verdict import save_verdict
from pud.base.errors import InputError
from pud.base.files import write_json
from pud.detectors.contract import CLEAN, POISONED, Detection
from pud.platform.commands_history import compare_command, runs_command
from pud.platform.history import Run, compare, earlier_runs, listed, side_by_side

PLANTED = {"name": "badnets", "settings": {"size": 3}, "mapping": "all-to-one", "poison_rate": 0.1, "target_label": 0}
DIGESTS = {"training_images": "1" * 64, "training_labels": "2" * 64}
N = 40


def aged(path: Path, minutes: float) -> None:
    then = path.stat().st_mtime - 60 * minutes
    os.utime(path, (then, then))


def judged(folder: Path, accused: list[int], targets: list[int], **settings: Any) -> dict[str, Any]:
    """A detection on disk, which accuses these of forty images; returns what it says."""
    folder.mkdir(parents=True)
    bad = np.isin(np.arange(N), accused)
    found = Detection(
        suspicion=np.zeros(N),
        posterior=bad.astype(float),
        verdict=np.where(bad, POISONED, CLEAN),
        inferred_label=np.full(N, -1),
        may_unlearn=bad,
        target_labels=targets,
        separation=np.zeros(10),
        confidence=0.9,
    )
    save_detection(folder, found, np.arange(N) % 10, {"settings": {"detect": settings}, "rounds_done": 1})
    return json.loads((folder / "detection.json").read_text())


def rehearsed(folder: Path, *, accused: list[int], digests: dict[str, str] | None = None, **more: Any) -> Path:
    """The folder of a finished rehearsal."""
    tasks = folder / "kfp/pud-2026-11-28-10-51-13-595632"
    judged(tasks / "detect-3/detection", accused, [0], detector="pud", alpha=4.0)
    (tasks / "purify-2/purified").mkdir(parents=True)
    card = {"format": MODEL_FORMAT, "training": {"keep": [0.2, 0.95], "relabel": True}, "made_from": digests or DIGESTS}
    write_json(tasks / "purify-2/purified/model.json", card)
    write_json(folder / "report.json", {**small_report(), "attack": PLANTED, "seed": 0, "seconds": 330.3, **more})
    return folder


def scanned(folder: Path, *, kind: str = "scan", targets: list[int]) -> Path:
    """The folder of a finished scan."""
    detection = folder / "kfp/scan-2026-11-28-10-51-13-595632/detect/detection"
    said = judged(detection, [1, 2] if targets else [], targets)
    received = folder / "kfp/scan-2026-11-28-10-51-13-595632/receive/model/model.json"
    received.parent.mkdir(parents=True)
    write_json(received, {"format": MODEL_FORMAT, "training": {}, "made_from": {"weights": "4" * 64}})
    (detection / "timing.json").write_text('{"probe": 30.0, "detect": 2.5}')
    digests = {name.replace("_", " "): digest for name, digest in DIGESTS.items()}
    about = {"kind": kind, "data": "pets", "given_label_accuracy": 0.93, "command": "pud scan", "digests": digests}
    save_verdict(folder, said, about)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A rehearsal, a scan after it, and a rehearsal that was stopped in between."""
    folder = tmp_path / "runs"
    aged(rehearsed(folder / "first", accused=[1, 2, 3]) / "report.json", 60)
    stopped = folder / "stopped/kfp/pud-2026-11-28-10-51-13-595632/evaluate/report"
    stopped.mkdir(parents=True)
    begun = {key: value for key, value in small_report().items() if key != "purified"}
    write_json(stopped / "report.json", {**begun, "rounds": [], "attack": PLANTED, "seed": 0, "seconds": 20.0})
    (folder / "stopped/kfp.log").write_text("")
    aged(folder / "stopped/kfp.log", 30)
    scanned(folder / "scan", targets=[3])
    (folder / "latest").symlink_to("first")
    (folder / ".cache").mkdir()
    return folder


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_runs_are_listed_newest_first_with_what_came_out(runs: Path) -> None:
    scan, stopped, first = earlier_runs(runs)
    assert (scan.name, scan.kind, scan.data, scan.attack, scan.state) == ("scan", "scan", "pets", "", "finished")
    assert (scan.verdict, scan.metrics, scan.seconds) == ("backdoor to 3", {"given_label_accuracy": 0.93}, 2.5)
    assert (stopped.kind, stopped.attack, stopped.state) == ("rehearsal", "badnets", "unfinished")
    assert stopped.metrics["attack_success_rate"] == 0.995
    assert (first.name, first.kind, first.data, first.state) == ("first", "rehearsal", "fashion-mnist", "finished")
    assert (first.seconds, first.metrics["clean_accuracy"]) == (330.3, 0.884)


def test_the_table_is_aligned_and_in_percent(runs: Path) -> None:
    text = listed(earlier_runs(runs))
    header, scan, stopped, first = text.splitlines()
    for title, value in (("kind", "rehearsal"), ("attack", "badnets"), ("state", "finished"), ("clean acc", "88.40")):
        assert first.index(value) == header.index(title)
    assert stopped.index("unfinished") == header.index("state")
    assert scan.index("93.00") == header.index("given labels")


@pytest.mark.parametrize("kind", ["defence", "repair"])
def test_the_kind_is_what_the_verdict_says(tmp_path: Path, kind: str) -> None:
    scanned(tmp_path / "one", kind=kind, targets=[])
    (run,) = earlier_runs(tmp_path)
    assert (run.kind, run.verdict) == (kind, "none found")


@pytest.mark.parametrize(("pipeline", "kind"), [("pud", "rehearsal"), ("scan", "scan"), ("defend", "defence")])
def test_a_run_that_measured_nothing_yet_is_known_by_its_pipeline(tmp_path: Path, pipeline: str, kind: str) -> None:
    (tmp_path / "one/kfp" / f"{pipeline}-2026-11-28-10-51-13-595632").mkdir(parents=True)
    (run,) = earlier_runs(tmp_path)
    assert (run.kind, run.state, run.seconds, run.verdict) == (kind, "unfinished", None, "")


BROKEN = {
    "cut": '{"format": "pud-rep',
    "binary": "\x00\x01",
    "other": '{"format": "thesis"}',
    "list": "[]",
    "deep": "[" * 100_000,
    "stages": json.dumps({**small_report(), "attack": PLANTED, "rounds": [3]}),
    "attack": json.dumps({**small_report(), "attack": "badnets"}),
    "no number": json.dumps({**small_report(), "seconds": "long"}),
    "not finite": json.dumps(small_report()).replace("0.884", "NaN"),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["report.json", "verdict.json"])
def test_a_broken_run_is_listed_as_such_beside_the_others(runs: Path, name: str, content: str) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / name).write_text(content)
    found = {run.name: run for run in earlier_runs(runs)}
    assert found.keys() == {"scan", "stopped", "first", "broken"}
    assert found["broken"].state == "unreadable"
    assert found["broken"].reason
    assert len(listed(found.values()).splitlines()) == 5
    with pytest.raises(InputError):
        compare(runs / "first", runs / "broken")


def test_what_is_no_run_is_not_listed(runs: Path) -> None:
    (runs / "thesis").mkdir()
    (runs / "thesis/chapter.txt").write_text("years")
    (runs / "notes.txt").write_text("notes")
    (runs / "gone").symlink_to("nowhere")
    assert {run.name for run in earlier_runs(runs)} == {"scan", "stopped", "first"}


def test_no_text_of_a_stranger_moves_the_terminal(tmp_path: Path) -> None:
    named = {"name": "\x1b[2Jpets\nfake  run", "digest": "", "uri": ""}
    rehearsed(tmp_path / "one", accused=[], dataset=named, command="pud\x1b]0;title\x07")
    rehearsed(tmp_path / "two", accused=[])
    text = listed(earlier_runs(tmp_path)) + side_by_side(compare(tmp_path / "one", tmp_path / "two"), ("one", "two"))
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b[2Jpets\nfake" in text


def test_two_runs_are_compared_setting_by_setting_and_figure_by_figure(tmp_path: Path) -> None:
    one = rehearsed(tmp_path / "one", accused=[1, 2, 3])
    other = small_report()["purified"]
    other = {**other, "clean_accuracy": 0.9, "attack_success_rate": 0.034}
    two = rehearsed(
        tmp_path / "two", accused=[2, 3, 30, 31], seed=1, attack={**PLANTED, "name": "blend"}, purified=other
    )
    difference = compare(one, two)
    assert difference["parameters"] == {"run.seed": [0, 1], "run.attack.name": ["badnets", "blend"]}
    assert difference["metrics"]["purified, clean_accuracy"] == [0.884, 0.9, pytest.approx(0.016)]
    assert difference["metrics"]["round 1, PGD-20 at 8/255"] == [0.79, 0.79, 0]
    assert difference["classes"] == {"both": [0], "only_a": [], "only_b": []}
    assert difference["images"] == {"both": [2, 3], "only_a": [1], "only_b": [30, 31]}
    text = side_by_side(difference, ("one", "two"))
    assert ["purified,", "clean_accuracy", "88.40", "%", "90.00", "%", "+1.60", "%"] in cells(text)
    assert ["run.attack.name", "badnets", "blend"] in cells(text)
    assert ["images", "2", "(2,", "3)", "1", "(1)", "2", "(30,", "31)"] in cells(text)


def test_settings_of_any_step_that_differ_are_named(tmp_path: Path) -> None:
    one, two = (rehearsed(tmp_path / name, accused=[]) for name in ("one", "two"))
    card = next(two.rglob("model.json"))
    write_json(card, {**json.loads(card.read_text()), "training": {"keep": [0.2], "relabel": True}})
    assert compare(one, two)["parameters"] == {"purify.keep": [[0.2, 0.95], [0.2]]}


def test_a_scan_and_a_rehearsal_of_the_same_images_are_compared_too(tmp_path: Path) -> None:
    one, two = scanned(tmp_path / "one", targets=[3]), rehearsed(tmp_path / "two", accused=[2, 9])
    difference = compare(one, two)
    assert difference["images"] == {"both": [2], "only_a": [1], "only_b": [9]}
    assert difference["classes"] == {"both": [], "only_a": [3], "only_b": [0]}
    assert difference["metrics"]["given_label_accuracy"] == [0.93, None, None]
    assert [text.partition(":")[0] for text in difference["verdicts"]] == ["backdoor to class 3", "backdoor to class 0"]


def test_images_are_not_compared_by_their_numbers_where_they_are_others(tmp_path: Path) -> None:
    one = rehearsed(tmp_path / "one", accused=[1])
    two = rehearsed(tmp_path / "two", accused=[1], digests={**DIGESTS, "training_images": "3" * 64})
    assert compare(one, two)["images"] is None
    assert "not known to be the same" in side_by_side(compare(one, two), ("one", "two"))


def test_what_is_no_run_cannot_be_compared(runs: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", runs / ".cache"):
        with pytest.raises(InputError, match="is no run's folder"):
            compare(runs / "first", folder)
    with pytest.raises(InputError, match="is no folder"):
        earlier_runs(tmp_path / "nowhere")


def asked(command: Any, *words: str) -> Result:
    said = CliRunner().invoke(command, list(words))
    assert said.exit_code == 0, said.output
    return said


def test_the_commands_print_tables_and_json(runs: Path, tmp_path: Path) -> None:
    assert asked(runs_command, "--runs", str(runs)).output.startswith("name ")
    listing = json.loads(asked(runs_command, "--runs", str(runs), "--json").output)
    assert [Run(**one) for one in listing] == earlier_runs(runs)
    assert asked(compare_command, "first", "scan", "--runs", str(runs)).output.startswith("parameters ")
    by_path = asked(compare_command, str(runs / "first"), str(runs / "latest"), "--json").output
    assert json.loads(by_path)["parameters"] == {}
    (tmp_path / "empty").mkdir()
    assert "no run is in" in asked(runs_command, "--runs", str(tmp_path / "empty")).output
