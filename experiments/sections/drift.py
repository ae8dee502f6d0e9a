"""What becomes of a model round by round."""

from pathlib import Path

import pandas as pd

from experiments.pictures import drawing, picture
from experiments.rows import DRIFT, INNOCENT, POISONED, QUALITY, Grid
from experiments.tables import means


def draw_drift(rows: pd.DataFrame, path: Path) -> None:
    """Draw the drift of each method by round, with standard deviations."""
    with drawing(path, len(DRIFT), 12, {"fontsize": "small"}) as axes:
        for axis, key in zip(axes, DRIFT, strict=True):
            for name, group in rows.groupby("method", sort=False):
                rounds = group.groupby("round")[key].agg(["mean", "std"]).fillna({"std": 0})
                axis.errorbar(rounds.index, rounds["mean"], rounds["std"], marker="o", capsize=3, label=name)
            axis.set(xlabel="round", ylabel=key, xticks=sorted(rows["round"].unique()))


def by_round(grid: Grid, folder: Path) -> str:
    """Return a row for each method and round."""
    rows = grid.select("round", POISONED, INNOCENT)
    rows["method"] = rows["method"].where(rows["state"] == POISONED, rows["method"] + ", innocent")
    return means(rows, ["method", "round"], [*QUALITY[:3], "TPR", "FPR", *DRIFT, "seconds"])


def drawn(grid: Grid, folder: Path) -> str:
    """Show the drift of adversarial examples."""
    rows = grid.select("round").dropna(subset=DRIFT, how="all")
    return picture(draw_drift, rows, folder / "drift.svg", "Drift of adversarial examples by round (0: infected).")


SECTIONS = {"drift by round": by_round, "drift, drawn": drawn}
