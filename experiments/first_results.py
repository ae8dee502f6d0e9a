"""Write docs/first-runs.md from results/ledger.jsonl: first runs, every cell of them, and later runs apart.

python -m experiments.first_results
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import ledger
from experiments.first_runs_cells import INNOCENT, planned
from experiments.rows import MISSING, flat
from experiments.splits import DEVELOPMENT, EVALUATION, PICTURES
from experiments.tables import naming, table

OUT = Path("docs/first-runs.md")
DRAWS = 2_000
MEASURED = ["ACC", "ASR", "RA", "PGD-20", "AutoAttack", "TPR", "FPR", "AUROC", "confidence"]  # of rows.flat
GIVEN = ["ACC before", "ASR before", "floor", "maximum", "ACC of triggered", "accused", "seconds"]
NAMING = ["targets not named", "classes wrongly named"]
WHAT = ["pictures", "network", "attack", "mapping", "rate", "target", "seed", "defence"]
JOINT = ["ACC before", "ACC", "ASR before", "ASR", "floor", "maximum", "ACC of triggered", "RA", "PGD-20", "AutoAttack"]
JOINT += ["TPR", "FPR", "AUROC", "seconds"]
SAID = [
    "pictures",
    "network",
    "innocent set",
    "seed",
    "defence",
    "verdict",
    "confidence",
    "accused",
    "ACC before",
    "ACC",
]
DIGITS = {"AUROC": (1, 3), "confidence": (1, 3), "seconds": (1, 0)}  # what it is multiplied with, and its digits
PAGE = """\
Made from `results/ledger.jsonl` by `python -m experiments.first_results`: do not edit.

# First runs

{state}

A first run is what a defence did on a cell that it had never seen. Every one is here, none is dropped, whatever the
attack or the defence came to; what was run again after a look at that stands at the end. What evaluation may use and
what development may is in `experiments/splits.py`; every row of the ledger has the digests of the source files that
decided, its commit, its settings, its device and the number of images behind each figure.

ACC: clean accuracy; ASR: attack success rate, beside its floor (of a network trained plainly on the same images before
the attack) and its attainable maximum (all, where the trigger alone decides; where the true label does too, what the
infected model knows of these images without the trigger); RA: triggered images classified as what they truly are,
beside ACC of triggered: the same images without the trigger; before: of the infected model; PGD-20, AutoAttack: robust
accuracy at L-infinity 8/255; TPR, FPR, AUROC: of the accused training images after the last round; seconds: of the
defence, without training. In percent, but for AUROC, confidence and seconds; {missing}: not measured.
In brackets: 95 % interval of the mean, triggers and seeds drawn with replacement (pigeonhole bootstrap, {draws} draws);
of few triggers and seeds, whose numbers stand beside the cells, it is too narrow.

## Evaluation: means over attacks

{means}

## Evaluation: every attacked cell

{attacked}

## Evaluation: every innocent cell

{innocent}

## Later runs of evaluation cells: not evidence

{later}

## Development: settings were chosen on these

{development}
"""


def interval(values: np.ndarray, triggers: Sequence[str], seeds: Sequence[int]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of values (n,) whose cells share triggers and seeds, (n,) each.

    Triggers and seeds are drawn with replacement, apart from each other, and a cell counts as often as its trigger and
    its seed were (the pigeonhole bootstrap, Owen 2007). None where there is one of each.
    """
    weights, stream = np.ones((DRAWS, len(values))), np.random.default_rng(0)
    for keys in (triggers, seeds):
        names, code = np.unique(np.asarray(keys), return_inverse=True)
        weights *= stream.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)[:, code]
    weights = weights[weights.sum(1) > 0]
    if (weights == weights[0]).all():
        return None
    low, high = np.quantile(weights @ values / weights.sum(1), (0.025, 0.975))
    return float(low), float(high)


