"""Write docs/results.md and its figures from the grid's cells: one ``results/*.json`` for each infected model.

python -m experiments.results
"""

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from experiments.plan import AUTOATTACKED, BEYOND, COSTED, DEFENCE, FORMAT, RATES, all_cells
from pud.base.files import read_json

DEFAULT = "robust"
FILTER = "filter, then adversarial training"
BOUNDS = ["floor", "ceiling"]
REFERENCES, PRESETS = ["infected", *BOUNDS], ["robust", "erase", "paper", "aft"]
KINDS = {"reference": "#444444", "preset": "#2166ac", "ablation": "#e08214", "rival": "#b2182b"}
POISONED, INNOCENT, FAILED, WAITING = "poisoned", "innocent", "attack failed", "not measured"
WORKED = 0.8  # attack success of the infected model from which there is something to defend against
EPSILON = 8 / 255
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

# (on which cells, column, of which entry, minus which, what is judged, sign, bound; None: 2 % or the floor + 1 point)
ASKED: list[tuple[str, str, str, str, str, str, float | None]] = [
    ("other attacks", "ASR", DEFAULT, "", "every cell", "<=", None),
    ("adaptive-consistency", "ASR", DEFAULT, "", "every cell", "<=", 0.10),
    (BEYOND, "ASR", DEFAULT, "", "every cell", "<=", None),
    (BEYOND, "RA - ACC", DEFAULT, "", "every cell", ">=", -0.06),
    (BEYOND, "TPR", DEFAULT, "", "every cell", ">=", 0.95),
    (BEYOND, "targets not named", DEFAULT, "", "every cell", "<=", 0),
    (POISONED, "RA - ACC", DEFAULT, "", "mean", ">=", -0.02),
    (POISONED, "RA - ACC", DEFAULT, "", "every cell", ">=", -0.06),
    (POISONED, "ACC", "erase", "infected", "mean", ">=", -0.01),
    (POISONED, "ACC", "robust", "ceiling", "mean", ">=", -0.01),
    (POISONED, "PGD-20", "robust", "ceiling", "mean", ">=", -0.02),
    (POISONED, "AutoAttack", "robust", "ceiling", "mean", ">=", -0.02),
    ("labels changed", "TPR", DEFAULT, "", "mean", ">=", 0.98),
    ("labels changed", "FPR", DEFAULT, "", "mean", "<=", 0.005),
    ("labels changed", "TPR", DEFAULT, "", "every cell", ">=", 0.95),
    ("labels changed", "targets not named", DEFAULT, "", "every cell", "<=", 0),
    ("clean label", "AUROC", DEFAULT, "", "every cell", ">=", 0.95),
    ("clean label", "targets not named", DEFAULT, "", "every cell", "<=", 0),
    (INNOCENT, "ACC", "erase", "infected", "every cell", ">=", -0.01),
    (INNOCENT, "FPR", DEFAULT, "", "every cell", "<=", 0.005),
    (INNOCENT, "classes wrongly named", DEFAULT, "", "every cell", "<=", 0),
    (POISONED, "purify seconds", DEFAULT, "ceiling", "mean", "<=", 0),
    (POISONED, "PGD-20", DEFAULT, FILTER, "mean", ">", 0),
    (POISONED, "AutoAttack", DEFAULT, FILTER, "mean", ">", 0),
]

WORDS = f"""\
Fashion-MNIST, 20,000 training images, 10 classes, `resnet8`; attacks at the strengths of `pud/attacks`. {DEFAULT} gets
the infected model and its training set, and nothing else.

ACC: clean accuracy; ASR: attack success rate; RA: recovery accuracy (triggered images, their true labels); PGD-20 and
AutoAttack: robust accuracy at L-infinity 8/255; TPR, FPR, AUROC: of the accused training images. In percent, but for
AUROC; mean ± sample standard deviation, with n where some of the cells lack it; {MISSING}: not measured. infected: as
given; floor: retrained on clean images; ceiling: adversarially trained on clean images, at 8/255; {DEFAULT}: the
default preset, which trains at 9/255 in its last round.
RA is over images that the trigger leads elsewhere, so not of the target class; ACC over all.
An attack failed if the infected model's ASR is below {100 * WORKED:.0f} %: its cell stays out of all means."""

