"""Component purify: GPU pool."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.artifacts import Detection


@dsl.component(base_image="pud", install_kfp_package=False)
def purify(
    model: Input[Model],
    dataset: Input[Dataset],
    detection: Input[Detection],
    train_settings: dict,
    settings: dict,
    seed: int,
    device: str,
    purified: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Run the next round on a model or state; settings: a defence and its own, see pud.defences.defence_settings.

    train_settings: of the network, whose code may run here only where the user names it (``architecture``).
    """
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from pud.defences import defence_settings
    from pud.steps.purify import purify_step

    with guarded(model, dataset, detection):
        defence, config = defence_settings(settings)
        values = purify_step(
            Path(model.path),
            Path(dataset.path),
            Path(detection.path),
            config,
            defence=defence.name,
            seed=seed,
            device=device,
            architecture=train_settings.get("architecture") or None,
            purified=Path(purified.path),
        )
        leave(metrics, values)
