"""Reading files that may be wrong, and writing files that are never half there."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import tokenize
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pud.base.errors import InputError
from pud.base.progress import FIRST

MAXIMUM_JSON_BYTES = 64 << 20
MAXIMUM_ARRAY_BYTES = 16 << 30
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# of libraries that tell the error in words only; NumPy says how much it could not write and nothing else
SAYS_FULL = re.compile(
    rf"No space left|disk is full|Disk quota exceeded|os error ({'|'.join(map(str, FULL))})\b|requested and \d+ written"
)


def within(path: Path, maximum: int) -> Path:
    """Return the path of a file that may be read whole: an untrusted one must not fill the memory.

    Raises:
        InputError: it holds more than ``maximum`` bytes.
        OSError: it cannot be looked at.
    """
    if (size := path.stat().st_size) > maximum:
        raise InputError(f"{path} holds {size:,} bytes, more than any file of its kind here: do not use it")
    return path


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    if not path.is_file():
        raise InputError(f"{path} is missing: the folder is incomplete, make it again")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write readable JSON; the same content gives the same bytes."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8")
    partial.replace(path)


def read_json(path: Path, expected_format: str, *older: str, **kinds: type) -> dict[str, Any]:
    """Read a JSON object whose ``format`` is the expected one, or an older one, with a value of its kind under each
    name."""
    try:
        content = json.loads(within(Path(path), MAXIMUM_JSON_BYTES).read_text("utf-8-sig"))
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is missing: give the folder that the matching step wrote, or run that step again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): make it again") from error
    if not isinstance(content, dict) or content.get("format") not in (expected_format, *older):
        raise InputError(f"{path} is not a {expected_format} file: give the folder that the matching step wrote")
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise InputError(
                f"{path} has no {name} of type {kind.__name__}: make it again, or write it as docs/usage.md shows"
            )
    return content


def read_array(
    path: Path, dtype: type | None = None, dimensions: int | None = None, *, mmap: bool = False
) -> np.ndarray:
    """Read a .npy array without pickle and check its type and number of dimensions, where they are given.

    It is opened as a map first, which is refused where the header claims more values than the file holds.
    """
    try:
        with np.errstate(over="raise"):
            file = path if mmap else within(Path(path), MAXIMUM_ARRAY_BYTES)
            array = np.load(file, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the folder is incomplete, make it again") from error
    except (OSError, ValueError, TypeError, EOFError, ArithmeticError, RecursionError, tokenize.TokenError) as error:
        raise InputError(f"{path} is corrupt or not a plain .npy array ({error}): make it again") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} is corrupt or not a plain .npy array (but an archive): make it again")
    if array.dtype != (dtype or array.dtype) or array.ndim != (dimensions or array.ndim):
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}: {np.dtype(dtype)} of {dimensions} dimensions is needed"
        )
    return array if mmap else np.array(array)


def partial_path(path: Path) -> Path:
    """Return a new name beside ``path`` for what is not finished, no other process's, not even on another machine."""
    return path.with_name(f"{path.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:12]}")


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; at the end it is gone, unless it was moved to where it belongs."""
    partial = partial_path(Path(path))
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_full(error: BaseException | None) -> bool:
    """Return whether a disk without room is behind an error, whatever library raised it."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or SAYS_FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def room(folder: Path) -> str:
    """Return how much room the disk of a folder has, in words."""
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB"


@contextmanager
def _room_for(path: Path, partial: Path) -> Iterator[None]:
    """Turn a full disk on the way into a sentence; what was written before tells how much is not enough."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not is_full(error):
            raise
        written = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file()) / 1e6
        raise InputError(
            f"{path} cannot be written: the disk took no more after {written:,.1f} MB, and {room(partial)} are free; "
            "nothing of it is left, make more room than both, or name a folder on another disk"
        ) from error


def _share(folder: Path) -> None:
    """Give all that is in a new folder the rights that the umask leaves: some libraries write for their user alone."""
    rights = folder.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(rights if path.is_dir() else rights & 0o666)


@contextmanager
def finished_folder(path: Path, mark: str, *inputs: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that takes its place only when the block ends without an error.

    Args:
        mark: the file in it that tells its kind. Only a folder with this file, or an empty one, is replaced.
        inputs: what it is made from, and must not take the place of.

    Raises:
        InputError: before any work, if something else would be lost.
    """
    if not FIRST:  # of several processes that make the same, the first one writes
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    path = Path(os.path.abspath(path))
    path = path.parent.resolve() / path.name  # a link on the way leads to where an input may be
    for one in inputs:
        if path in (one.resolve(), *one.resolve().parents):
            raise InputError(
                f"{path} cannot be written: {one}, which it is made from, would be lost; name another folder"
            )
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path} is not a folder but a file or a link: name another folder, or remove it")
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        raise InputError(f"{path} holds other things, for {mark} is not in it: name another folder, or remove it")
    with partial_folder(path) as partial:
        with _room_for(path, partial):
            yield partial
        _share(partial)
        if path.is_dir() and any(path.iterdir()):
            with partial_folder(path) as aside:  # the old folder goes only when the new one is in its place
                path.replace(aside)
                try:
                    partial.replace(path)
                except BaseException:
                    aside.replace(path)
                    raise
        else:
            partial.replace(path)
