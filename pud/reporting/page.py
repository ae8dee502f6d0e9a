"""The page of a run, ``report.html``: one file that a person reads to decide, and a colleague gets by mail."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pud.detectors.contract import Detection

SCAN, DEFENCE, REPAIR, REHEARSAL = "scan", "defence", "repair", "rehearsal"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the page tells.

    title: what was looked at. kind: SCAN, DEFENCE, REPAIR or REHEARSAL. images: uint8 (n, c, h, w), which may be a
    memory map; labels: int64 (n,), as given; classes: their names, or none; names: of the pictures in their source.
    detections: one a look at the data, the last one counts; none where nothing was judged. verdict: the content of
    ``verdict.json``. report: the stages as in ``report.json``, whose rows may lack what needs the truth. logits_before,
    logits_after: float32 (n, k), of the model as given and as repaired. parameters: of every step, nested or not.
    digests: of every input and output. command: how to repeat the run.
    """

    title: str
    kind: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    verdict: dict[str, Any]
    detections: Sequence[Detection] = ()
    names: Sequence[str] | None = None
    report: dict[str, Any] | None = None
    logits_before: np.ndarray | None = None
    logits_after: np.ndarray | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    command: str = ""


def write_page(path: Path, findings: Findings) -> None:
    """Write the page: HTML that needs no network and no script, the same bytes for the same findings."""
    raise NotImplementedError
