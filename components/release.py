"""Component release: CPU pool; never cached, for it registers a model."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.artifacts import Detection, Findings


@dsl.component(base_image="pud", install_kfp_package=False)
def release(
    model: Input[Model],
    purified: Input[Model],
    dataset: Input[Dataset],
    detection: Input[Detection],
    findings: Input[Findings],
    model_settings: dict,
    formats: list,
    registered_name: str,
    tracking: dict,
    job: str,
    job_name: str,
    device: str,
    repaired: Output[Model],
    cleaned: Output[Dataset],
    metrics: Output[Metrics],
) -> None:
    """Write the repaired model in the form in which it came, and the cleaned data set.

    model_settings: of the network, whose code may run here only where the user names it (``architecture``).
    """
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from components.tracking import tracking_of
    from pud.steps.release import release_step

    with guarded(model, purified, dataset, detection, findings):
        values = release_step(
            Path(model.path),
            Path(purified.path),
            Path(dataset.path),
            Path(detection.path),
            Path(findings.path),
            formats=formats,
            device=device,
            architecture=model_settings.get("architecture") or None,
            name=registered_name,
            tracking=tracking_of(tracking, job, job_name),
            repaired=Path(repaired.path),
            cleaned=Path(cleaned.path),
        )
        leave(metrics, values)
