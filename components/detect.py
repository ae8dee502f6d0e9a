"""Component detect: CPU pool."""

from kfp import dsl
from kfp.dsl import Input, Metrics, Output

from components.artifacts import Detection, Probe


@dsl.component(base_image="pud", install_kfp_package=False)
def detect(
    infected_probe: Input[Probe],
    probe: Input[Probe],
    settings: dict,
    detection: Output[Detection],
    metrics: Output[Metrics],
) -> None:
    """Judge every training image; settings: a detector and its own, see pud.detectors.detector_settings."""
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from pud.detectors import detector_settings
    from pud.steps.detect import detect_step

    with guarded(infected_probe, probe):
        detector, config = detector_settings(settings)
        probes = (Path(infected_probe.path), Path(probe.path))
        leave(metrics, detect_step(*probes, config, detector=detector.name, detection=Path(detection.path)))
