"""Which cells there are, which attacks failed, and which cells hold entries that cannot be compared."""

from pathlib import Path

from experiments.rows import FAILED, INNOCENT, POISONED, WAITING, Grid


def cells(grid: Grid, folder: Path) -> str:
    """Say how many cells are in which state."""
    states = grid.cells["state"]
    said = ", ".join(f"{(states == state).sum()} {state}" for state in (POISONED, INNOCENT, FAILED, WAITING))
    return (
        f"{len(states)} cells, each an infected model: {said}." if len(states) else "No results yet: there is no cell."
    )


def failed(grid: Grid, folder: Path) -> str:
    """Name the cells whose attack failed, with its success."""
    success = (100 * grid.value("ASR", "infected"))[grid.cells["state"] == FAILED]
    names = "; ".join(f"{grid.title(number)} ({value:.1f} %)" for number, value in success.items())
    return f"Attack failed: {names}." if names else ""


def mixed(grid: Grid, folder: Path) -> str:
    """Name the cells with entries of more than one training of the infected model."""
    if not grid.mixed:
        return ""
    return (
        "Entries of more than one training of the infected model, which are not compared with each other until "
        f"`make bench` has measured all on one: {grid.mixed}."
    )


SECTIONS = {"cells": cells, "failed attacks": failed, "mixed cells": mixed}
