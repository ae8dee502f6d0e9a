"""The report of a run: ``report.json``, its table for the terminal, and one CSV row a stage for plots."""

import csv
import json
from pathlib import Path
from typing import Any

from pud.base.errors import InputError
from pud.base.files import read_json, write_json
from pud.detectors.contract import CANNOT_BE_JUDGED

FORMAT, OLDER = "pud-report/2", "pud-report/1"
SCALARS = ("clean_accuracy", "attack_success_rate", "recovery_accuracy")
INFECTED, ROUND, PURIFIED = "infected", "round", "purified"
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
        writer = csv.DictWriter(file, ["round", *SCALARS, "robust_accuracy"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "metrics.json").write_text(json.dumps(rows[-1], indent=2) + "\n")


def stages_of(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, result) of what a report holds so far, in order."""
    stages = [(INFECTED, report[INFECTED])] if INFECTED in report else []
    stages += [(f"round {index + 1}", result) for index, result in enumerate(report.get("rounds", []))]
    return stages + ([(PURIFIED, report[PURIFIED])] if PURIFIED in report else [])


def rows_of(report: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Return (name, scalars) of each stage; ``robust_accuracy`` is that under the stage's first attack."""
    return [
        (name, {**{key: result[key] for key in SCALARS}, "robust_accuracy": result["robust_accuracy"][0]["value"]})
        for name, result in stages_of(report)
    ]


def cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the report as the cells of a table, percentages: its header, then a row a stage."""
    header = (
        "",
        "clean acc",
        "attack success",
        "recovery",
        "robust accuracy",
        "detection TPR / FPR",
        "target",
        "seconds",
    )
    lines: list[tuple[str, ...]] = [header]
    for name, result in stages_of(report):
        robust = ", ".join(
            f"{record['attack']}{'-' + str(record['steps']) if record['attack'] == 'PGD' else ''} "
            f"{100 * record['value']:.1f} (n={record['n']})"
            for record in result["robust_accuracy"]
        )
        found = result.get("detection")
        rates = ""
        if found:
            hits, false = found["true_positive_rate"], found["false_positive_rate"]
            rates = f"{'-' if hits is None else format(100 * hits, '.1f')} / {100 * false:.2f}"
        none = CANNOT_BE_JUDGED if found and found.get("unjudged_labels") else "none"
        target = (", ".join(map(str, found["target_labels"])) or none) if found else ""
        seconds = f"{result['seconds']:.0f}" if "seconds" in result else ""
        lines.append((name, *(f"{100 * result[key]:.2f}" for key in SCALARS), robust, rates, target, seconds))
    return lines


def table(report: dict[str, Any]) -> str:
    """Return the report as one table for a terminal."""
    lines = cells(report)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
