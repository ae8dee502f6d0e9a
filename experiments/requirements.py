"""What is asked of the measurements: ``requirements.csv``, a row a figure.

cells: which cells it is over. metric, method: a column and an entry of the results; minus: an entry to subtract.
judged: the mean over the cells, or every cell. sign, bound: what it must be; without a bound, 2 %, or 1 point above the
floor where that is more.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from experiments.rows import PLAIN, Grid

TABLE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True)
class Requirement:
    """One row of the table."""

    cells: str
    metric: str
    method: str
    minus: str
    judged: str
    sign: str
    bound: float | None

    @property
    def figure(self) -> str:
        """What is measured, in words."""
        return f"{self.metric}, {self.method}" + (f" minus {self.minus}" if self.minus else "")

    @property
    def asked(self) -> str:
        """What is asked of it, in words."""
        bound = "max(2 %, floor + 1 point)" if self.bound is None else f"{self._scale * self.bound:g}{self._unit}"
        return f"{self.judged} {self.sign} {bound}"

    @property
    def _unit(self) -> str:
        if self.metric in PLAIN:
            return ""
        return " points" if self.minus or self.metric == "RA - ACC" else " %"

    @property
    def _scale(self) -> int:
        return 1 if self.metric in PLAIN else 100

    def text(self, value: float) -> str:
        """Return a value with its unit."""
        digits = {"AUROC": 4}.get(self.metric, 0 if self.metric in PLAIN else 2)
        return f"{self._scale * value:.{digits}f}{self._unit}"

    def values(self, grid: Grid) -> pd.Series:
        """Return what was measured in every cell, NaN where nothing was."""
        if self.minus:
            return grid.difference(self.metric, self.method, self.minus)
        return grid.value(self.metric, self.method)

    def limits(self, grid: Grid) -> pd.Series:
        """Return the bound of every cell."""
        floor = (grid.value("ASR", "floor").fillna(0) + 0.01).clip(lower=0.02)
        return floor if self.bound is None else pd.Series(self.bound, floor.index)

    def excess(self, values: pd.Series, limits: pd.Series) -> pd.Series:
        """Return how far each of some cells is beyond its bound, below 0 where it keeps to it."""
        return (values - limits[values.index]) * (1 if "<" in self.sign else -1)

    @property
    def slack(self) -> float:
        """The excess up to which the requirement is met: rounding, on the side of the sign."""
        return 1e-9 if "=" in self.sign else -1e-9

    def is_met(self, excess: pd.Series) -> bool:
        """Tell whether the requirement is met by some of the cells."""
        return bool((excess.mean() if self.judged == "mean" else excess.max()) <= self.slack)


def requirements() -> list[Requirement]:
    """Return the rows of the table."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [Requirement(**row) for row in csv.DictReader(file)]  # type: ignore[arg-type]
    return [replace(row, bound=float(row.bound) if row.bound else None) for row in rows]
