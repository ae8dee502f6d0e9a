"""Step conclude: what was found in, a verdict for machines and a page for people out. No ground truth is asked for."""

from pathlib import Path
from typing import Any

import pandas as pd

from pud import __version__
from pud.artifacts.detection import load_detection
from pud.artifacts.evidence import load_evidence
from pud.artifacts.timing import timed_folder
from pud.artifacts.verdict import save_verdict
from pud.base.progress import say
from pud.data.readers import open_training_split
from pud.exchange.cleaned import PICTURES
from pud.reporting.page import Findings, write_page
from pud.reporting.report import inert, load_report, note_of

PAGE, SUMMARY = "report.html", "summary.md"


def conclude_step(
    kind: str,
    dataset: Path,
    infected_probe: Path,
    detection: Path,
    *,
    probe: Path | None = None,
    report: Path | None = None,
    command: str = "",
    findings: Path,
) -> dict[str, float]:
    """Write ``verdict.json``, ``report.html`` and ``summary.md`` into the folder ``findings``.

    Args:
        kind: ``scan``, ``defence``, ``repair`` or ``rehearsal``.
        detection: the last one.
        probe: of the last model, where there was a round.
        report: what was measured, where it was.
        command: how to do the same again.
    """
    split = open_training_split(dataset)
    judged, said = load_detection(detection, split.labels)
    before, _ = load_evidence(infected_probe)
    after = load_evidence(probe)[0] if probe else None
    measured = load_report(report) if report else None
    given = float((before.logits.argmax(1) == split.labels).mean())
    inputs = [one for one in (dataset, infected_probe, detection, probe, report) if one]
    with timed_folder(findings, "conclude", "verdict.json", *inputs) as folder:
        about: dict[str, Any] = {
            "kind": kind,
            "data": split.name,
            "given_label_accuracy": given,
            "digests": {"training images": split.digest, "training labels": split.labels_digest},
            "command": command,
            "version": __version__,
        }
        if measured:
            about["measured"] = {key: measured[key] for key in ("infected", "purified") if key in measured}
        verdict = save_verdict(folder, said, about)
        names = dataset / "train" / PICTURES
        write_page(
            folder / PAGE,
            Findings(
                title=f"{split.name}: {verdict['verdict']}",
                kind=kind,
                images=split.images,
                labels=split.labels,
                classes=split.classes,
                names=pd.read_parquet(names, columns=["name"])["name"].tolist() if names.is_file() else None,
                detections=[judged],
                verdict=verdict,
                report=measured,
                logits_before=before.logits,
                logits_after=after.logits if after else None,
                parameters=said["settings"],
                digests=about["digests"],
                command=command,
            ),
        )
        lines = [f"**{inert(verdict['verdict'])}**", "", *([note_of(measured)] if measured else [])]
        (folder / SUMMARY).write_text("\n".join(lines) + "\n", "utf-8")
    say(f"conclude: {verdict['verdict']}")
    return {key: float(verdict[key]) for key in ("exit_code", "confidence", "accused_images", "given_label_accuracy")}
