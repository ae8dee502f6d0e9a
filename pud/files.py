"""Reading files that may be wrong, and writing files that are never half there."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pud.errors import InputError

MAXIMUM_JSON_BYTES = 64 << 20  # an untrusted file must not fill the memory


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    if not path.is_file():
        raise InputError(f"{path} is missing: the folder is incomplete, make it again")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write readable JSON; the same content gives the same bytes."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    partial.replace(path)


def read_json(path: Path, expected_format: str) -> dict[str, Any]:
    """Read a JSON object whose ``format`` is the expected one."""
    try:
        if (size := Path(path).stat().st_size) > MAXIMUM_JSON_BYTES:
            raise InputError(f"{path} holds {size:,} bytes, more than any {expected_format} file: do not use it")
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the step that makes it has not finished, run it again") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): make it again") from error
    if not isinstance(content, dict) or content.get("format") != expected_format:
        raise InputError(f"{path} is not a {expected_format} file: give the folder that the matching step wrote")
    return content


def read_array(path: Path, dtype: type, dimensions: int, *, mmap: bool = False) -> np.ndarray:
    """Read a .npy array without pickle and check its type and number of dimensions."""
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the folder is incomplete, make it again") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is corrupt or not a plain .npy array ({error}): make it again") from error
    if array.dtype != dtype or array.ndim != dimensions:
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}: {np.dtype(dtype)} of {dimensions} dimensions is needed"
        )
    return array


@contextmanager
def finished_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that takes its place only when the block ends without an error."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
