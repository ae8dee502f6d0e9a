"""Cleaning up: only what no run needs is found, and nothing goes before it was said."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pud.cleanup import find, remove
from pud.cli import app
from pud.errors import InputError

DEAD = 2**22 + 1  # above the largest process number of Linux
OLD = time.time() - 40 * 86_400


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two old results and a new one; one old output is needed by a new entry too, one holds a report."""
    root = tmp_path / "runs"
    for name in ("old", "shared", "record", "new"):
        (root / "a" / "kfp" / name).mkdir(parents=True)
        (root / "a" / "kfp" / name / "file").write_text(name)
    (root / "a/kfp/record/report.json").write_text("{}")
    (root / ".cache").mkdir()
    entry(root, "1", OLD, "old", "shared", "record")
    entry(root, "2", time.time(), "new", "shared")
    return root


def entry(root: Path, key: str, age: float, *names: str) -> None:
    path = root / ".cache" / f"{key}.json"
    path.write_text(json.dumps({"out": [{"uri": str(root / "a" / "kfp" / name)} for name in names]}))
    os.utime(path, (age, age))


def names(runs: Path, days: float = 30) -> set[str]:
    return {one.path.relative_to(runs).as_posix() for one in find(runs, days)}


def test_old_results_go_unless_a_newer_one_or_a_record_needs_them(runs: Path) -> None:
    assert names(runs) == {".cache/1.json", "a/kfp/old"}


def test_nothing_is_old_before_its_time(runs: Path) -> None:
    assert names(runs, days=50) == set()


def test_what_a_dead_process_left_goes_and_a_living_one_s_stays(runs: Path) -> None:
    for number in (DEAD, os.getpid()):
        (runs / f"a/model.partial-{number}").mkdir()
    assert f"a/model.partial-{DEAD}" in names(runs)
    assert f"a/model.partial-{os.getpid()}" not in names(runs)


def test_a_cache_entry_whose_files_are_gone_goes(runs: Path) -> None:
    (runs / "a/kfp/new/file").unlink()
    (runs / "a/kfp/new").rmdir()
    assert ".cache/2.json" in names(runs)


def test_nothing_outside_of_the_runs_is_touched(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    entry(runs, "3", OLD, "../../../precious")
    remove(find(runs, 30))
    assert (tmp_path / "precious").is_dir()


def test_the_command_says_what_would_go_and_removes_it_only_when_asked(runs: Path) -> None:
    said = CliRunner().invoke(app, ["gc", "--runs", str(runs)])
    assert "a/kfp/old" in said.output
    assert "--yes" in said.output
    assert (runs / "a/kfp/old").is_dir()
    assert CliRunner().invoke(app, ["gc", "--runs", str(runs), "--yes"]).exit_code == 0
    assert not (runs / "a/kfp/old").exists()
    assert find(runs, 30) == []


def test_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        find(tmp_path / "nowhere", 30)
