"""Component evaluate: GPU pool; the only one that takes the ground truth, never cached."""

from kfp import dsl
from kfp.dsl import ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.artifacts import Detection, GroundTruth, Report


@dsl.component(base_image="pud", install_kfp_package=False)
def evaluate(
    stage: str,
    model: Input[Model],
    dataset: Input[Dataset],
    ground_truth: Input[GroundTruth],
    train_settings: dict,
    settings: dict,
    tracking: dict,
    job: str,
    job_name: str,
    git_commit: str,
    data_uri: str,
    seed: int,
    device: str,
    report: Output[Report],
    metrics: Output[Metrics],
    curves: Output[ClassificationMetrics],
    detection: Input[Detection] = None,  # KFP does not import a type inside Optional
    previous_report: Input[Report] = None,
) -> None:
    """Measure a model at a stage and extend the report; settings: pud.adversarial.robustness.EvaluateConfig.

    train_settings: of the network, whose code may run here only where the user names it (``architecture``).
    """
    import os
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave, show
    from components.tracking import tracking_of
    from pud.adversarial.robustness import EvaluateConfig
    from pud.base.config import from_mapping
    from pud.steps.evaluate import CLASSIFICATION, evaluate_step

    with guarded(model, dataset, ground_truth, detection, previous_report):
        values = evaluate_step(
            stage,
            Path(model.path),
            Path(dataset.path),
            Path(ground_truth.path),
            from_mapping(EvaluateConfig, settings),
            report=Path(report.path),
            detection=Path(detection.path) if detection else None,
            previous_report=Path(previous_report.path) if previous_report else None,
            seed=seed,
            device=device,
            architecture=train_settings.get("architecture") or None,
            git_commit=git_commit or os.environ.get("PUD_COMMIT", ""),  # the image's
            data_uri=data_uri,
            tracking=tracking_of(tracking, job, job_name),
        )
        leave(metrics, values)
        show(curves, Path(report.path) / CLASSIFICATION)