SEEDS_WORDS = """\
Seeds 0 and 1 lead to class 0 and were looked at while the defence was made: settings were chosen by them. Seed 2 leads
each attack to another class; it showed weaknesses of detection and of unlearning, mended, the last since 1b08304. So
did seed 3, the other rates, with yet other classes: four cells were missed before that, and a fifth since
(archive/log.md). Seed 4 repeats these four with other classes; its adaptive blend showed two more, in detection and in
recovery, mended since 925eb43 and 24c689f, and SIG of seed 0 was looked at for what that cost. Seed 5 was planned
before anything of it was run, and run with the defence as it was: input-aware came out with an ASR of 26 % (TPR 82 %),
was mended (379a854) and is shown as measured since; its other cells are first runs. Trained again, three cells of
seeds 0 and 1 that had been found before were not: input-aware (ASR 26 %, TPR 81 %) and one of ten classes, twice, of
Blend all-to-all; mended (b1022f9 and later) and shown as measured since. Of 15 cells of seeds 3 and 4 trained again
after that none was missed. Mean ± sample standard deviation over attacks and rates."""


def load(folder: Path, planned: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the cells in a folder and the planned ones not there yet, sorted by what they are, not by files' names."""
    keys = ("attack", "mapping", "train_images", "poison_rate", "seed")

    def identity(cell: dict[str, Any]) -> list[Any]:
        return [(str(cell[key]) if key == "mapping" else cell[key]) for key in keys]

    cells = [read_json(path, FORMAT) for path in sorted(Path(folder).glob("*.json"))]
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
    """Say what an entry is."""
    known = "reference" if name in REFERENCES else "preset" if name in PRESETS else ""
    return known or ("ablation" if name.startswith("without ") or name == "PBE" else "rival")


def order(name: str) -> tuple[Any, ...]:
    """Sort entries: the default first, then by kind, rivals by name and learning rate."""
    base, rate = match.groups() if (match := re.fullmatch(r"(.*) lr=([\d.e-]*\d)", name)) else (name, "inf")
    known = [DEFAULT, *REFERENCES, *PRESETS, name]
    return known.index(name), list(KINDS).index(kind_of(name)), base, float(rate), name


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
        rows = self.rows[(self.rows["what"] == "entry") & (self.rows["method"] == name)]
        return rows.set_index("cell")[key].reindex(self.cells.index)

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


def planned_on(grid: Grid, key: str, *names: str) -> pd.Series:
    """Tell on which cells the grid measures a figure of these entries: all, those of seed 0, or a few of these."""
    first = grid.cells["top"] & (grid.cells["seed"] == "0")
    if few := {"AutoAttack": AUTOATTACKED, "purify seconds": COSTED}.get(key):
        return first & grid.cells[["attack", "mapping"]].apply(tuple, axis=1).isin(few)
    return first | (grid.cells["state"] == INNOCENT) | {"", DEFAULT, *REFERENCES}.issuperset(names)


def asked(grid: Grid) -> str:
    """Return a row for each figure asked for: measured on how many cells, in how many of them met, and the verdict."""
    state, adaptive = grid.cells["state"], grid.cells["attack"].str.startswith("adaptive-consistency")
    sets = {"other attacks": ~adaptive, "adaptive-consistency": adaptive}
    sets |= {data: grid.cells["data"] == data for data in ("labels changed", "clean label")}
    beyond = grid.cells["attack"] == BEYOND
    defended = state.isin([POISONED, WAITING]) & ~beyond
    sets = {data: chosen & defended for data, chosen in sets.items()}
    sets |= {POISONED: defended, INNOCENT: state == INNOCENT, BEYOND: beyond & (state != FAILED)}
    entries = grid.select("entry")
    rivals = list(entries["method"][entries["kind"] == "rival"].unique()) or ["rivals"]
    signs = [("ASR", "<"), ("RA", ">")]
    wanted = [(POISONED, key, DEFAULT, name, "mean", sign, 0.0) for name in rivals for key, sign in signs]
    lines = []
    for data, key, name, minus, judged, sign, bound in ASKED + wanted:
        unit = "" if key in PLAIN else " points" if minus or key == "RA - ACC" else " %"
        scale, digits = (1, 4 if key == "AUROC" else 0) if key in PLAIN else (100, 2)
        limit = bound if bound is not None else (grid.value("ASR", "floor").fillna(0) + 0.01).clip(lower=0.02)
        values = grid.difference(key, name, minus) if minus else grid.value(key, name)
        values = values.where(state != WAITING)[sets[data]]
        words = f"{judged} {sign} " + (f"{scale * bound:g}{unit}" if bound is not None else "max(2 %, floor + 1 point)")
        line = [f"{key}, {name}" + (f" minus {minus}" if minus else ""), data, words]
        values = values[values.notna() | planned_on(grid, key, name, minus)[values.index]]
        known = values.dropna()
        if known.empty:
            lines.append([*line, MISSING, MISSING, MISSING, MISSING, f"0 of {len(values)}", WAITING])
            continue
        beyond = ((known - limit) * (1 if "<" in sign else -1)).dropna()
        slack = 1e-9 if "=" in sign else -1e-9
        worst, within = beyond.idxmax(), (beyond <= slack).sum()
        present = known[grid.is_present(key, name)[known.index]]
        parts = [part for part in (beyond, beyond[present.index]) if len(part)]
        met = all((part.mean() if judged == "mean" else part.max()) <= slack for part in parts)
        texts = [f"{scale * value:.{digits}f}{unit}" for value in (known.mean(), known[worst])]
        texts[1] += "" if bound is not None else f", bound {scale * limit[worst]:.{digits}f}{unit}"
        texts[1] += f" ({grid.title(worst)})"
        now = f"{scale * present.mean():.{digits}f}{unit} ({len(present)})" if len(present) else MISSING
        held = f"{within} of {len(known)}"
        word = "pass" if len(known) == len(values) else f"pass on {len(known)} of {len(values)}"
        measured = f"{len(known)} of {len(values)}"
        lines.append([*line, texts[0], now, texts[1], held, measured, word if met else "**fail**"])
    header = ["figure", "on", "asked", "mean", "of the present defence", "worst cell", "cells within", "cells measured"]
    return table([*header, "verdict"], lines)


def models(grid: Grid, cells: pd.DataFrame, keys: list[str], *, pooled: bool) -> str:
    """Return a row for each group of cells: the models' quality one below the other, and what detection found."""
    names, lines = [*REFERENCES, DEFAULT], []
    for values, group in cells.groupby(keys, sort=False):
        lost = group["state"][group["state"].isin([FAILED, WAITING])]
        held = group.drop(lost.index) if pooled else group
        quality = ["<br>".join(spread(grid.value(key, name)[held.index]) for name in names) for key in QUALITY]
        found = pd.DataFrame({key: grid.value(key, DEFAULT)[held.index] for key in [*FOUND, *NAMING]})
        rest = group["seed"].groupby(lost, sort=False).agg(", ".join)
        seeds = "; ".join([", ".join(held["seed"]) or MISSING, *(f"{state}: {those}" for state, those in rest.items())])
        start = [*map(str, values), *([seeds] if pooled else [])]
        lines.append([*start, "<br>".join(names), *quality, *(spread(found[key]) for key in FOUND), naming(found)])
    return table([*keys, *(["seeds"] if pooled else []), "model", *QUALITY, *FOUND, "named"], lines)


def counts(grid: Grid, cells: pd.Index) -> str:
    """Say over how many images each column was measured."""
    rows, texts = grid.rows[grid.rows["cell"].isin(cells)], []
    for key in [*QUALITY, "TPR", "FPR"]:
        found = sorted(set(rows[f"n {key}"].dropna()) - {0}) if f"n {key}" in rows else []
        texts += [f"{key} {found[0]:,.0f}" + (f" to {found[-1]:,.0f}" if len(found) > 1 else "")] if found else []
    return f"Number of images: {'; '.join(texts) or MISSING}."


def checks(entries: pd.DataFrame) -> str:
    """Return a row for each pre-flight check against gradient masking: of how many models of each method it holds."""
    names = [key for key in entries if key.startswith("check: ")]
    groups = dict(list(entries.dropna(subset=names, how="all").groupby("method", sort=False))) if names else {}
    rows = [[name[7:], *(f"{group[name].sum():.0f} of {len(group)}" for group in groups.values())] for name in names]
    return table(["check", *groups], rows)


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


def by_seed(grid: Grid) -> str:
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


def seconds(grid: Grid) -> str:
    """Return a row for each cell: the seconds of each reference and preset, of all ablations and rivals, the sum."""
    rows, columns = grid.rows[grid.rows["what"] == "entry"], [*REFERENCES, *PRESETS, "ablations", "rivals"]
    column = rows["method"].where(rows["method"].isin(columns), rows["kind"] + "s")
    sums = rows.groupby(["cell", column])["seconds"].sum(min_count=1).unstack()
    sums = sums.reindex(index=grid.cells.index, columns=columns)
    sums["sum"] = sums.sum(axis=1, min_count=1)
    lead, texts = [*LEAD, "seed", "state"], sums.map(lambda value: MISSING if math.isnan(value) else f"{value:.0f}")
    return table([*lead, *sums], grid.cells[lead].join(texts).to_numpy().tolist())


@contextmanager
def drawing(path: Path, columns: int, width: float, legend: dict[str, Any]) -> Iterator[list[Axes]]:
    """Yield axes side by side, give the last a legend and save them: the same drawing gives the same bytes."""
    with plt.rc_context({"svg.hashsalt": "pud"}):
        figure, axes = plt.subplots(1, columns, figsize=(width, 4), layout="constrained", squeeze=False)
        yield list(axes[0])
        axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1), **legend)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def draw_attacks(rows: pd.DataFrame, path: Path) -> None:
    """Draw attack success and recovery of each attack: infected, purified, retrained on clean images."""
    groups = rows.groupby([rows["attack"] + "\n" + rows["mapping"], "method"])
    colours = {"infected": "#b2182b", DEFAULT: "#2166ac", "floor": "#999999"}
    with drawing(path, 2, 9 + rows["attack"].nunique() / 2, {}) as axes:
        for axis, key in zip(axes, ["ASR", "RA"], strict=True):
            moments = groups[key].mean(), groups[key].std()
            height, error = (100 * one.unstack().reindex(columns=colours) for one in moments)
            height.plot.bar(ax=axis, yerr=error.fillna(0), color=colours, legend=False, width=0.8)
            axis.set(xlabel="", ylabel=f"{key}, %", ylim=(0, 105))
            axis.tick_params(axis="x", labelrotation=90, labelsize="small")