def record(row: ledger.Row) -> dict[str, Any]:
    """Return a ledger's row under the names of the tables' columns."""
    cell, given, found = row["cell"], row["infected"], (row["detections"] or [{}])[-1]
    odd = [f"{name} {cell[name]:g}" for name in ("classes", "noise", "duplicates") if cell[name]]
    odd += [f"imbalance {cell['imbalance']}"] if cell["imbalance"] > 1 else []
    return {
        **flat({**row.get("purified", {}), "detection": found}),
        "use": row["use"],
        "run": row["run"],
        "pictures": cell["data"],
        **{name: cell[name] for name in ("network", "mapping", "seed")},
        "attack": cell["trigger"],
        "innocent set": ", ".join(odd) or "as it is",
        "rate": f"{cell['rate']:g}" + (" of the class" if cell["rate_of"] == "target class" else ""),
        "target": MISSING if cell["target"] is None else cell["target"],
        "defence": row["defence"]["name"],
        "verdict": f"failed: {row['failed']}" if "failed" in row else found["verdict"],
        "ACC before": given["clean_accuracy"],
        "ASR before": given["attack_success_rate"],
        "floor": row.get("floor", {}).get("attack_success_rate"),
        "maximum": given["attack_success_maximum"],
        "ACC of triggered": row.get("purified", {}).get("clean_accuracy_of_triggered"),
        "accused": found["accused_images"] / cell["images"] if found else None,
        "seconds": sum(spent for step, spent in row["seconds"].items() if step != "train"),
        "commit": row["commit"][:7] + ("" if row["clean_tree"] else " and changes"),
        "device": row["device"],
    }


def frame(rows: list[ledger.Row]) -> pd.DataFrame:
    """Return the rows of a ledger as a frame in which every column of the tables is."""
    numbers, texts = [*MEASURED, *GIVEN, *NAMING], [*WHAT, "use", "run", "innocent set", "verdict", "commit", "device"]
    records = pd.DataFrame([record(row) for row in rows], columns=[*dict.fromkeys([*texts, *numbers])])
    return records.astype(dict.fromkeys(numbers, float))


def number(value: float, column: str) -> str:
    """Return a figure as it is shown."""
    scale, digits = DIGITS.get(column, (100, 1))
    return MISSING if np.isnan(value) else f"{scale * value:.{digits}f}"


def mean(rows: pd.DataFrame, column: str) -> str:
    """Return the mean of a column with its interval, and n where some rows lack it."""
    known = rows.dropna(subset=column)
    if known.empty:
        return MISSING
    values = known[column].to_numpy()
    text, limits = number(values.mean(), column), interval(values, known["attack"], known["seed"])
    text += f" [{number(limits[0], column)}, {number(limits[1], column)}]" if limits else ""
    return text + (f" (n={len(known)})" if len(known) < len(rows) else "")


def means(rows: pd.DataFrame) -> str:
    """Return a row for each set of pictures, network, defence and rate."""
    lines, keys = [], ["pictures", "network", "defence", "rate"]
    for values, group in rows.groupby(keys, sort=False):
        cells = f"{len(group)} ({group['attack'].nunique()} triggers, {group['seed'].nunique()} seeds)"
        lines.append([*map(str, values), cells, naming(group), *(mean(group, column) for column in JOINT)])
    return table([*keys, "cells", "targets named", *JOINT], lines)


def each(rows: pd.DataFrame, columns: list[str]) -> str:
    """Return a row for each row."""
    cells = [[row[name] for name in columns] for _, row in rows.iterrows()]
    lines = [
        [number(one, name) if isinstance(one, float) else str(one) for one, name in zip(line, columns, strict=True)]
        for line in cells
    ]
    return table(columns, lines)


def page(rows: list[ledger.Row]) -> str:
    """Return the page of a ledger."""
    known, wanted = frame(rows), len(planned(EVALUATION))
    innocent, evaluated, first = known["attack"] == INNOCENT, known["use"] == EVALUATION, known["run"] == 1
    begun = known[evaluated & first]
    cells = len(begun[["pictures", "network", "attack", "mapping", "rate", "innocent set", "seed"]].drop_duplicates())
    what = "; ".join(f"{name}: {one.what}" for name, one in PICTURES.items())
    everything = [*WHAT, "verdict", *JOINT, "device", "commit"]
    return PAGE.format(
        state=f"Evaluation cells with a first run: {cells} of {wanted} that are planned. Pictures: {what}.",
        missing=MISSING,
        draws=f"{DRAWS:,}",
        means=means(begun[~innocent[begun.index]]),
        attacked=each(known[evaluated & first & ~innocent], everything),
        innocent=each(known[evaluated & first & innocent], [*SAID, "device", "commit"]),
        later=each(known[evaluated & ~first], ["run", *everything]),
        development=each(known[known["use"] == DEVELOPMENT], ["run", *everything]),
    )


def main() -> None:
    """Write the page of what is run so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", type=Path, default=ledger.LEDGER)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.write_text(page(ledger.read(options.ledger)), "utf-8")


if __name__ == "__main__":
    main()
