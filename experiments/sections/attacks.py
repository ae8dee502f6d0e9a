"""Our defence attack by attack: at the highest rate over all seeds, at other rates cell by cell."""

from pathlib import Path

import pandas as pd

from experiments.pictures import drawing, picture
from experiments.plan import DEFAULT, REFERENCES
from experiments.rows import FAILED, FOUND, LEAD, MISSING, NAMING, QUALITY, WAITING, Grid
from experiments.tables import naming, spread, table


def models(grid: Grid, cells: pd.DataFrame, keys: list[str], *, pooled: bool) -> str:
    """Return a row for each group of cells: the models' quality one below the other, and what detection found."""
    names, lines = [*REFERENCES, DEFAULT], []
    for values, group in cells.groupby(keys, sort=False):
        lost = group["state"][group["state"].isin([FAILED, WAITING])]
        held = group.drop(lost.index) if pooled else group
        quality = ["<br>".join(spread(grid.value(key, name)[held.index]) for name in names) for key in QUALITY]
        found = pd.DataFrame({key: grid.value(key, DEFAULT)[held.index] for key in [*FOUND, *NAMING]})
        rest = group["seed"].groupby(lost, sort=False).agg(", ".join)
        seeds = "; ".join([", ".join(held["seed"]) or MISSING, *(f"{state}: {those}" for state, those in rest.items())])
        start = [*map(str, values), *([seeds] if pooled else [])]
        lines.append([*start, "<br>".join(names), *quality, *(spread(found[key]) for key in FOUND), naming(found)])
    return table([*keys, *(["seeds"] if pooled else []), "model", *QUALITY, *FOUND, "named"], lines)


def counts(grid: Grid, cells: pd.Index) -> str:
    """Say over how many images each column was measured."""
    rows, texts = grid.rows[grid.rows["cell"].isin(cells)], []
    for key in [*QUALITY, "TPR", "FPR"]:
        found = sorted(set(rows[f"n {key}"].dropna()) - {0}) if f"n {key}" in rows else []
        texts += [f"{key} {found[0]:,.0f}" + (f" to {found[-1]:,.0f}" if len(found) > 1 else "")] if found else []
    return f"Number of images: {'; '.join(texts) or MISSING}."


def draw_attacks(rows: pd.DataFrame, path: Path) -> None:
    """Draw attack success and recovery of each attack: infected, purified, retrained on clean images."""
    groups = rows.groupby([rows["attack"] + "\n" + rows["mapping"], "method"])
    colours = {"infected": "#b2182b", DEFAULT: "#2166ac", "floor": "#999999"}
    with drawing(path, 2, 9 + rows["attack"].nunique() / 2, {}) as axes:
        for axis, key in zip(axes, ["ASR", "RA"], strict=True):
            moments = groups[key].mean(), groups[key].std()
            height, error = (100 * one.unstack().reindex(columns=colours) for one in moments)
            height.plot.bar(ax=axis, yerr=error.fillna(0), color=colours, legend=False, width=0.8)
            axis.set(xlabel="", ylabel=f"{key}, %", ylim=(0, 105))
            axis.tick_params(axis="x", labelrotation=90, labelsize="small")


def bars(grid: Grid, folder: Path) -> str:
    """Show attack success and recovery at the highest rate."""
    entries, top = grid.select("entry"), grid.cells.index[grid.cells["top"].astype(bool)]
    rows = entries[entries["cell"].isin(top) & entries["method"].isin(["infected", DEFAULT, "floor"])]
    return picture(draw_attacks, rows, folder / "attacks.svg", "Attack success and recovery accuracy by attack.")


def cells_at(grid: Grid, *, highest: bool) -> pd.DataFrame:
    """Return the cells at the highest rate of their attack, or the others."""
    return grid.cells[grid.cells["top"].astype(bool) == highest]


SECTIONS = {
    "image counts at the highest rate": lambda grid, folder: counts(grid, cells_at(grid, highest=True).index),
    "attacks at the highest rate": lambda grid, folder: models(grid, cells_at(grid, highest=True), LEAD, pooled=True),
    "attacks, drawn": bars,
    "image counts at other rates": lambda grid, folder: counts(grid, cells_at(grid, highest=False).index),
    "attacks at other rates": lambda grid, folder: models(
        grid, cells_at(grid, highest=False), [*LEAD, "seed", "state"], pooled=False
    ),
}