def draw_accuracies(rows: pd.DataFrame, path: Path) -> None:
    """Draw PGD-20 accuracy against clean accuracy, a point for each method: its means over the cells that have both."""
    points = rows.groupby("method", sort=False)
    with drawing(path, 1, 9, {"fontsize": "x-small", "ncols": 1 + len(points) // 25}) as (axis,):
        for index, (name, group) in enumerate(points):
            x, y, marker = 100 * group["ACC"].mean(), 100 * group["PGD-20"].mean(), "osD^vP*X<>"[index % 10]
            label, colour = f"{name} ({len(group)})", KINDS[kind_of(str(name))]
            axis.scatter(x, y, 70, colour, marker=marker, edgecolors="white", label=label)
        axis.set(xlabel="ACC, %", ylabel="PGD-20 accuracy, %")


def draw_drift(rows: pd.DataFrame, path: Path) -> None:
    """Draw the drift of each method by round, with standard deviations."""
    with drawing(path, len(DRIFT), 12, {"fontsize": "small"}) as axes:
        for axis, key in zip(axes, DRIFT, strict=True):
            for name, group in rows.groupby("method", sort=False):
                rounds = group.groupby("round")[key].agg(["mean", "std"]).fillna({"std": 0})
                axis.errorbar(rounds.index, rounds["mean"], rounds["std"], marker="o", capsize=3, label=name)
            axis.set(xlabel="round", ylabel=key, xticks=sorted(rows["round"].unique()))


def picture(draw: Callable[[pd.DataFrame, Path], None], rows: pd.DataFrame, path: Path, words: str) -> str:
    """Draw rows if there are any; return the Markdown that shows the figure."""
    path.unlink(missing_ok=True)
    if rows.empty:
        return ""
    draw(rows, path)
    return f"![{words}]({path.parent.name}/{path.name})\n\n{words}"


def page(grid: Grid, folder: Path) -> str:
    """Return the page; its figures go into the folder."""
    cells, top = grid.cells, grid.cells["top"].astype(bool)
    entries, rounds = grid.select("entry"), grid.select("round")
    states = ", ".join(f"{(cells['state'] == state).sum()} {state}" for state in (POISONED, INNOCENT, FAILED, WAITING))
    success = (100 * grid.value("ASR", "infected"))[cells["state"] == FAILED]
    failed = "; ".join(f"{grid.title(number)} ({value:.1f} %)" for number, value in success.items())
    bars = entries[entries["cell"].isin(cells.index[top]) & entries["method"].isin(["infected", DEFAULT, "floor"])]
    every = grid.select("round", POISONED, INNOCENT)
    every["method"] = every["method"].where(every["state"] == POISONED, every["method"] + ", innocent")
    drift, columns = rounds.dropna(subset=DRIFT, how="all"), [*QUALITY, *DELTAS, "seconds"]
    detections = grid.select("detector", POISONED, INNOCENT).sort_values("data", kind="stable")
    both = entries.dropna(subset=["ACC", "PGD-20"])
    amounts = sorted((key for key in entries if key.startswith("after ")), key=lambda key: float(key.split()[1]))
    taught = entries.dropna(subset=amounts, how="all") if amounts else entries[:0]
    shared = taught[taught["method"].isin([DEFAULT, *BOUNDS])].groupby("method")["cell"].agg(set)
    taught = taught[taught["cell"].isin(set.intersection(*shared) if len(shared) else set())]

    def compared(*names: str) -> str:
        chosen = entries["kind"].isin(names) | entries["method"].isin(names)
        same = entries["cell"].isin(entries["cell"][chosen])
        return means(entries[chosen | (same & (entries["method"] == DEFAULT))], ["method"], columns)

    parts = [
        "Generated from `results/*.json` by `make bench`: do not edit.",
        "# Results",
        f"{len(cells)} cells, each an infected model: {states}." if len(cells) else "No results yet: there is no cell.",
        WORDS,
        f"Attack failed: {failed}." if failed else "",
        f"Entries of more than one training of the infected model, which are not compared with each other until "
        f"`make bench` has measured all on one: {grid.mixed}."
        if grid.mixed
        else "",
        "## Asked for and measured",
        "Over all rates and seeds; of two entries, over the cells that hold both. Where the floor is not measured yet, "
        "the bound of ASR is 2 %. Worst: the furthest beyond its own bound. The defence has changed since some of this "
        "was measured, and `make bench` measures that again: of the present defence, the mean and the number of cells. "
        "A figure passes if it does so over all cells and over these. "
        f"{BEYOND} is beyond what was asked for: it has rows of its own and no part in the others. "
        "Purify seconds: of the steps that train, without probes and detection (Drift by round has the sums).",
        asked(grid),
        "## By seed",
        SEEDS_WORDS,
        by_seed(grid),
        "## Attacks at the highest rate",
        f"Means over seeds. named: detections in which every target class was named. {counts(grid, cells.index[top])}",
        models(grid, cells[top], LEAD, pooled=True),
        picture(draw_attacks, bars, folder / "attacks.svg", "Attack success and recovery accuracy by attack."),
        "## Other rates",
        counts(grid, cells.index[~top]),
        models(grid, cells[~top], [*LEAD, "seed", "state"], pooled=False),
        "## Presets",
        f"Means over all poisoned cells, here and below; Δ: method minus {DEFAULT}, points, on cells with both of "
        "the same defence and the same infected model.",
        compared("reference", "preset"),
        picture(draw_accuracies, both, folder / "accuracies.svg", "Robust against clean accuracy (number of cells)."),
        "## Ablations",
        "PBE: what the paper extends, without teacher and unlearning; paper: its schedule; both with our detection, so "
        "without its oracles. aft: its model repair, with 1,000 clean images. without purification: trained from "
        "scratch on what detection on the infected model leaves.",
        compared("ablation", "paper", "aft"),
        "## Rivals",
        f"Each repairs the infected models that {DEFAULT} purifies, with 1,000 clean images of which {DEFAULT} gets "
        "none. Every learning rate is reported; none is picked. The filter is ART's activation clustering; on what it "
        "leaves the model is trained for as many steps as the ceiling.",
        compared("rival"),
        "## Detectors",
        "pud: after the last round. Rivals: at their libraries' or papers' own thresholds, with 1,000 clean images. "
        "Covers: images with the trigger and their true label, no part of TPR and FPR. Calibration error: of the "
        "posterior, over the images that have one or are poisoned; 0 is best. Confidence: of the overall statement. "
        "Without QUE (Mahalanobis distance in its place), perturbation cues, witnesses (and the judge that learns from "
        "them), contradictions (the judge that learns from the purified model's): the last detection without that, on "
        "the evidence of rounds that had it; the other rows without a part are of whole runs.",
        means(detections, ["data", "method"], [*FOUND, *SURE, "named", "seconds"]),
        "## Masking checks",
        "What must hold before robust accuracy is believed (arXiv 2010.09670, section 3; 1802.00420, section 3.1).",
        checks(grid.select("entry", POISONED, INNOCENT)),
        "## AutoAttack",
        "Standard, on the first images of the test set, and PGD-20 on the same ones (elsewhere it is on 1,000). Its "
        "last attack, Square, sees no gradient: where it lowers what the others leave, gradients are masked.",
        means(entries.dropna(subset="AutoAttack"), ["attack", "mapping", "method"], [SAME, WHITE_BOX, "AutoAttack"]),
        "## Relearning",
        "ASR before and after 5 epochs of fine-tuning (learning rate 0.01) on 1,000 clean and so many poisoned images.",
        means(taught, ["method"], ["ASR", *amounts]),
        "## Drift by round",
        "Of adversarial examples: the share that goes to the target (by chance one in nine), and the cosine of their "
        "features to those of the same images with the trigger, and without it: where this one is the higher, they "
        "look like what they are, unlike in the paper. Round 0: the given model, its seconds those of its probe. "
        "innocent: the patch of BadNets on models that do not know it.",
        means(every, ["method", "round"], [*QUALITY[:3], "TPR", "FPR", *DRIFT, "seconds"]),
        picture(draw_drift, drift, folder / "drift.svg", "Drift of adversarial examples by round (0: infected)."),
        "## Seconds",
        seconds(grid),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results_folder: Path, out: Path, planned: Sequence[dict[str, Any]] = ()) -> None:
    """Write the page ``out`` and its figures, into the folder named like it: docs/results.md, docs/results/*.svg."""
    text = page(Grid(load(results_folder, planned)), out.with_suffix(""))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)


def main() -> None:
    """Write the page of what is measured so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the cells")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"), help="the page")
    arguments = parser.parse_args()
    write(arguments.results, arguments.out, [cell.empty() for cell in all_cells()])


if __name__ == "__main__":
    main()
