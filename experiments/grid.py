"""The grid of experiments behind docs/results.md: every cell an infected model, every entry one thing done to it.

python -m experiments.grid [--minutes N] [--only PATTERN]

What is measured goes to ``results/CELL.json`` at once and is not measured again until the defence changes (``DEFENCE``
in experiments/plan.py) or the infected model is another: the grid can be stopped anywhere and goes on from what is
committed. A cell's entries are of one infected model.
"""

import argparse
import fnmatch
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments import entries, plan
from experiments.entries import CEILING, ERASE, FLOOR, INFECTED, ROBUST, AutoAttacked, Entry
from experiments.plan import Cell, at_rate, highest_rates, innocent, other_rates
from pud.attacks import ATTACKS
from pud.base.device import prepare_process
from pud.base.files import write_json
from pud.base.progress import say
from pud.platform.local_run import git_commit

RESULTS = Path("results")


def grid() -> Iterator[tuple[Cell, Entry]]:
    """Yield (cell, entry) in the order in which they are wanted."""

    def each(cells: Iterable[Cell], *wanted: Entry) -> Iterator[tuple[Cell, Entry]]:
        return ((cell, entry) for cell in cells for entry in wanted)

    def first(attacks: list[tuple[str, str]]) -> list[Cell]:
        return [at_rate(*attack, 0, plan.SEEDS[0]) for attack in attacks]

    cells, later_seeds = highest_rates(plan.SEEDS[0]), (*plan.SEEDS[1:], plan.HELD_OUT_SEED)
    later = [cell for seed in later_seeds for cell in [*highest_rates(seed), innocent(seed)]]
    yield cells[0], CEILING
    yield from each(cells[:3], INFECTED, ROBUST)
    yield from each([innocent(0)], INFECTED, ROBUST, ERASE)
    yield from each(cells[3:], INFECTED, ROBUST)
    yield from each([*cells, innocent(0)], FLOOR)
    yield from each([*cells, innocent(0)], CEILING)
    yield from each(first(plan.AUTOATTACKED), *entries.AUTOATTACKS)
    yield from each(first(plan.COSTED), entries.COST)
    yield from each([*map(innocent, (plan.SEEDS[0], *later_seeds)), *cells], ERASE)
    yield from each(cells, *entries.RIVAL_DETECTORS, *entries.OUR_DETECTORS)
    yield from each(cells, *entries.RIVAL_REPAIRS)
    yield from each(first(plan.ABLATED), *entries.ABLATIONS, entries.RETRAIN, entries.PAPER, entries.AFT)
    yield from each(cells, entries.FILTERED)
    yield from each([*later, *other_rates()], INFECTED, ROBUST, FLOOR, CEILING)
    yield from each(cells[1:], entries.RETRAIN, entries.PAPER, entries.AFT)


def record(cell: Cell, entry: Entry) -> None:
    """Measure an entry into the cell's file, and before it what its record belongs to.

    The file is read after measuring: another process may have written to it meanwhile.
    """
    if isinstance(entry, AutoAttacked) and not is_done(cell, entry.of, cell.load(RESULTS)):
        record(cell, entry.of)
    value = entry.measure(cell) | {"commit": git_commit(Path.cwd()), "infected_model": _digest(cell)}
    content = cell.load(RESULTS)
    entry.keep(content, value | ({"defence": plan.DEFENCE} if entry.ours else {}))
    write_json(RESULTS / f"{cell.name}.json", content)


def _digest(cell: Cell) -> str | None:
    """Return which training of the infected model lies in the cell's folder."""
    card = cell.folder / "infected/model.json"
    return str(json.loads(card.read_text())["sha256"]) if card.exists() else None


def is_done(cell: Cell, entry: Entry, content: dict[str, Any]) -> bool:
    """Tell whether a cell's content holds an entry, of the present defence and of the infected model of the others."""
    known = entry.known(content)
    if known is None or known.get("defence", plan.DEFENCE) != plan.DEFENCE:
        return False
    model = _digest(cell) or content["entries"].get(plan.DEFAULT, known).get("infected_model")
    return entry.bound or known.get("infected_model") == model


def is_needless(cell: Cell, entry: Entry, content: dict[str, Any]) -> bool:
    """Tell whether the cell's attack failed, so that there is nothing to defend against."""
    success = (INFECTED.known(content) or {}).get("attack_success_rate", 1.0)
    return bool(cell.rate) and success < plan.WORKED and entry.name != INFECTED.name


def main() -> None:
    """Fill the grid for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after the entry that passes this")
    parser.add_argument("--only", default="*", help="pattern of CELL/ENTRY, such as 'wanet*/robust'")
    options = parser.parse_args()
    prepare_process()
    RESULTS.mkdir(exist_ok=True)
    started = time.monotonic()
    wanted = [(c, e) for c, e in dict.fromkeys(grid()) if fnmatch.fnmatch(f"{c.name}/{e.name}", options.only)]
    for number, (cell, entry) in enumerate(wanted, 1):
        content = cell.load(RESULTS)
        if is_done(cell, entry, content) or is_needless(cell, entry, content):
            continue
        if time.monotonic() - started > 60 * options.minutes:
            say(f"bench: time is up before {cell.name}, {entry.name}: run it again to go on")
            return
        ATTACKS.find(cell.attack)
        say(f"bench {number} of {len(wanted)}: {cell.name}, {entry.name}")
        record(cell, entry)


if __name__ == "__main__":
    main()
