"""How fast a purified model learns its backdoor again."""

from pathlib import Path

from experiments.plan import BOUNDS, DEFAULT
from experiments.rows import Grid
from experiments.tables import means


def relearning(grid: Grid, folder: Path) -> str:
    """Return a row for each method, over the cells that ours and both bounds were measured on."""
    entries = grid.select("entry")
    amounts = sorted((key for key in entries if key.startswith("after ")), key=lambda key: float(key.split()[1]))
    taught = entries.dropna(subset=amounts, how="all") if amounts else entries[:0]
    shared = taught[taught["method"].isin([DEFAULT, *BOUNDS])].groupby("method")["cell"].agg(set)
    taught = taught[taught["cell"].isin(set.intersection(*shared) if len(shared) else set())]
    return means(taught, ["method"], ["ASR", *amounts])


SECTIONS = {"relearning": relearning}
