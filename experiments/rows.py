"""What the grid has measured, ``results/*.json``, as two frames: a row a cell, and a row for each thing done to one."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.entries import ENTRIES
from experiments.plan import BOUNDS, DEFAULT, DEFENCE, FORMAT, PRESETS, RATES, REFERENCES, WORKED
from pud.base.files import read_json

KINDS = {"reference": "#444444", "preset": "#2166ac", "ablation": "#e08214", "rival": "#b2182b"}
POISONED, INNOCENT, FAILED, WAITING = "poisoned", "innocent", "attack failed", "not measured"
EPSILON = 8 / 255
CALIBRATION = "calibration.json"  # in the same folder, of the ledger of first runs
MISSING = "–"

LEAD = ["attack", "mapping", "training images", "rate"]
QUALITY, FOUND, DRIFT = (
    ["ACC", "ASR", "RA", "PGD-20", "AutoAttack"],
    ["TPR", "FPR", "AUROC"],
    ["to target", "to triggered", "to clean"],
)
NAMING = ["targets not named", "classes wrongly named"]
SURE = ["covers accused", "calibration error", "confidence"]
SAME, WHITE_BOX = "PGD-20 on the same images", "its attacks by gradients alone"
BESIDE = {"pgd_accuracy": SAME, "white_box_accuracy": WHITE_BOX}
MODEL = "infected model"
DELTAS = [f"Δ {key}" for key in QUALITY]
NUMBERS = [*QUALITY, SAME, WHITE_BOX, *FOUND, *SURE, *DRIFT, *DELTAS, "RA - ACC", *NAMING]
NUMBERS += ["robust", "defence", "seconds", "purify seconds", "defence of purify seconds"]
PLAIN = {
    "seconds": 0,
    "purify seconds": 0,
    "targets not named": 0,
    "classes wrongly named": 0,
    "AUROC": 4,
    **dict.fromkeys([*DRIFT, *SURE[1:]], 3),
}  # digits of what is no percentage
NAMES = {
    "clean_accuracy": "ACC",
    "attack_success_rate": "ASR",
    "recovery_accuracy": "RA",
    "robust_accuracy": "robust",
    "true_positive_rate": "TPR",
    "false_positive_rate": "FPR",
    "auroc": "AUROC",
    "calibration_error": "calibration error",
    "confidence": "confidence",
    "share_to_target": "to target",
    "similarity_to_triggered": "to triggered",
    "similarity_to_clean": "to clean",
    "cover_rate": "covers accused",
    "seconds": "seconds",
}


def load(folder: Path, planned: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the cells in a folder and the planned ones not there yet, sorted by what they are, not by files' names."""
    keys = ("attack", "mapping", "train_images", "poison_rate", "seed")

    def identity(cell: dict[str, Any]) -> list[Any]:
        return [(str(cell[key]) if key == "mapping" else cell[key]) for key in keys]

    cells = [read_json(path, FORMAT) for path in sorted(Path(folder).glob("*.json")) if path.name != CALIBRATION]
    there = [identity(cell) for cell in cells]
    return sorted([*cells, *(cell for cell in planned if identity(cell) not in there)], key=identity)


def flat(entry: dict[str, Any]) -> dict[str, float]:
    """Return what is there of an entry, a round or a detection, under the names of the tables' columns."""
    found = entry.get("detection") or {}
    plain = {**entry, **found, **(entry.get("drift") or {})}
    row = {short: plain.get(long) for long, short in NAMES.items()}
    row |= {f"n {short}": plain.get(f"{long}_n") for long, short in NAMES.items()}
    for record in entry["robust_accuracy"] if isinstance(entry.get("robust_accuracy"), list) else []:
        name = "AutoAttack" if record["attack"] == "AutoAttack" else f"{record['attack']}-{record['steps']}"
        if math.isclose(record["epsilon"], EPSILON, abs_tol=1e-4):
            row |= {name: record["value"], f"n {name}": record["n"]}
            row |= {column: record[key] for key, column in BESIDE.items() if key in record}
    row |= {f"after {amount}": value for amount, value in (entry.get("relearning") or {}).items()}
    row["defence"] = entry.get("defence")
    row |= {f"check: {name.replace('_', ' ')}": held for name, held in (entry.get("masking_checks") or {}).items()}
    if {"true_targets", "target_labels"} <= found.keys():
        true, accused = set(found["true_targets"] or []), set(found["target_labels"] or [])
        row |= {
            "classes wrongly named": len(accused - true),
            "targets not named": len(true - accused) if true else None,
        }
    return {key: float(value) for key, value in row.items() if isinstance(value, (int, float))}


def kind_of(name: str) -> str:
    """Say what an entry is; one that is no longer measured was a rival."""
    return ENTRIES[name].kind if name in ENTRIES else "rival"


def order(name: str) -> tuple[Any, ...]:
    """Sort entries: the default first, then by kind, ablations and rivals by name."""
    known = [DEFAULT, *REFERENCES, *PRESETS, name]
    return known.index(name), list(KINDS).index(kind_of(name)), name


