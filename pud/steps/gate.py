"""Step gate: what was found and measured in; a repaired model that meets the gates becomes the champion."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from pud.artifacts.timing import timed_folder
from pud.artifacts.verdict import load_verdict
from pud.base.errors import InputError
from pud.base.files import write_json
from pud.base.progress import say
from pud.reporting.gates import GateConfig, check_name, failures
from pud.reporting.report import load_report

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

FORMAT, FILE = "pud-gate/1", "gate.json"


def gate_step(
    findings: Path,
    report: Path | None,
    config: GateConfig,
    *,
    gate: Path,
    name: str = "",
    tracking: "Tracking | None" = None,
) -> dict[str, float]:
    """Hold what was found against the gates and write ``gate.json`` into the folder ``gate``.

    A gate that is not met fails the task, and so the run: what ran before is kept, and another try would not mend it.

    Args:
        findings, report: what conclude and evaluate wrote; no report where nothing was repaired.
        name: of the registered model; this run's version becomes its champion if a gate says how good it must be.
        tracking: where MLflow is; None promotes nothing, and so does an MLflow that is lost, which is said.

    Raises:
        InputError: a gate is not met; ``gate.json`` is written before.
    """
    verdict, measured = load_verdict(findings), load_report(report) if report else None
    if tracking:
        check_name(name)
    missed = failures(verdict, measured, config)
    with timed_folder(gate, "gate", FILE, findings, *([report] if report else [])) as folder:
        champion = _promote(tracking, name) if tracking and not missed and config.says_how_good else None
        content = {
            "format": FORMAT,
            "met": not missed,
            "failures": missed,
            "settings": dataclasses.asdict(config),
            "champion": champion,
        }
        write_json(folder / FILE, content)
    if missed:
        raise InputError(
            f"not fit for release: {'; '.join(missed)}. Look at the findings, or run again with other gates"
        )
    say("gate: all gates are met")
    if not config.says_how_good:
        say("gate: none of them says how good the model must be, so it stays a candidate: give one of the least_ gates")
    return {"met": 1.0, "promoted": float(champion is not None)}


def _promote(tracking: "Tracking", name: str) -> str | None:
    """Make this run's version the champion and return it; None, and said, where there is none or MLflow is lost."""
    from pud.reporting.registry import CHAMPION, promote, version_of  # three seconds of imports
    from pud.reporting.tracking import unless_lost

    with unless_lost(tracking, f"no {CHAMPION}"):
        if version := version_of(tracking, name):
            promote(tracking, name, version)
        else:
            say(f"MLflow: this run registered no model as {name!r}, so there is no {CHAMPION}")
        return version
    return None
