"""Whether robust accuracy may be believed: checks against masked gradients, and AutoAttack beside PGD."""

from pathlib import Path

from experiments.rows import INNOCENT, POISONED, SAME, WHITE_BOX, Grid
from experiments.tables import means, table


def checks(grid: Grid, folder: Path) -> str:
    """Return a row for each pre-flight check against gradient masking: of how many models of each method it holds."""
    entries = grid.select("entry", POISONED, INNOCENT)
    names = [key for key in entries if key.startswith("check: ")]
    groups = dict(list(entries.dropna(subset=names, how="all").groupby("method", sort=False))) if names else {}
    rows = [[name[7:], *(f"{group[name].sum():.0f} of {len(group)}" for group in groups.values())] for name in names]
    return table(["check", *groups], rows)


def autoattack(grid: Grid, folder: Path) -> str:
    """Return a row for each method on each attack where AutoAttack was run."""
    rows = grid.select("entry").dropna(subset="AutoAttack")
    return means(rows, ["attack", "mapping", "method"], [SAME, WHITE_BOX, "AutoAttack"])


SECTIONS = {"masking checks": checks, "autoattack": autoattack}
