"""Component receive: GPU pool, for a model that nobody gave is trained here."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Model, Output


@dsl.component(base_image="pud", install_kfp_package=False)
def receive(
    model_uri: str,
    model_digest: str,
    model_settings: dict,
    data_uri: str,
    data_digest: str,
    train_settings: dict,
    cache_period: str,
    seed: int,
    device: str,
    model: Output[Model],
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    pictures: str = "training",
) -> None:
    """Bring a model and its data from outside; model_settings: pud.exchange.models.ModelConfig.

    pictures: what they are to the model, see receive_step.

    cache_period does nothing but be another one: see component poison.
    """
    import os
    from pathlib import Path

    from components.guard import DATA_VARIABLE, guarded
    from components.metrics import leave
    from pud.base.config import from_mapping
    from pud.exchange.models import ModelConfig
    from pud.models.training import TrainConfig
    from pud.steps.receive import receive_step

    with guarded():
        values = receive_step(
            model_uri,
            model_digest,
            data_uri,
            data_digest,
            from_mapping(ModelConfig, model_settings),
            from_mapping(TrainConfig, train_settings),
            seed=seed,
            device=device,
            maximum_gib=float(os.environ.get(DATA_VARIABLE, "inf")),
            pictures=pictures,
            model=Path(model.path),
            dataset=Path(dataset.path),
        )
        leave(metrics, values)
