"""Component adversarial probe: GPU pool."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.artifacts import Probe


@dsl.component(base_image="pud", install_kfp_package=False)
def adversarial_probe(
    model: Input[Model],
    dataset: Input[Dataset],
    train_settings: dict,
    settings: dict,
    seed: int,
    device: str,
    probe: Output[Probe],
    metrics: Output[Metrics],
) -> None:
    """Gather every evidence that detection needs from a model; settings: pud.evidence.probing.ProbeConfig.

    train_settings: of the network, whose code may run here only where the user names it (``architecture``).
    """
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from pud.base.config import from_mapping
    from pud.evidence.probing import ProbeConfig
    from pud.steps.probe import probe_step

    with guarded(model, dataset):
        values = probe_step(
            Path(model.path),
            Path(dataset.path),
            from_mapping(ProbeConfig, settings),
            seed=seed,
            device=device,
            architecture=train_settings.get("architecture") or None,
            probe_folder=Path(probe.path),
        )
        leave(metrics, values)
