"""Step detect: the evidence of the infected and of the current model in, a verdict on every training image out."""

from pathlib import Path
from typing import Any

import numpy as np

from pud.artifacts.detection import save_detection, verdict_of
from pud.artifacts.evidence import load_evidence
from pud.artifacts.timing import timed_folder, timing
from pud.base.config import as_parameters
from pud.base.errors import InputError
from pud.base.progress import say
from pud.detectors import DEFAULT, DETECTORS
from pud.detectors.contract import CANNOT_BE_JUDGED, POISONED
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence


def detect_step(
    infected_probe: Path, probe: Path, config: Any, *, detector: str = DEFAULT, detection: Path
) -> dict[str, float]:
    """Say which training images are poisoned; before the first round both probes are the infected model's.

    config: of the detector of this name.
    """
    infected, first = load_evidence(infected_probe)
    current, about = load_evidence(probe)
    if not isinstance(infected, InfectedEvidence):
        raise InputError(
            f"{infected_probe} is of a model after round {first['rounds_done']}: give the infected model's"
        )
    if infected.logits.shape != current.logits.shape or not np.array_equal(infected.labels, current.labels):
        raise InputError(f"{infected_probe} and {probe} are about other images: give two probes of one data set")
    entry, purified = DETECTORS.find(detector), current if isinstance(current, PurifiedEvidence) else None
    with timed_folder(detection, "detect", "detection.json", infected_probe, probe, before=timing(probe)) as folder:
        made: dict[str, Any] = {
            "rounds_done": about["rounds_done"],
            "adversarial_share": about["adversarial_share"],
            "settings": {"probe": about["settings"], "detect": {"detector": detector, **as_parameters(config)}},
            **{key: first[key] for key in ("classes", "hint") if key in first},
        }
        result = entry.detect(infected, purified, config)
        save_detection(folder, result, infected.labels, made)
    sure = "" if result.conclusion == CANNOT_BE_JUDGED else f" (confidence {result.confidence:.2f})"
    say(f"detect: {verdict_of(result, first.get('classes', ()))}{sure}")
    if result.unjudged and "hint" in first:
        say(f"detect: {first['hint']}")
    return {
        "accused_images": int((result.verdict == POISONED).sum()),
        "target_classes": len(result.target_labels),
        "unjudged_classes": len(result.unjudged),
        "confidence": result.confidence,
    }
