"""What no run needs any more: output that a dead process left half done, cached results and data older than asked."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pud.base.errors import InputError

CACHE, PARTIAL = ".cache", ".partial-"
DATA = re.compile(r"[0-9a-f]{32}(\.dir)?")  # digests, as pud.artifacts.storage names what it keeps
PARTIAL_DAYS = 1  # in a cache that pods share, where a process number says nothing
KEPT = ("report.json", "untracked.json")  # who has these has the record of a run


@dataclass(frozen=True)
class Waste:
    """A file or folder that can go. bytes: what that frees."""

    path: Path
    reason: str
    bytes: int


def find(runs: Path, days: float) -> list[Waste]:
    """Return what can go from a folder of runs.

    That is: output folders of processes that are no more; entries of the task cache that are unreadable, older than
    ``days`` or whose files are gone; and the task outputs that only such entries name, but for reports.

    Raises:
        InputError: there is no such folder.
    """
    if not runs.is_dir():
        raise InputError(f"{runs} is no folder: give the folder of the runs, --runs")
    waste = [_waste(path, "left half done") for path in runs.rglob(f"*{PARTIAL}*") if not _alive(path)]
    old, needed = [], set[Path]()
    for entry in sorted((runs / CACHE).glob("*.json")):
        try:
            outputs = set(_files(json.loads(entry.read_text())))
        except ValueError:
            waste.append(_waste(entry, "cache entry, unreadable"))
            continue
        missing = any(not path.exists() for path in outputs)
        if missing or time.time() - entry.stat().st_mtime > days * 86_400:
            old.append((entry, outputs, "names files that are gone" if missing else f"older than {days:g} days"))
        else:
            needed |= outputs
    for entry, outputs, reason in old:
        waste.append(_waste(entry, f"cache entry, {reason}"))
        gone = (path for path in outputs - needed if path.exists() and runs.resolve() in path.resolve().parents)
        waste += [_waste(path, f"task output, {reason}") for path in gone if not _is_record(path)]
    return list({one.path: one for one in waste}.values())


def find_data(cache: Path, days: float) -> list[Waste]:
    """Return what can go from a cache of data sets (pud.artifacts.storage): what was left half done, what is too old.

    Raises:
        InputError: there is no such folder.
    """
    if not cache.is_dir():
        raise InputError(f"{cache} is no folder: give the folder of the data, --data-cache")
    waste = []
    for path in sorted([*cache.iterdir(), *(cache / "objects").glob("*")]):
        age = (time.time() - path.stat().st_mtime) / 86_400
        if PARTIAL in path.name and age > PARTIAL_DAYS:
            waste.append(_waste(path, "left half done"))
        elif DATA.fullmatch(path.name) and age > days:
            waste.append(_waste(path, f"data older than {days:g} days"))
    return waste


def remove(waste: list[Waste]) -> None:
    """Remove what ``find`` found."""
    for one in waste:
        if one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            one.path.unlink(missing_ok=True)


def _files(content: Any) -> Iterator[Path]:
    """Yield the local paths that a cache entry names, wherever in it."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "uri" and isinstance(value, str) and value.startswith("/"):
                yield Path(value)
            else:
                yield from _files(value)
    elif isinstance(content, list):
        for value in content:
            yield from _files(value)


def _is_record(path: Path) -> bool:
    return any((path / name).exists() for name in KEPT)


def _alive(path: Path) -> bool:
    number = path.name.partition(PARTIAL)[2].partition("-")[0]
    return not number.isdigit() or Path(f"/proc/{number}").exists() or (os.name != "posix")


def _waste(path: Path, reason: str) -> Waste:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return Waste(path, reason, sum(file.stat().st_size for file in files))
