"""Component train: GPU pool."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="pud", install_kfp_package=False)
def train(
    dataset: Input[Dataset],
    settings: dict,
    seed: int,
    device: str,
    model: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Train a model plainly; settings are those of pud.models.training.TrainConfig."""
    from pathlib import Path

    from components.guard import guarded
    from components.metrics import leave
    from pud.base.config import from_mapping
    from pud.models.training import TrainConfig
    from pud.steps.train import train_step

    with guarded(dataset):
        config = from_mapping(TrainConfig, settings)
        leave(metrics, train_step(Path(dataset.path), config, seed=seed, device=device, model=Path(model.path)))
