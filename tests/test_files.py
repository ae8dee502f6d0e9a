"""Reading files that may be wrong, writing files that are never half there."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from pud.base.errors import InputError
from pud.base.files import finished_folder, partial_folder, read_array, read_json, sha256, write_json


def test_a_folder_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with finished_folder(target, "file") as folder:
        (folder / "file").write_text("half")
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "file").read_text() == "half"


def write_half(target: Path, error: BaseException) -> None:
    with finished_folder(target, "file") as folder:
        (folder / "file").write_text("half")
        raise error


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(tmp_path / "out", RuntimeError("in the middle"))
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_folder_intact(tmp_path: Path) -> None:
    with finished_folder(tmp_path / "out", "file") as folder:
        (folder / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "out", KeyboardInterrupt())
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_success_replaces_the_old_folder_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with finished_folder(tmp_path / "out", "file") as folder:
            (folder / "file").write_text(name)
            (folder / name).write_text(name)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"file", "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fill(folder: Path) -> Path:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder


def lose_a_folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "home")


def lose_the_folder_around_it(tmp_path: Path) -> Path:
    return fill(tmp_path / "home") / ".."


def lose_a_file(tmp_path: Path) -> Path:
    return fill(tmp_path / "home") / "thesis.txt"


def lose_a_link(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(fill(tmp_path / "home"))
    return tmp_path / "link"


@pytest.mark.parametrize("lose", [lose_a_folder, lose_the_folder_around_it, lose_a_file, lose_a_link])
def test_what_is_no_older_output_is_never_replaced(lose: Callable[[Path], Path], tmp_path: Path) -> None:
    worked = False
    with pytest.raises(InputError, match="name another folder"), finished_folder(lose(tmp_path), "file"):
        worked = True
    assert not worked, "refused only after the work"
    assert (tmp_path / "home/thesis.txt").read_text() == "years of work"
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("inside", ["", "model"])
def test_an_output_never_takes_the_place_of_its_own_input(inside: str, tmp_path: Path) -> None:
    given = tmp_path / "out" / inside
    given.mkdir(parents=True)
    (tmp_path / "out/file").touch()
    with pytest.raises(InputError, match="would be lost"), finished_folder(tmp_path / "out", "file", given):
        pass
    assert given.is_dir()


def test_an_input_behind_a_linked_folder_is_not_lost_either(tmp_path: Path) -> None:
    (tmp_path / "disk/model").mkdir(parents=True)
    (tmp_path / "disk/model/file").touch()
    (tmp_path / "runs").symlink_to("disk")
    model = tmp_path / "runs/model"
    with pytest.raises(InputError, match="would be lost"), finished_folder(model, "file", model):
        pass


@pytest.mark.parametrize("header", ["{'descr': '<f8', (", "{[]: 1}", "(" * 3000, "-" * 5000 + "1"])
def test_an_array_with_a_header_of_a_stranger_is_refused(header: str, tmp_path: Path) -> None:
    text = header.encode() + b"\n"
    (tmp_path / "labels.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(InputError, match="is corrupt or not a plain"):
        read_array(tmp_path / "labels.npy", np.int64, 1)


def test_two_processes_of_one_number_on_two_machines_do_not_share_a_half_done_folder(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "out") as one, partial_folder(tmp_path / "out") as other:
        assert one != other
        assert f".partial-{os.getpid()}-" in one.name
    assert list(tmp_path.iterdir()) == []


def test_json_survives_the_round_trip_in_the_same_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", {"format": "x/1", "b": [1, 2.5], "a": None})
    write_json(tmp_path / "two.json", {"a": None, "b": [1, 2.5], "format": "x/1"})
    assert read_json(tmp_path / "one.json", "x/1") == {"format": "x/1", "b": [1, 2.5], "a": None}
    assert sha256(tmp_path / "one.json") == sha256(tmp_path / "two.json")


def test_json_that_is_not_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "one.json", {"value": float("nan")})
    assert not (tmp_path / "one.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '"x/1"', "{}", '{"format": "x/2"}'])
def test_json_of_another_kind_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(InputError, match=r"file\.json"):
        read_json(tmp_path / "file.json", "x/1")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path, "x/1")
    with pytest.raises(InputError, match="is missing"):
        sha256(tmp_path)
    with pytest.raises(InputError):
        read_array(tmp_path, np.uint8, 1)


def test_a_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array", json.dumps([1]).encode()])
def test_an_array_file_that_is_not_one_is_refused(content: bytes, mmap: bool, tmp_path: Path) -> None:
    (tmp_path / "file.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.npy is corrupt"):
        read_array(tmp_path / "file.npy", np.uint8, 1, mmap=mmap)


@pytest.mark.parametrize(("dtype", "dimensions"), [(np.float32, 2), (np.float64, 1)])
def test_an_array_of_another_type_or_rank_is_refused(dtype: type, dimensions: int, tmp_path: Path) -> None:
    np.save(tmp_path / "file.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match="dimensions is needed"):
        read_array(tmp_path / "file.npy", dtype, dimensions)


def test_json_that_would_fill_the_memory_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text('{"format": "x"}')
    monkeypatch.setattr("pud.base.files.MAXIMUM_JSON_BYTES", 10)
    with pytest.raises(InputError, match="15 bytes"):
        read_json(tmp_path / "a.json", "x")


def test_json_without_an_end_of_brackets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"a\.json cannot be read"):
        read_json(tmp_path / "a.json", "x")


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("shape", [(10**13,), (2**62, 4), (2**70,), (-1,)])
def test_an_array_that_claims_more_than_its_file_holds_is_refused(
    shape: tuple[int, ...], mmap: bool, tmp_path: Path
) -> None:
    with (tmp_path / "file.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with pytest.raises(InputError, match=r"file\.npy is corrupt"):
        read_array(tmp_path / "file.npy", np.float64, len(shape), mmap=mmap)


def test_an_array_that_would_fill_the_memory_is_refused_unless_it_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "file.npy", np.zeros(100))
    monkeypatch.setattr("pud.base.files.MAXIMUM_ARRAY_BYTES", 500)
    with pytest.raises(InputError, match="928 bytes"):
        read_array(tmp_path / "file.npy", np.float64, 1)
    assert len(read_array(tmp_path / "file.npy", np.float64, 1, mmap=True)) == 100


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file.npy").open("wb") as file:
        np.savez(file, a=1)
    with pytest.raises(InputError, match="an archive"):
        read_array(tmp_path / "file.npy", np.uint8, 1)


LARGE = np.arange(500_000, dtype=np.float64)
WRITERS: dict[str, Callable[[Path], object]] = {
    "NumPy": lambda folder: np.save(folder / "file", LARGE),
    "safetensors of NumPy": lambda folder: safetensors.numpy.save_file({"a": LARGE}, folder / "file"),
    "safetensors of torch": lambda folder: safetensors.torch.save_file({"a": torch.tensor(LARGE)}, folder / "file"),
    "parquet": lambda folder: pd.DataFrame({"a": LARGE}).to_parquet(folder / "file"),
    "JSON": lambda folder: write_json(folder / "file", {"a": LARGE.tolist()}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_sentence_whatever_writes_and_nothing_is_left(writer: str, small_disk: Path) -> None:
    with (
        pytest.raises(InputError, match=r"out cannot be written: the disk took no more after [\d.]+ MB, and [\d.]+ MB"),
        finished_folder(small_disk / "out", "file") as folder,
    ):
        WRITERS[writer](folder)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "no"), OSError(errno.EDQUOT, "no"), OSError("176000 requested and 0 written")],
    ids=str,
)
def test_an_error_of_a_full_disk_is_known_by_its_number_or_its_words(error: OSError, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the disk took no more"):
        write_half(tmp_path / "out", error)
    with pytest.raises(InputError, match="the disk took no more"), finished_folder(tmp_path / "out", "file"):
        raise RuntimeError("a library's own") from error


def test_another_error_is_not_said_to_be_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        write_half(tmp_path / "out", PermissionError(errno.EACCES, "no"))


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0, 0o666, 0o777)])
def test_the_umask_decides_who_may_read_whatever_wrote_it(umask: int, file: int, folder: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with finished_folder(tmp_path / "out", "file") as out:
            safetensors.numpy.save_file({"a": np.zeros(2)}, out / "file")
            (out / "train").mkdir(mode=0o700)
            (out / "train" / "file").touch(mode=0o600)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out", *(tmp_path / "out").iterdir())}
    assert modes == {"out": folder, "train": folder, "file": file}
    assert stat.S_IMODE((tmp_path / "out/train/file").stat().st_mode) == file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_is_utf_8_with_and_without_a_mark_in_any_locale(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": "x", "name": "\u00e4\u00f6"}', encoding)
    code = "import sys; from pathlib import Path; from pud.base.files import read_json; "
    code += "print(ascii(read_json(Path(sys.argv[1]), 'x')['name']))"
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    done = subprocess.run(command, env=ascii_only, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (r"'\xe4\xf6'", "")
