"""Detectors beside ours."""

from pathlib import Path

from experiments.rows import FOUND, INNOCENT, POISONED, SURE, Grid
from experiments.tables import means


def detectors(grid: Grid, folder: Path) -> str:
    """Return a row for each detector on each kind of data."""
    rows = grid.select("detector", POISONED, INNOCENT).sort_values("data", kind="stable")
    return means(rows, ["data", "method"], [*FOUND, *SURE, "named", "seconds"])


SECTIONS = {"detectors": detectors}
