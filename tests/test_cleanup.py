"""Cleaning up: only what no run needs is found, and nothing goes before it was said."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pud.base.errors import InputError
from pud.platform.cleanup import find, find_data, remove
from pud.platform.cli import app

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
        (runs / f"a/model.partial-{number}-5f3a").mkdir()
    assert f"a/model.partial-{DEAD}-5f3a" in names(runs)
    assert f"a/model.partial-{os.getpid()}-5f3a" not in names(runs)


def test_a_cache_entry_whose_files_are_gone_goes(runs: Path) -> None:
    (runs / "a/kfp/new/file").unlink()
    (runs / "a/kfp/new").rmdir()
    assert ".cache/2.json" in names(runs)


def test_a_cache_entry_that_cannot_be_read_goes(runs: Path) -> None:
    (runs / ".cache/2.json").write_text('{"out": [')
    assert ".cache/2.json" in names(runs)


def test_nothing_outside_of_the_runs_is_touched(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    entry(runs, "3", OLD, "../../../precious")
    remove(find(runs, 30))
    assert (tmp_path / "precious").is_dir()


def aged(path: Path, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def test_of_a_cache_of_data_old_data_go_and_what_was_half_done_for_a_day(tmp_path: Path) -> None:
    """Pods share it, each with a process of the same number: only age tells who is alive."""
    one, two = 32 * "1", 32 * "2"
    old, half = {f"{one}.dir", f"objects/{one}"}, {f"{two}.dir.partial-7-aa", f"objects/{two}.partial-7-bb"}
    for name in (*old, *half, f"{two}.dir", f"objects/{two}", "busy.dir.partial-7-cc", "thesis"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.startswith((f"{one}.dir", f"{two}.dir", "busy")) else path.write_text(name)
        aged(path, 40 if name in old | {"thesis"} else 2 if name in half else 0)
    aged(tmp_path / "objects", 40)
    assert {one.path.relative_to(tmp_path).as_posix() for one in find_data(tmp_path, 30)} == old | half
    said = CliRunner().invoke(app, ["gc", "--data-cache", str(tmp_path), "--yes"])
    assert said.exit_code == 0, said.output
    assert find_data(tmp_path, 30) == []
    assert (tmp_path / "objects" / two).is_file()
    with pytest.raises(InputError, match="is no folder"):
        find_data(tmp_path / "nowhere", 30)


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
