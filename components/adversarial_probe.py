"""Component adversarial probe: GPU pool."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.artifacts import Probe


@dsl.component(base_image="pud", install_kfp_package=False)
def adversarial_probe(
    model: Input[Model],
    dataset: Input[Dataset],
    settings: dict,
    seed: int,
    device: str,
    probe: Output[Probe],
    metrics: Output[Metrics],
) -> None:
    """Gather every evidence that detection needs from a model; settings: pud.evidence.probing.ProbeConfig."""
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from pud.base.config import from_mapping
    from pud.evidence.probing import ProbeConfig
    from pud.steps.probe import probe_step

    with guarded(model, dataset):
        config = from_mapping(ProbeConfig, settings)
        folders = (Path(model.path), Path(dataset.path))
        leave(metrics, probe_step(*folders, config, seed=seed, device=device, probe_folder=Path(probe.path)))
