"""Presets, ablations and rivals beside ours, and their accuracies in one picture."""

from pathlib import Path

import pandas as pd

from experiments.pictures import drawing, picture
from experiments.rows import KINDS, Grid, kind_of
from experiments.tables import compared


def draw_accuracies(rows: pd.DataFrame, path: Path) -> None:
    """Draw PGD-20 accuracy against clean accuracy, a point for each method: its means over the cells that have both."""
    points = rows.groupby("method", sort=False)
    with drawing(path, 1, 9, {"fontsize": "x-small", "ncols": 1 + len(points) // 25}) as (axis,):
        for index, (name, group) in enumerate(points):
            x, y, marker = 100 * group["ACC"].mean(), 100 * group["PGD-20"].mean(), "osD^vP*X<>"[index % 10]
            label, colour = f"{name} ({len(group)})", KINDS[kind_of(str(name))]
            axis.scatter(x, y, 70, colour, marker=marker, edgecolors="white", label=label)
        axis.set(xlabel="ACC, %", ylabel="PGD-20 accuracy, %")


def accuracies(grid: Grid, folder: Path) -> str:
    """Show each method's robust against its clean accuracy."""
    rows = grid.select("entry").dropna(subset=["ACC", "PGD-20"])
    words = "Robust against clean accuracy (number of cells)."
    return picture(draw_accuracies, rows, folder / "accuracies.svg", words)


SECTIONS = {
    "presets": lambda grid, folder: compared(grid, "reference", "preset"),
    "accuracies, drawn": accuracies,
    "ablations": lambda grid, folder: compared(grid, "ablation", "paper", "aft"),
    "rivals": lambda grid, folder: compared(grid, "rival"),
}
