"""Tables of the results page, in Markdown."""

import pandas as pd

from experiments.plan import DEFAULT
from experiments.rows import DELTAS, MISSING, PLAIN, QUALITY, Grid


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, or say that there is nothing to show."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else "Not measured."


def spread(values: pd.Series) -> str:
    """Return mean ± sample standard deviation of a column, with n where some rows lack it."""
    known, digits = values.dropna(), PLAIN.get(str(values.name), 2)
    if known.empty:
        return MISSING
    known = known * (1 if values.name in PLAIN else 100)
    text = f"{known.mean():.{digits}f}" + (f" ± {known.std():.{digits}f}" if len(known) > 1 else "")
    return text + (f" (n={len(known)})" if len(known) < len(values) else "")


def naming(rows: pd.DataFrame) -> str:
    """Say in how many detections every target class was named, and how many other classes were."""
    missed, others = rows["targets not named"].dropna(), int(rows["classes wrongly named"].sum())
    words = [f"{(missed == 0).sum()} of {len(missed)}"] if len(missed) else []
    words += [f"{others} wrongly named"] if others else []
    return ", ".join(words) or ("none" if rows["classes wrongly named"].notna().any() else MISSING)


def means(rows: pd.DataFrame, keys: list[str], columns: list[str]) -> str:
    """Return a table with a row for each group of rows: how many cells, and the spread of each column over them."""
    lines = []
    for values, group in rows.groupby(keys, sort=False):
        texts = [naming(group) if column == "named" else spread(group[column]) for column in columns]
        lines.append([*map(str, values), str(len(group)), *texts])
    return table([*keys, "cells", *columns], lines)


def compared(grid: Grid, *names: str) -> str:
    """Return a row for each method of these kinds or names, and for ours over the same cells."""
    entries = grid.select("entry")
    chosen = entries["kind"].isin(names) | entries["method"].isin(names)
    same = entries["cell"].isin(entries["cell"][chosen])
    return means(entries[chosen | (same & (entries["method"] == DEFAULT))], ["method"], [*QUALITY, *DELTAS, "seconds"])