class Grid:
    """All cells as two frames. cells: a row a cell, what it is; rows: a row for each entry, round and detection."""

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        self.mixed = mixed(cells)
        columns = [*LEAD, "seed", "state", "data", "top"]
        self.cells = pd.DataFrame([self._identity(cell) for cell in cells], columns=columns)
        rows = [{"cell": number, **row} for number, cell in enumerate(cells) for row in self._rows(cell)]
        rows.sort(key=lambda row: (order(row["method"]), row["round"]))
        texts = ["cell", "what", "method", "kind", "round", MODEL]
        extra = sorted({key for row in rows for key in row} - {*texts, *NUMBERS})
        frame = pd.DataFrame(rows, columns=[*texts, *NUMBERS, *extra]).astype(dict.fromkeys([*NUMBERS, *extra], float))
        self.rows = frame.join(self.cells[["attack", "mapping", "state", "data", "top"]], on="cell")
        self._entries = dict(self.rows[self.rows["what"] == "entry"].groupby("method").groups)  # their rows' labels
        self.rows["RA - ACC"] = self.rows["RA"] - self.rows["ACC"]
        comparable = self.rows["method"] != DEFAULT
        for key in ("defence", MODEL):
            own, ours = self.rows[key], self.rows["cell"].map(self.value(key, DEFAULT))
            comparable &= own.isna() | ours.isna() | (own == ours)
        for key in QUALITY:
            ours = self.rows["cell"].map(self.value(key, DEFAULT))
            self.rows[f"Δ {key}"] = (self.rows[key] - ours).where(comparable)

    @staticmethod
    def _identity(cell: dict[str, Any]) -> list[Any]:
        rate, unit = cell["poison_rate"], " of the class" if cell["rate_of"] == "target class" else ""
        success = ((cell.get("entries") or {}).get("infected") or {}).get("attack_success_rate")
        state = WAITING if success is None else POISONED if success >= WORKED else FAILED
        data = INNOCENT if rate == 0 else "clean label" if cell["clean_label"] else "labels changed"
        top = rate == 0 or math.isclose(rate, RATES[cell["rate_of"]][0])
        lead = [cell["attack"], cell["mapping"] or MISSING, f"{cell['train_images']:,}", f"{rate:g}{unit}"]
        return [*lead, str(cell["seed"]), INNOCENT if rate == 0 else state, data, top]

    @staticmethod
    def _rows(cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
        found, cost = dict(cell.get("detectors") or {}), cell.get("cost") or {}
        for name, entry in (cell.get("entries") or {}).items():
            row = {"method": name, "kind": kind_of(name)}
            row[MODEL] = None if name in BOUNDS else (entry or {}).get("infected_model")
            if entry:
                spent = {"purify seconds": cost.get(name), "defence of purify seconds": cost.get("defence")}
                yield {**row, "what": "entry", "round": 0, **flat(entry), **spent}
                own = "pud" if name == DEFAULT else f"pud, {name}"
                found[own] = entry.get("detection")
            for number, one in enumerate((entry or {}).get("rounds") or []):
                yield {**row, "what": "round", "round": number, **flat(one)}
                if name == DEFAULT and number == 0:
                    found["pud, infected model alone"] = one.get("detection")
        for name, one in found.items():
            if one:
                yield {"method": name, "kind": "", "what": "detector", "round": 0, **flat({"detection": one})}

    def select(self, what: str, *states: str) -> pd.DataFrame:
        """Return the entries, rounds or detections of the cells that go into means: poisoned, if no state is said."""
        return self.rows[(self.rows["what"] == what) & self.rows["state"].isin(states or [POISONED])]

    def value(self, key: str, name: str) -> pd.Series:
        """Return a column of the entry of this name for every cell, NaN where it is not there."""
        found = self.rows[key].loc[self._entries.get(name, [])]
        return found.set_axis(self.rows["cell"].loc[found.index]).reindex(self.cells.index)

    def difference(self, key: str, name: str, minus: str) -> pd.Series:
        """Return a column of one entry minus that of another, NaN where they are not of one infected model."""
        one, other = self.value(MODEL, name), self.value(MODEL, minus)
        unlike = one.notna() & other.notna() & (one != other)
        return (self.value(key, name) - self.value(key, minus)).mask(unlike)

    def is_present(self, key: str, name: str) -> pd.Series:
        """Tell for every cell whether a column of the entry of this name is there and not of an older defence."""
        mark = f"defence of {key}" if f"defence of {key}" in self.rows else "defence"
        return self.value(key, name).notna() & self.value(mark, name).fillna(DEFENCE).eq(DEFENCE)

    def title(self, number: int) -> str:
        """Name a cell."""
        attack, mapping, images, rate, seed = self.cells.loc[number, [*LEAD, "seed"]]
        return f"{attack}, {mapping}, {rate} of {images}, seed {seed}"


def mixed(cells: list[dict[str, Any]]) -> str:
    """Name the cells whose entries are not all of one training of the infected model, as far as that was recorded."""
    names = []
    for cell in cells:
        entries = {**(cell.get("entries") or {}), **(cell.get("detectors") or {})}
        own = [one for name, one in entries.items() if one and name not in BOUNDS]
        known = {one.get("infected_model") for one in own} - {None}
        if len(known) > 1:
            names.append(f"{cell['attack']}, {cell['mapping']}, {cell['poison_rate']:g}, seed {cell['seed']}")
    return "; ".join(names)
