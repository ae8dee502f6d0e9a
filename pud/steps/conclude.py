"""Step conclude: what was found in, a verdict for machines and a page for people out. No ground truth is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pud import __version__
from pud.artifacts.detection import TABLE, load_detection
from pud.artifacts.evidence import load_evidence
from pud.artifacts.model import FORMAT as MODEL
from pud.artifacts.timing import timed_folder
from pud.artifacts.verdict import save_verdict
from pud.base.files import read_json, sha256
from pud.base.progress import say
from pud.data.images import UNLABELLED
from pud.data.readers import open_training_split
from pud.exchange.cleaned import read_pictures
from pud.reporting.page import REPAIR, Findings, write_page
from pud.reporting.report import inert, load_report, note_of

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

NONE = "none"  # the detector of who repairs a model with data that are known to be clean
PAGE, SUMMARY = "report.html", "summary.markdown"


def conclude_step(
    kind: str,
    model: Path,
    dataset: Path,
    infected_probe: Path,
    detection: Path,
    *,
    purified: Path | None = None,
    probe: Path | None = None,
    report: Path | None = None,
    command: str = "",
    tracking: "Tracking | None" = None,
    findings: Path,
) -> dict[str, float]:
    """Write ``verdict.json``, ``report.html`` and ``summary.markdown`` into the folder ``findings``.

    Args:
        kind: ``scan``, ``defence`` or ``rehearsal``; without a detector a defence is a ``repair``.
        model: as it was given.
        detection: the last one.
        purified, probe: the last model and the probe of it, where there was a round.
        report: what was measured, where it was.
        command: how to do the same again.
        tracking: where MLflow is; None records nothing there, and so does an MLflow that is lost, which is said.
    """
    split = open_training_split(dataset, of_any=True)
    judged, said = load_detection(detection, split.labels)
    before, _ = load_evidence(infected_probe)
    after = load_evidence(probe)[0] if probe else None
    measured = load_report(report) if report else None
    given = {"given_label_accuracy": float((before.logits.argmax(1) == split.labels).mean())}
    if said["settings"]["detect"]["detector"] == NONE:
        kind = REPAIR
    cards = {
        name: read_json(one / "model.json", MODEL) for name, one in (("given", model), ("repaired", purified)) if one
    }
    settings = {"train": cards["given"]["training"], **said["settings"]}
    if purified:
        settings["purify"] = cards["repaired"]["training"]
    inputs = [one for one in (model, dataset, infected_probe, detection, purified, probe, report) if one]
    with timed_folder(findings, "conclude", "verdict.json", *inputs) as folder:
        about: dict[str, Any] = {
            "kind": kind,
            "data": split.name,
            "pictures": split.pictures,
            **(given if split.pictures != UNLABELLED else {}),  # that the model says what it says is no news
            "digests": {
                f"{split.pictures} images": split.digest,
                f"{split.pictures} labels": split.labels_digest,
                **{f"{name} model": card["sha256"] for name, card in cards.items() if card.get("sha256")},
                "detection": sha256(detection / TABLE),
            },
            "settings": settings,
            "command": command,
            "version": __version__,
        }
        if measured:
            about["measured"] = {key: measured[key] for key in ("infected", "purified") if key in measured}
        verdict = save_verdict(folder, said, about)
        pictures = read_pictures(dataset / "train")
        write_page(
            folder / PAGE,
            Findings(
                title=split.name,
                kind=kind,
                images=split.images,
                labels=split.labels,
                classes=split.classes,
                pictures=split.pictures,
                names=pictures["name"].tolist() if pictures is not None else None,
                detections=[judged],
                verdict=verdict,
                report=measured,
                logits_before=before.logits,
                logits_after=after.logits if after else None,
                parameters=settings,
                digests=about["digests"],
                command=command,
            ),
        )
        lines = [f"**{inert(verdict['verdict'])}**", "", *([note_of(measured)] if measured else [])]
        (folder / SUMMARY).write_text("\n".join(lines) + "\n", "utf-8")
    say(f"conclude: {verdict['verdict']}")
    if tracking:
        from pud.reporting.tracking import log_findings, unless_lost  # three seconds of imports

        with unless_lost(tracking, "the page is not recorded there"):
            log_findings(tracking, findings)
    told = ("exit_code", "confidence", "accused_images", "given_label_accuracy")
    return {key: float(verdict[key]) for key in told if key in verdict}
