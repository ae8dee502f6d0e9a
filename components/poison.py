"""Component poison: CPU pool."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components.artifacts import GroundTruth


@dsl.component(base_image="pud", install_kfp_package=False)
def poison(
    data_uri: str,
    data_digest: str,
    attack: str,
    attack_settings: dict,
    mapping: str,
    poison_rate: float,
    target_label: int,
    train_size: int,
    cache_period: str,
    seed: int,
    device: str,
    dataset: Output[Dataset],
    ground_truth: Output[GroundTruth],
    metrics: Output[Metrics],
) -> None:
    """Plant a backdoor in the data set at data_uri; the ground truth is an artifact of its own.

    attack_settings are those of the attack's own config: pud.attacks.attack_config.

    cache_period does nothing but be another one: all later steps take what this one makes, so with it nothing of an
    earlier period, which may have expired in the object store, is taken from Kubeflow's cache.
    """
    import os
    from pathlib import Path

    from components.guard import DATA_VARIABLE, guarded
    from components.metrics import leave
    from pud.attacks import attack_config
    from pud.attacks.poisoning import PoisonConfig
    from pud.steps.poison import poison_step

    with guarded():
        values = poison_step(
            data_uri,
            data_digest,
            PoisonConfig(attack, mapping, poison_rate, target_label, train_size),
            attack_config(attack, attack_settings),
            seed=seed,
            device=device,
            maximum_gib=float(os.environ.get(DATA_VARIABLE, "inf")),
            dataset=Path(dataset.path),
            ground_truth=Path(ground_truth.path),
        )
        leave(metrics, values)
