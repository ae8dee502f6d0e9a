"""The accused classes on the page: galleries, what the accused images truly show, the estimated trigger."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pud.base.progress import track
from pud.detectors.contract import CLEAN, Detection
from pud.reporting.page_findings import Findings
from pud.reporting.page_pictures import Picture, TriggerView, spread_out, view_trigger
from pud.reporting.page_words import AS_LABELLED, NAMED, percent

GALLERIES, ACCUSED_SHOWN, CLEAN_SHOWN, STAMPED_SHOWN = 5, 8, 4, 3


@dataclass(frozen=True)
class AccusedClass:
    """An accused class; shows: what its accused images truly show, and how many of them do; unknown: of how many it is
    not known."""

    name: str
    accused: int
    images: int
    shows: list[tuple[str, int]]
    unknown: int
    accused_pictures: list[Picture]
    clean_pictures: list[Picture]
    trigger: TriggerView | None


def accused_classes(findings: Findings) -> dict[str, Any] | None:
    """Return the accused classes, galleries of the largest; None where none is accused."""
    last = findings.last
    targets = [label for label in findings.targets if last and label not in last.shortcuts]
    if last is None or not targets:
        return None
    accused, sizes = (
        np.bincount(labels, minlength=max(targets) + 1)
        for labels in (findings.labels[findings.accused], findings.labels)
    )
    rows = [(findings.class_name(label), f"{accused[label]:,}", f"{sizes[label]:,}") for label in targets[:NAMED]]
    return {
        "classes": [_accused_class(findings, last, label) for label in track(targets[:GALLERIES], "page")],
        "table": rows if len(targets) > 1 else [],
        "without_gallery": max(0, len(targets) - GALLERIES),
        "without_row": max(0, len(targets) - NAMED),
    }


def _accused_class(findings: Findings, last: Detection, label: int) -> AccusedClass:
    members = np.flatnonzero(findings.labels == label)
    order = members[np.lexsort((-last.suspicion[members], -last.posterior[members]))]  # the surest first
    accused, clean = order[findings.accused[order]], order[last.verdict[order] == CLEAN]
    trusted = np.flatnonzero(last.verdict == CLEAN)
    others = trusted[findings.labels[trusted] != label]
    trigger = None
    if len(accused) > 1 and len(trusted) > 1:
        trigger = view_trigger(findings.images, accused, trusted, spread_out(others, STAMPED_SHOWN).tolist())
    inferred = last.inferred_label[accused]
    kinds, counts = np.unique(inferred[inferred >= 0], return_counts=True)
    most_first = np.argsort(-counts, kind="stable")
    return AccusedClass(
        name=findings.class_name(label),
        accused=len(accused),
        images=len(members),
        shows=[(_shown(findings, label, int(kinds[i])), int(counts[i])) for i in most_first],
        unknown=int((inferred < 0).sum()),
        accused_pictures=[
            findings.picture(
                row,
                f"shows: {_shown(findings, label, int(last.inferred_label[row]))}",
                f"poisoned: {percent(float(last.posterior[row]), 0)}",
            )
            for row in spread_out(accused, ACCUSED_SHOWN)
        ],
        clean_pictures=[
            findings.picture(row, f"poisoned: {percent(float(last.posterior[row]), 0)}")
            for row in spread_out(clean, CLEAN_SHOWN)
        ],
        trigger=trigger,
    )


def _shown(findings: Findings, label: int, inferred: int) -> str:
    if inferred < 0:
        return "not known"
    return f"{findings.class_name(inferred)}{f', {AS_LABELLED[findings.pictures]}' if inferred == label else ''}"
