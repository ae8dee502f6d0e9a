"""The ledger of runs, ``results/ledger.jsonl``: a line for each run of a cell by a defence, and none is ever changed.

Run 1 is what the defence did on a cell that it had never seen; what comes after a look at that is run 2, 3 and so on.
Every row says which source files decided, by their digests.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from experiments.splits import DIGITS, EVALUATION
from pud.base.errors import InputError
from pud.base.files import sha256
from pud.platform.local_run import git_commit

FORMAT = "pud-ledger/1"
LEDGER = Path("results/ledger.jsonl")
DECIDES = (  # what a row depends on: all of pud but how it is started, told and moved
    *(f"pud/{room}/**/*.py" for room in ("base", "data", "models", "adversarial", "evidence", "detectors", "defences")),
    *(f"pud/{room}/**/*.py" for room in ("attacks", "evaluation", "artifacts", "exchange", "steps")),
    *(f"experiments/{name}.py" for name in ("splits", "first_runs_cells", "first_runs", "ledger", "entries", "plan")),
)
Row = dict[str, Any]


def sources(root: Path) -> dict[str, str]:
    """Return the digest of every source file that decides, by its path from the root."""
    files = {path.relative_to(root).as_posix(): path for pattern in DECIDES for path in root.glob(pattern)}
    return {name: sha256(files[name])[:DIGITS] for name in sorted(files)}


@dataclasses.dataclass(frozen=True)
class Code:
    """What runs. sources: as above; commit; clean_tree: whether the commit holds these very files and no other ones."""

    sources: dict[str, str]
    commit: str
    clean_tree: bool

    @classmethod
    def of(cls, root: Path) -> "Code":
        """Return what lies in a checkout; outside of git no tree is clean."""
        changed = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *_pathspecs())
        return cls(sources(root), git_commit(root), changed == b"")

    @property
    def name(self) -> str:
        """Eight letters that another code would not have."""
        return hashlib.sha256(json.dumps(self.sources).encode()).hexdigest()[:8]

    def still(self, root: Path) -> "Code":
        """Return this, or, where a file that decides has changed since, the same without a clean tree."""
        return dataclasses.replace(self, clean_tree=self.clean_tree and sources(root) == self.sources)


def read(path: Path = LEDGER) -> list[Row]:
    """Return the rows in the order in which they were run; none where there is no ledger yet.

    Raises:
        InputError: a line is no row.
    """
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else [], 1):
        try:
            row = json.loads(line)
            if row["format"] != FORMAT or row["run"] != 1 + sum(key(one) == key(row) for one in rows):
                raise ValueError(f"not the next run of its cell, or not {FORMAT}")
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number} is no row ({error}): restore the file (git checkout)") from error
        rows.append(row)
    return rows


def key(row: Row) -> tuple[str, str]:
    """Return what a run is counted by: the cell's name and the defence's."""
    return row["cell"]["name"], row["defence"]["name"]


def append(row: Row, path: Path = LEDGER) -> Row:
    """Write a row at the end, with the number of its run, and return it; several processes may do so at once.

    Raises:
        InputError: an evaluation cell whose code is in no commit.
    """
    if row["use"] == EVALUATION and not row["clean_tree"]:
        raise InputError(
            f"{row['cell']['name']} is for evaluation, and a file that decides was in no commit, or changed meanwhile: "
            "commit, and run it again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        row = {"format": FORMAT, "run": 1 + sum(key(one) == key(row) for one in read(path)), **row}
        file.write(json.dumps(row, sort_keys=True, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return row


def first_runs(rows: list[Row]) -> list[Row]:
    """Return the rows of cells that their defence had not seen."""
    return [row for row in rows if row["run"] == 1]


def changed_since(root: Path, name: str = LEDGER.as_posix()) -> list[str] | None:
    """Return the commits with which a file no longer begins; None where git knows none, as outside of a checkout."""
    commits = (_git(root, "log", "--format=%H", "--", name) or b"").decode().split()
    now = (root / name).read_bytes() if (root / name).exists() else b""
    held = {commit: _git(root, "show", f"{commit}:{name}") for commit in commits}
    return [commit for commit, then in held.items() if then is not None and not now.startswith(then)] if held else None


def _pathspecs() -> list[str]:
    return [f":(glob){pattern}" for pattern in DECIDES]


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return what git says; None where it fails, or there is no checkout of its own at the root."""
    if not (root / ".git").exists():  # a folder above may be another project's
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
