"""Component gate: CPU pool; never cached, for it makes a champion."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Output

from components.artifacts import Findings, Report


@dsl.component(base_image="pud", install_kfp_package=False)
def gate(
    findings: Input[Findings],
    settings: dict,
    registered_name: str,
    tracking: dict,
    job: str,
    job_name: str,
    gates: Output[Artifact],
    metrics: Output[Metrics],
    report: Input[Report] = None,  # KFP does not import a type inside Optional
) -> None:
    """Fail unless a repaired model may be used; settings: pud.reporting.gates.GateConfig."""
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from components.tracking import tracking_of
    from pud.base.config import from_mapping
    from pud.reporting.gates import GateConfig
    from pud.steps.gate import gate_step

    with guarded(findings, report):
        values = gate_step(
            Path(findings.path),
            Path(report.path) if report else None,
            from_mapping(GateConfig, settings),
            gate=Path(gates.path),
            name=registered_name,
            tracking=tracking_of(tracking, job, job_name),
        )
        leave(metrics, values)
