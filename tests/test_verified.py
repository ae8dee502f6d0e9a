"""What was verified is not read again until it changes."""

import os
import time
from pathlib import Path

import pytest

import pud.data.verified
from pud.base.errors import InputError
from pud.base.files import sha256
from pud.data.verified import digest_of, record_folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pud.data.verified, "SETTLED_SECONDS", -1.0)  # a test does not wait
    (tmp_path / "images.npy").write_bytes(b"content")
    return tmp_path / "images.npy"


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(path: Path) -> str:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(pud.data.verified, "sha256", reading)


def test_a_verified_file_is_not_read_twice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(file)
    assert digest == sha256(file)
    forbid_reading(monkeypatch)
    assert digest_of(file) == digest
    assert digest_of(file.parent / "." / file.name) == digest


def test_a_file_of_the_same_size_and_time_that_changed_is_read_again(file: Path) -> None:
    first, times = digest_of(file), file.stat()
    time.sleep(0.02)
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as one would who hides the change
    assert digest_of(file) == sha256(file) != first


def test_what_changed_just_now_is_not_recorded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.parent / "cache"))
    digest_of(file)
    assert not record_folder().exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": [1, 2, 3, 4], "sha256": "0"}', "no json"])
def test_a_spoiled_record_is_ignored_and_replaced(file: Path, content: str) -> None:
    digest_of(file)
    (record,) = record_folder().iterdir()
    record.write_text(content)
    assert digest_of(file) == sha256(file)
    assert sha256(file) in record.read_text()


def test_where_nothing_can_be_recorded_the_digest_is_right(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "plain").write_text("a file, no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.parent / "plain"))
    assert digest_of(file) == sha256(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels\.npy is missing"):
        digest_of(tmp_path / "labels.npy")
