"""Component conclude: CPU pool; never cached where it leaves something in MLflow."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from components.artifacts import Detection, Findings, Probe, Report


@dsl.component(base_image="pud", install_kfp_package=False)
def conclude(
    kind: str,
    model: Input[Model],
    dataset: Input[Dataset],
    infected_probe: Input[Probe],
    detection: Input[Detection],
    command: str,
    tracking: dict,
    job: str,
    job_name: str,
    findings: Output[Findings],
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    purified: Input[Model] = None,  # KFP does not import a type inside Optional
    probe: Input[Probe] = None,
    report: Input[Report] = None,
) -> None:
    """Say what was found: a verdict for machines and a page for people, which the Kubeflow UI shows."""
    import shutil
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from components.tracking import tracking_of
    from pud.steps.conclude import PAGE, SUMMARY, conclude_step

    with guarded(model, dataset, infected_probe, detection, purified, probe, report):
        values = conclude_step(
            kind,
            Path(model.path),
            Path(dataset.path),
            Path(infected_probe.path),
            Path(detection.path),
            purified=Path(purified.path) if purified else None,
            probe=Path(probe.path) if probe else None,
            report=Path(report.path) if report else None,
            command=command,
            tracking=tracking_of(tracking, job, job_name),
            findings=Path(findings.path),
        )
        for artifact, file in ((page, PAGE), (summary, SUMMARY)):
            shutil.copyfile(Path(findings.path) / file, artifact.path)
        leave(metrics, values)
