"""Our defence seed by seed."""

from pathlib import Path

from experiments.plan import BEYOND, DEFAULT
from experiments.rows import POISONED, Grid
from experiments.tables import spread, table


def by_seed(grid: Grid, folder: Path) -> str:
    """Return a row for each seed: what was asked of the default preset, over its poisoned cells."""
    cells = grid.cells[(grid.cells["state"] == POISONED) & (grid.cells["attack"] != BEYOND)]
    columns = {f"{key} - ceiling": grid.difference(key, DEFAULT, "ceiling").rename(key) for key in ("ACC", "PGD-20")}
    columns |= {key: grid.value(key, DEFAULT) for key in ("ASR", "RA - ACC", "TPR", "FPR")}
    present = grid.is_present("ACC", DEFAULT)
    lines = [
        [
            str(seed),
            str(len(group)),
            str(present[group.index].sum()),
            *(spread(values[group.index]) for values in columns.values()),
        ]
        for seed, group in cells.groupby("seed")
    ]
    return table(["seed", "cells", "of the present defence", *columns], lines)


SECTIONS = {"by seed": by_seed}
