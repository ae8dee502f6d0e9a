"""The report of a run: ``report.json``, its table for the terminal, and one CSV row a stage for plots."""

import csv
import json
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pud.base.errors import InputError
from pud.base.files import read_json, write_json
from pud.detectors.contract import CANNOT_BE_JUDGED

FORMAT, OLDER = "pud-report/2", "pud-report/1"
# of a stage; which of them it has depends on whether there are a ground truth and test images
SCALARS = ("given_label_accuracy", "clean_accuracy", "attack_success_rate", "recovery_accuracy")
INFECTED, ROUND, PURIFIED = "infected", "round", "purified"
NOTE_CHARACTERS = 8000  # what MLflow takes as the value of a tag
UNTRACKED = "untracked.json"  # beside a report: what MLflow was lost for


def load_report(folder: Path) -> dict[str, Any]:
    """Read the report in a folder.

    Raises:
        InputError: it is missing, or a stage lacks what it should have.
    """
    path = Path(folder) / "report.json"
    report = read_json(path, FORMAT, OLDER, rounds=list, dataset=dict, git_commit=str)
    try:
        if report["format"] == OLDER:  # there the attack was called trigger, and had no settings
            old = report.pop("trigger")
            report |= {"format": FORMAT, "schema": 2, "attack": {"name": old.pop("trigger"), "settings": {}, **old}}
        table(report)
        report["dataset"]["name"], report["dataset"]["digest"], report["dataset"]["uri"]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise InputError(f"{path} lacks what a stage has ({error!r}): evaluate again") from None
    return report


def save_report(folder: Path, report: dict[str, Any]) -> None:
    """Write ``report.json``, ``rounds.csv`` (a row a stage) and ``metrics.json`` (the last stage alone)."""
    write_json(folder / "report.json", report)
    rows = [{"round": index, **row} for index, (_, row) in enumerate(rows_of(report))]
    with (folder / "rounds.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "metrics.json").write_text(json.dumps(rows[-1], indent=2) + "\n")


def stages_of(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, result) of what a report holds so far, in order."""
    stages = [(INFECTED, report[INFECTED])] if INFECTED in report else []
    stages += [(f"round {index + 1}", result) for index, result in enumerate(report.get("rounds", []))]
    return stages + ([(PURIFIED, report[PURIFIED])] if PURIFIED in report else [])


def scalars_of(result: dict[str, Any]) -> dict[str, float]:
    """Return the scalars that a stage has."""
    return {key: result[key] for key in SCALARS if key in result}


def rows_of(report: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Return (name, scalars) of each stage; ``robust_accuracy`` is that under the stage's first attack."""
    return [
        (name, {**scalars_of(result), "robust_accuracy": result["robust_accuracy"][0]["value"]})
        for name, result in stages_of(report)
    ]


HEADERS = {
    "given_label_accuracy": "given labels",
    "clean_accuracy": "clean acc",
    "attack_success_rate": "attack success",
    "recovery_accuracy": "recovery",
}


def cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the report as the cells of a table, percentages: its header, then a row a stage.

    Without a ground truth the detections show how many images they accuse.
    """
    stages = stages_of(report)
    known = [key for key in SCALARS if any(key in result for _, result in stages)]
    rates = "detection TPR / FPR" if "attack" in report else "accused"
    headers = (HEADERS[key] for key in known)
    lines: list[tuple[str, ...]] = [("", *headers, "robust accuracy", rates, "target", "seconds")]
    for name, result in stages:
        robust = ", ".join(
            f"{record['attack']}{'-' + str(record['steps']) if record['attack'] == 'PGD' else ''} "
            f"{100 * record['value']:.1f} (n={record['n']})"
            for record in result["robust_accuracy"]
        )
        found = result.get("detection")
        none = CANNOT_BE_JUDGED if found and found.get("unjudged_labels") else "none"
        target = (", ".join(map(str, found["target_labels"])) or none) if found else ""
        seconds = f"{result['seconds']:.0f}" if "seconds" in result else ""
        scalars = (f"{100 * result[key]:.2f}" for key in known)
        lines.append((name, *scalars, robust, _accused(found) if found else "", target, seconds))
    return lines


def _accused(found: dict[str, Any]) -> str:
    if "accused_images" in found:
        return f"{found['accused_images']:,} of {found['images']:,}"
    hits, false = found["true_positive_rate"], found["false_positive_rate"]
    return f"{'-' if hits is None else format(100 * hits, '.1f')} / {100 * false:.2f}"


def table(report: dict[str, Any]) -> str:
    """Return the report as one table for a terminal."""
    return aligned(cells(report))


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Return lines of cells, the last of which a line may lack, as one table for a terminal."""
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def note_of(report: dict[str, Any]) -> str:
    """Return a report as Markdown, such as MLflow's description of a run: what was done to the data, the table so far.

    Its columns: ``cells``. Names come from data that others made: they are shown as they are.
    """
    known = {**report.get("attack", {}), "data set": report["dataset"]["name"]}
    planted = {"attack" if key == "name" else key: value for key, value in known.items() if value != {}}
    lines = [list(map(inert, row)) for row in cells(report)]
    shown = [" | ".join(["", *line, ""]).strip() for line in lines]
    about = ", ".join(f"{inert(key)} **{inert(value)}**" for key, value in planted.items())
    return "\n".join([about, "", shown[0], "|---" * len(lines[0]) + "|", *shown[1:]])[:NOTE_CHARACTERS]


def inert(text: object) -> str:
    """Return a text that is no Markdown and no HTML, whatever is in it: all that could be is written as an entity."""
    line = " ".join(str(text).split())[:200]
    return re.sub(r"[^\w ,()=%.-]|_|(?<!\d)\.|\.(?!\d)", lambda found: f"&#{ord(found[0])};", line)
