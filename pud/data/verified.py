"""Digests of large files, computed once: what was verified stays so until the file changes.

The record lies in the user's cache, never beside the files, which may be a stranger's. It holds size, inode and
times of a file, of which the system sets the last (ctime) whenever the file changes.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pud.base.files import partial_path, sha256

SETTLED_SECONDS = 2.0  # a file that changed later than this before it was read may change again unnoticed


def record_folder() -> Path:
    """Return where verifications are recorded: ``pud/verified`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pud" / "verified"


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, from the record where the file is the same as then.

    Raises:
        InputError: it is missing.
    """
    if not path.is_file():
        return sha256(path)
    before = _state(path)
    record = record_folder() / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(record.read_text())
        if known["state"] == before:
            return str(known["sha256"])
    digest = sha256(path)
    if before == _state(path) and time.time() - before[-1] / 1e9 > SETTLED_SECONDS:
        with suppress(OSError):  # who cannot write there computes it again
            record.parent.mkdir(parents=True, exist_ok=True)
            partial = partial_path(record)
            partial.write_text(json.dumps({"state": before, "sha256": digest}))
            partial.replace(record)
    return digest


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
