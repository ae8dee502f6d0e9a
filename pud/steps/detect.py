"""Step detect: the evidence of the infected and of the current model in, a verdict on every training image out."""

import dataclasses
from pathlib import Path

import numpy as np

from pud.detection import POISONED, DetectConfig, detect
from pud.errors import InputError
from pud.progress import say
from pud.steps.artifacts import load_evidence, save_detection, timed_folder, timing


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
        made = {
            "rounds_done": about["rounds_done"],
            "adversarial_share": about["adversarial_share"],
            "settings": {"probe": about["settings"], "detect": dataclasses.asdict(config)},
        }
        result = detect(infected, current, config)
        save_detection(folder, result, infected.labels, made)
    accused = int((result.verdict == POISONED).sum())
    named = f"target class {', '.join(map(str, result.target_labels))}" if result.target_labels else "none found"
    say(f"detect: {accused} of {len(infected.labels)} images accused, {named} (confidence {result.confidence:.2f})")
    return {"accused_images": accused, "target_classes": len(result.target_labels), "confidence": result.confidence}
