"""Step detect: the evidence of the infected and of the current model in, a verdict on every training image out."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pud.artifacts.results import load_evidence, save_detection, timed_folder, timing, verdict_of
from pud.base.errors import InputError
from pud.base.progress import say
from pud.detectors.pud import CANNOT_BE_JUDGED, POISONED, DetectConfig, detect


def detect_step(infected_probe: Path, probe: Path, config: DetectConfig, *, detection: Path) -> dict[str, float]:
    """Judge the training images into the folder ``detection``. In round 0 both probes are the infected model's."""
    infected, first = load_evidence(infected_probe)
    current, about = load_evidence(probe)
    if first["rounds_done"]:
        raise InputError(
            f"{infected_probe} is of a model after round {first['rounds_done']}: give the infected model's"
        )
    if infected.logits.shape != current.logits.shape or not np.array_equal(infected.labels, current.labels):
        raise InputError(f"{infected_probe} and {probe} are about other images: give two probes of one data set")
    if not about["rounds_done"]:
        current = infected
    with timed_folder(detection, "detect", "detection.json", infected_probe, probe, before=timing(probe)) as folder:
        made: dict[str, Any] = {
            "rounds_done": about["rounds_done"],
            "adversarial_share": about["adversarial_share"],
            "settings": {"probe": about["settings"], "detect": dataclasses.asdict(config)},
            **{key: first[key] for key in ("classes", "hint") if key in first},
        }
        result = detect(infected, current, config)
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
