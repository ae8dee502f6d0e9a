"""What each cell cost."""

import math
from pathlib import Path

from experiments.plan import PRESETS, REFERENCES
from experiments.rows import LEAD, MISSING, Grid
from experiments.tables import table


def seconds(grid: Grid, folder: Path) -> str:
    """Return a row for each cell: the seconds of each reference and preset, of all ablations and rivals, the sum."""
    rows, columns = grid.rows[grid.rows["what"] == "entry"], [*REFERENCES, *PRESETS, "ablations", "rivals"]
    column = rows["method"].where(rows["method"].isin(columns), rows["kind"] + "s")
    sums = rows.groupby(["cell", column])["seconds"].sum(min_count=1).unstack()
    sums = sums.reindex(index=grid.cells.index, columns=columns)
    sums["sum"] = sums.sum(axis=1, min_count=1)
    lead, texts = [*LEAD, "seed", "state"], sums.map(lambda value: MISSING if math.isnan(value) else f"{value:.0f}")
    return table([*lead, *sums], grid.cells[lead].join(texts).to_numpy().tolist())


SECTIONS = {"seconds": seconds}
