"""How often what is said with a confidence is right, from the first runs of the ledger into results/calibration.json.

python -m experiments.calibration

"None found" is right of an innocent cell; an accusation, if every class that it names is one that the backdoor leads
to. What cannot be judged claims nothing. Development and evaluation are told apart. The confidences that the detector
states are made of evaluation: pud/detectors/confidence.json.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import ledger
from experiments.rows import CALIBRATION
from experiments.splits import EVALUATION, SEEDS
from pud.base.files import sha256, write_json
from pud.base.progress import say
from pud.detectors import confidence
from pud.detectors.contract import BACKDOOR, NONE_FOUND

FORMAT = "pud-calibration/1"
OUT = ledger.LEDGER.with_name(CALIBRATION)
EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)  # of the bins of stated confidence
ENOUGH = 20  # cells in a bin, below which it is said that nothing is known
Z = 1.959964  # 95 %


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); all of it where n is 0."""
    if not n:
        return 0.0, 1.0
    share, more = right / n, Z * Z / n
    middle, half = share + more / 2, Z * math.sqrt(share * (1 - share) / n + more / n / 4)
    return max(0.0, (middle - half) / (1 + more)), min(1.0, (middle + half) / (1 + more))


def even(right: int, of_right: int, wrong: int, of_wrong: int) -> float:
    """Return how likely a claim is right that was so in some of the cells where it can be, and wrong in some others.

    As if there were as many of these: of either kind no more count than of the rarer one. By Laplace's rule of
    succession nothing known is a half, and nothing is certain.
    """
    rarer = min(of_right, of_wrong)
    hits, misses = rarer * right / max(1, of_right), rarer * wrong / max(1, of_wrong)
    return round((hits + 1) / (hits + misses + 2), 2)


def stated(rows: list[ledger.Row]) -> dict[str, Any]:
    """Return how far a detection may be believed where a backdoor is as likely as none, and the cells that tell it.

    From first runs of evaluation, each cell once: its first detection before a round, its last one after rounds.
    """
    before, after = dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
    for row in ledger.first_runs(rows):
        if row["use"] == EVALUATION and row["detections"]:
            before.setdefault(row["cell"]["name"], row["detections"][0])
            if len(row["detections"]) > 1:
                after.setdefault(row["cell"]["name"], row["detections"][-1])
    none, named, counts = [], [], []
    for found in (list(before.values()), list(after.values())):
        innocent, poisoned = ([one for one in found if bool(one["true_targets"]) == has] for has in (False, True))
        counts.append([len(innocent), len(poisoned)])
        missed, spared = (sum(one["verdict"] == NONE_FOUND for one in group) for group in (poisoned, innocent))
        none.append(even(spared, len(innocent), missed, len(poisoned)))
        right = [is_right(one) for one in poisoned if one["target_labels"]]
        wrong = len(right) - sum(right)
        blamed = wrong + sum(bool(one["target_labels"]) for one in innocent)
        named.append(even(sum(right), len(poisoned), blamed, len(innocent) + wrong))
    return {"none_found": none, "named": named, "innocent_and_poisoned_cells": counts}


def is_right(found: dict[str, Any]) -> bool:
    """Tell whether every class that a detection names is one that the backdoor leads to, and some class is named."""
    return bool(found["target_labels"]) and set(found["target_labels"]) <= set(found["true_targets"])


def claims(rows: list[ledger.Row], verdict: str) -> Iterator[tuple[float, bool]]:
    """Yield the confidence in each last detection of this verdict, and whether it was right."""
    for row in rows:
        for found in row["detections"][-1:]:
            if found["verdict"] == verdict:
                yield found["confidence"], is_right(found) if verdict == BACKDOOR else not found["true_targets"]


def binned(said: list[tuple[float, bool]]) -> list[dict[str, Any]]:
    """Return a record for each bin of confidence that was stated: of how many, their mean, and how many were right."""
    confidence, right = np.array([one for one, _ in said]), np.array([one for _, one in said], bool)
    place = np.clip(np.searchsorted(EDGES, confidence, side="right") - 1, 0, len(EDGES) - 2)
    records = []
    for index in np.unique(place):
        chosen = place == index
        n, hits = int(chosen.sum()), int(right[chosen].sum())
        low, high = wilson(hits, n)
        records.append(
            {
                "from": EDGES[index],
                "to": EDGES[index + 1],
                "n": n,
                "stated": round(float(confidence[chosen].mean()), 4),
                "right": round(hits / n, 4),
                "interval": [round(low, 4), round(high, 4)],
                "enough": n >= ENOUGH,
            }
        )
    return records


def calibration(rows: list[ledger.Row]) -> dict[str, Any]:
    """Return the bins by use, defence and verdict, from first runs alone."""
    result: dict[str, Any] = {}
    rows = ledger.first_runs(rows)
    for use in SEEDS:
        for defence in sorted({row["defence"]["name"] for row in rows if row["use"] == use}):
            mine = [row for row in rows if row["use"] == use and row["defence"]["name"] == defence]
            for verdict in (NONE_FOUND, BACKDOOR):
                said = list(claims(mine, verdict))
                about = {"n": len(said), "enough": len(said) >= ENOUGH, "bins": binned(said)}
                result.setdefault(use, {}).setdefault(defence, {})[verdict] = about
    return result


def main() -> None:
    """Write the file, and say what is not known for want of cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=Path, default=ledger.LEDGER)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--confidence", type=Path, default=confidence.FILE)
    options = parser.parse_args()
    rows = ledger.read(options.ledger)
    found = calibration(rows)
    for use in SEEDS:
        for verdict in (NONE_FOUND, BACKDOOR):
            n = sum(by_verdict[verdict]["n"] for by_verdict in found.get(use, {}).values())
            if n < ENOUGH:
                say(f"calibration: {use}, {verdict}: {n} first runs are not enough, {ENOUGH} are needed")
    digest = sha256(options.ledger) if options.ledger.exists() else ""
    write_json(options.out, {"format": FORMAT, "ledger": digest, "enough": ENOUGH, **found})
    write_json(options.confidence, {"format": confidence.FORMAT, "ledger": digest, **stated(rows)})


if __name__ == "__main__":
    main()
