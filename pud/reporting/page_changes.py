"""What changed between the model as given and as repaired: where their answers differ, with pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pud.reporting.page_findings import Findings
from pud.reporting.page_rounds import ROBUST, attack_words, measure
from pud.reporting.page_words import percent
from pud.reporting.report import INFECTED, PURIFIED, stages_of

SHOWN = 8
LOGITS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Answers:
    """What two models answer, int64 (n,) each, and how far they are apart: (n,), from 0 to 1 (total variation)."""

    before: np.ndarray
    after: np.ndarray
    distance: np.ndarray

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> "Answers":
        """Return those of logits (n, k), a few rows at a time."""
        step = max(1, LOGITS_AT_ONCE // before.shape[1])
        parts = [
            (a.argmax(1), b.argmax(1), np.abs(_softmax(a) - _softmax(b)).sum(1) / 2)
            for a, b in ((before[i : i + step], after[i : i + step]) for i in range(0, len(before), step))
        ]
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def changes(findings: Findings) -> dict[str, Any] | None:
    """Return what the repaired model does otherwise than the given one; None where there are not both."""
    if findings.logits_before is None or findings.logits_after is None:
        return None
    answers, accused = Answers.of(findings.logits_before, findings.logits_after), findings.accused
    groups = {"all pictures": np.ones(len(accused), bool)}
    if accused.any():
        groups |= {"pictures not accused": ~accused, "accused pictures": accused}
    hits = (answers.before == findings.labels, answers.after == findings.labels, answers.before == answers.after)
    rows = [
        (name, f"{of.sum():,}", *(percent(float(hit[of].mean()) if of.any() else None) for hit in hits))
        for name, of in groups.items()
    ]
    stages = [(name, row) for name, row in stages_of(findings.report or {}) if name in (INFECTED, PURIFIED)]
    robust = [percent(value) for _, row in stages if (value := measure(row, ROBUST)) is not None]
    different = np.flatnonzero((answers.before != answers.after) & ~accused)
    most = different[np.argsort(-answers.distance[different], kind="stable")][:SHOWN]
    return {
        "rows": rows,
        "accused": bool(accused.any()),
        "robust": robust if len(robust) == 2 else None,
        "attack": attack_words(stages),
        "lost": _lost(findings, answers),
        "different": len(different),
        "pictures": [
            findings.picture(
                row,
                f"labelled: {findings.class_name(int(findings.labels[row]))}",
                f"before: {findings.class_name(int(answers.before[row]))}",
                f"after: {findings.class_name(int(answers.after[row]))}",
            )
            for row in most
        ],
    }


def _lost(findings: Findings, answers: Answers) -> str:
    """Return which class lost most by the repair, of its images that are not accused; empty where none did."""
    of = ~findings.accused
    labels = findings.labels[of]
    sizes = np.bincount(labels, minlength=1)
    before, after = (
        np.bincount(labels[said[of] == labels], minlength=len(sizes)) / np.maximum(sizes, 1)
        for said in (answers.before, answers.after)
    )
    worst = int(np.argmax(before - after))
    if before[worst] <= after[worst]:
        return ""
    which = "its pictures that are not accused" if findings.accused.any() else "its pictures"
    return (
        f"The class that lost most is {findings.class_name(worst)}: of {which} "
        f"{percent(float(before[worst]))} were answered as labelled before, and {percent(float(after[worst]))} after."
    )
