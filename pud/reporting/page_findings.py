"""What the page of a run is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pud.data.images import TRAINING
from pud.detectors.contract import CANNOT_BE_JUDGED, POISONED, Detection
from pud.reporting.page_pictures import Picture, picture
from pud.reporting.page_words import LABELLED, NOT_JUDGED, REPAIR, short

GIVEN_ACCURACY = "given_label_accuracy"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the page tells.

    title: what was looked at. kind: scan, defence, repair or rehearsal. pictures: what they are to the model, as in
    ``LabelledImages``. images: uint8 (n, c, h, w), which may be a
    memory map; labels: int64 (n,), as given; classes: their names, or none; names: of the pictures in their source.
    detections: one a look at the data, the last one counts; none where nothing was judged. verdict: the content of
    ``verdict.json``; its ``hint``, if any, is why the model does not know the data. report: the stages as in
    ``report.json``, whose rows may lack what needs the truth. logits_before, logits_after: float32 (n, k), of the model
    as given and as repaired. parameters: of every step, nested or not. digests: of every input and output. command: how
    to repeat the run.
    """

    title: str
    kind: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    verdict: dict[str, Any]
    pictures: str = TRAINING
    detections: Sequence[Detection] = ()
    names: Sequence[str] | None = None
    report: dict[str, Any] | None = None
    logits_before: np.ndarray | None = None
    logits_after: np.ndarray | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def last(self) -> Detection | None:
        """The detection that counts."""
        return self.detections[-1] if self.detections else None

    @property
    def code(self) -> str:
        """What was concluded, as in a detection; NOT_JUDGED where nothing was looked at, as in a mere repair."""
        concluded = str(self.verdict.get("verdict_code") or (self.last.conclusion if self.last else NOT_JUDGED))
        return NOT_JUDGED if self.kind == REPAIR and concluded == CANNOT_BE_JUDGED else concluded

    @cached_property
    def accused(self) -> np.ndarray:
        """Which images are accused, bool (n,)."""
        return self.last.verdict == POISONED if self.last else np.zeros(len(self.labels), bool)

    @property
    def targets(self) -> list[int]:
        """The accused classes, those with the most accused images first."""
        found = self.verdict.get("target_labels", self.last.target_labels if self.last else [])
        counts = np.bincount(self.labels[self.accused], minlength=max([0, *found]) + 1)
        return sorted(map(int, found), key=lambda label: (-counts[label], label))

    @property
    def unjudged(self) -> dict[int, str]:
        """Why, of each class that could not be judged although it was to be."""
        if self.code == NOT_JUDGED:
            return {}
        found = {int(label): str(reason) for label, reason in dict(self.verdict.get("unjudged") or {}).items()}
        return dict(sorted(found.items()))

    def class_name(self, label: int) -> str:
        """Return the name of a class; its number where it has none, or beside a name that had to be made shorter."""
        if not 0 <= label < len(self.classes):
            return str(label)
        name = short(self.classes[label])
        return name if name == self.classes[label] else f"{name} (class {label})"

    def picture(self, row: int, *caption: str) -> Picture:
        """Return the thumbnail of an image with its name, or its number, below the caption."""
        name = short(self.names[row]) if self.names is not None else f"no. {row}"
        alt = f"Picture {name}, {LABELLED[self.pictures]} {self.class_name(int(self.labels[row]))}"
        return picture(self.images[row], f"{alt}; {'; '.join(caption)}", *caption, name)
