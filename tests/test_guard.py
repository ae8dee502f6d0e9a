"""What guards a task: nothing that came empty is worked on, a hang ends, and the cluster learns the reason."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from components import guard
from components.guard import guarded, refuse_empty
from pud.base.errors import InputError
from pud.base.progress import say, seconds_since_sign, track

ROOT = Path(__file__).parent.parent


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(guard, "TERMINATION_LOG", path)
    return path


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(name="model", path=str(path))


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["an empty folder", "nothing"])
def test_an_artifact_that_came_empty_is_refused_by_its_name_with_the_remedy(tmp_path: Path, make: object) -> None:
    make(tmp_path / "model")
    worked = []
    with (
        pytest.raises(InputError, match=r"artifact model came empty: it has expired .* --no-cache"),
        guarded(artifact(tmp_path / "model")),
    ):
        worked.append(1)
    assert not worked


def test_what_holds_a_file_is_taken_and_an_input_that_was_not_given_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "model.json").touch()
    refuse_empty("model", tmp_path / "model.json")
    with guarded(artifact(tmp_path), None):
        pass


def test_the_cluster_is_told_the_sentence_and_that_another_try_would_not_mend_it(termination_log: Path) -> None:
    with pytest.raises(InputError), guarded():
        raise InputError("the model is corrupt: make it again " + "é" * 5000)
    told = termination_log.read_bytes()
    assert told.startswith(b"InputError: the model is corrupt: make it again ")
    assert len(told) <= 4096


def test_what_another_try_may_mend_is_not_called_final(termination_log: Path) -> None:
    with pytest.raises(OSError, match="connection"), guarded():
        raise OSError("connection reset")
    assert termination_log.read_bytes() == b""


def test_outside_a_pod_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TERMINATION_LOG", tmp_path / "none")
    with pytest.raises(InputError), guarded():
        raise InputError("no")
    assert not (tmp_path / "none").exists()


def test_every_item_and_every_line_is_a_sign_of_progress() -> None:
    time.sleep(0.05)
    assert seconds_since_sign() >= 0.05
    say("still here")
    assert seconds_since_sign() < 0.05
    for _ in track(range(2), "work"):
        assert seconds_since_sign() < 0.05
        time.sleep(0.06)


STALL = """
import sys, time
from components import guard
guard.STALLED_SECONDS, guard.LOOK_SECONDS = 0.5, 0.1
guard.TERMINATION_LOG = guard.Path(sys.argv[1])
from pud.base.progress import sign
with guard.guarded():
    for _ in range(10):
        sign(); time.sleep(0.1)
    print("worked", flush=True)
    time.sleep(60)
"""


def test_a_task_that_stands_still_is_ended_with_its_stack_and_one_that_moves_is_not(termination_log: Path) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STALL, str(termination_log)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "worked\n")
    assert "time.sleep(60)" in done.stderr or "<string>" in done.stderr
    assert "no progress" in termination_log.read_text()
    assert time.monotonic() - begun < 30
