"""Which of the requirements are met, over all cells and over those of the present defence."""

from pathlib import Path

import pandas as pd

from experiments.plan import AUTOATTACKED, BEYOND, COSTED, DEFAULT, REFERENCES
from experiments.requirements import Requirement, requirements
from experiments.rows import FAILED, INNOCENT, MISSING, POISONED, WAITING, Grid
from experiments.tables import table


def sets_of_cells(grid: Grid) -> dict[str, pd.Series]:
    """Return by name over which cells a figure is asked: bool, a value a cell."""
    state, adaptive = grid.cells["state"], grid.cells["attack"].str.startswith("adaptive-consistency")
    beyond = grid.cells["attack"] == BEYOND
    defended = state.isin([POISONED, WAITING]) & ~beyond
    sets = {"other attacks": ~adaptive, "adaptive-consistency": adaptive}
    sets |= {data: grid.cells["data"] == data for data in ("labels changed", "clean label")}
    sets = {name: chosen & defended for name, chosen in sets.items()}
    return sets | {POISONED: defended, INNOCENT: state == INNOCENT, BEYOND: beyond & (state != FAILED)}


def better_than_rivals(grid: Grid) -> list[Requirement]:
    """Return that the default preset has on average the lower attack success and higher recovery than each rival."""
    entries = grid.select("entry")
    rivals = list(entries["method"][entries["kind"] == "rival"].unique()) or ["rivals"]
    signs = (("ASR", "<"), ("RA", ">"))
    return [Requirement(POISONED, key, DEFAULT, name, "mean", sign, 0.0) for name in rivals for key, sign in signs]


def planned_on(grid: Grid, wanted: Requirement) -> pd.Series:
    """Tell on which cells the grid measures a figure: on all, on those of seed 0, or on a few of these."""
    first = grid.cells["top"] & (grid.cells["seed"] == "0")
    if few := {"AutoAttack": AUTOATTACKED, "purify seconds": COSTED}.get(wanted.metric):
        return first & grid.cells[["attack", "mapping"]].apply(tuple, axis=1).isin(few)
    everywhere = {"", DEFAULT, *REFERENCES}.issuperset([wanted.method, wanted.minus])
    return first | (grid.cells["state"] == INNOCENT) | everywhere


def row(grid: Grid, wanted: Requirement, chosen: pd.Series) -> list[str]:
    """Return a figure's row; chosen: bool, on which cells it is asked."""
    start = [wanted.figure, wanted.cells, wanted.asked]
    values = wanted.values(grid).where(grid.cells["state"] != WAITING)[chosen]
    values = values[values.notna() | planned_on(grid, wanted)[values.index]]
    known = values.dropna()
    if known.empty:
        return [*start, MISSING, MISSING, MISSING, MISSING, f"0 of {len(values)}", WAITING]
    limits = wanted.limits(grid)
    excess = wanted.excess(known, limits)
    present = known[grid.is_present(wanted.metric, wanted.method)[known.index]]
    parts = [part for part in (excess, excess[present.index]) if len(part)]
    worst = excess.idxmax()
    bound = "" if wanted.bound is not None else f", bound {wanted.text(limits[worst])}"
    verdict = "pass" if len(known) == len(values) else f"pass on {len(known)} of {len(values)}"
    return [
        *start,
        wanted.text(known.mean()),
        f"{wanted.text(present.mean())} ({len(present)})" if len(present) else MISSING,
        f"{wanted.text(known[worst])}{bound} ({grid.title(worst)})",
        f"{(excess <= wanted.slack).sum()} of {len(known)}",
        f"{len(known)} of {len(values)}",
        verdict if all(map(wanted.is_met, parts)) else "**fail**",
    ]


def asked(grid: Grid, folder: Path) -> str:
    """Return a row for each figure asked for: measured on how many cells, in how many of them met, and the verdict."""
    sets = sets_of_cells(grid)
    rows = [row(grid, wanted, sets[wanted.cells]) for wanted in requirements() + better_than_rivals(grid)]
    header = ["figure", "on", "asked", "mean", "of the present defence", "worst cell", "cells within", "cells measured"]
    return table([*header, "verdict"], rows)


SECTIONS = {"asked": asked}
