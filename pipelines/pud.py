"""The DAG of a rehearsal: check -> poison -> train -> [probe -> detect -> purify -> evaluate] x rounds -> probe ->
detect -> evaluate -> conclude.

The bracket is unrolled when this is compiled (``make compile``). Every evaluate extends the report of the one before
it; only poison, evaluate and nothing else touch the ground truth.

All tasks but the exit task are in one nested pipeline, and no component is in two: the compiler of KFP 2.17 lets a
nested task's node selector replace that of an outer task of the same component, and forgets to hand an accelerator
parameter into an exit handler.
"""

from pathlib import Path
from typing import Any

from kfp import dsl

from components.check import check
from components.evaluate import evaluate
from components.finish import finish
from components.poison import poison
from components.train import train
from pipelines.placement import on_cpu_pool, on_gpu_pool, with_data
from pipelines.rounds import DETECT, EVALUATE, GPU_TOLERATIONS, PROBE, PURIFY, TRAIN, Rounds, main
from pud import __version__
from pud.attacks.poisoning import PoisonConfig

COMPILED = Path(__file__).with_name("pud.yaml")


@dsl.pipeline(name="defence")
def defence(
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
    train_settings: dict,
    probe_settings: dict,
    detect_settings: dict,
    purify_settings: dict,
    evaluate_settings: dict,
    command: str,
    tracking: dict,
    git_commit: str,
    image: str,
    accelerator: str,
    accelerator_count: str,
    gpu_node_selector: dict,
    gpu_tolerations: list,
    cpu_node_selector: dict,
    cpu_tolerations: list,
) -> None:
    """Infect a classifier, purify it and its training data round by round, and measure every round."""
    cpu = (image, cpu_node_selector, cpu_tolerations)
    gpu = (image, gpu_node_selector, gpu_tolerations, accelerator, accelerator_count)
    checked = check(
        attack=attack,
        attack_settings=attack_settings,
        train_settings=train_settings,
        probe_settings=probe_settings,
        detect_settings=detect_settings,
        purify_settings=purify_settings,
        evaluate_settings=evaluate_settings,
        tracking=tracking,
    )
    on_cpu_pool(checked, *cpu, retries=0)
    poisoned = poison(
        data_uri=data_uri,
        data_digest=data_digest,
        attack=attack,
        attack_settings=attack_settings,
        mapping=mapping,
        poison_rate=poison_rate,
        target_label=target_label,
        train_size=train_size,
        cache_period=cache_period,
        seed=seed,
        device=device,
    )
    with_data(on_cpu_pool(poisoned, *cpu).after(checked))
    dataset, ground_truth = poisoned.outputs["dataset"], poisoned.outputs["ground_truth"]
    trained = on_gpu_pool(train(dataset=dataset, settings=train_settings, seed=seed, device=device), *gpu)

    def measure(stage: str, model: Any, **known: Any) -> Any:
        measured = evaluate(
            stage=stage,
            model=model,
            dataset=dataset,
            ground_truth=ground_truth,
            train_settings=train_settings,
            settings=evaluate_settings,
            job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            job_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            tracking=tracking,
            git_commit=git_commit,
            data_uri=data_uri,
            seed=seed,
            device=device,
            **known,
        )
        return on_gpu_pool(measured, *gpu, cached=False)

    model = trained.outputs["model"]
    rounds = Rounds(dataset, train_settings, probe_settings, detect_settings, seed, device, cpu, gpu)
    last = rounds.run(model, purify_settings, measure)
    rounds.conclude("rehearsal", model, last, command, tracking)


@dsl.pipeline(name="pud", description="Progressive Unified Defense against backdoors and adversarial examples")
def pud(
    data_uri: str = "file:data",
    data_digest: str = "",
    attack: str = PoisonConfig.attack,
    attack_settings: dict = {},  # noqa: B006  of the attack's own config: pud.attacks.attack_config
    mapping: str = PoisonConfig.mapping,
    poison_rate: float = PoisonConfig.poison_rate,
    target_label: int = PoisonConfig.target_label,
    train_size: int = PoisonConfig.train_size,
    cache_period: str = "",  # results of another period are not taken from Kubeflow's cache; pud submit gives it
    seed: int = 0,
    device: str = "auto",
    train_settings: dict = TRAIN,
    probe_settings: dict = PROBE,
    detect_settings: dict = DETECT,
    purify_settings: dict = PURIFY,
    evaluate_settings: dict = EVALUATE,
    command: str = "",  # how to do the same again, for the page
    tracking: dict = {},  # noqa: B006  pud.steps.settings.TRACKING, no password in the uri; KFP wants a plain default
    git_commit: str = "",
    image: str = f"pud:{__version__}",
    accelerator: str = "nvidia.com/gpu",
    accelerator_count: str = "1",
    gpu_node_selector: dict = {},  # noqa: B006
    gpu_tolerations: list = GPU_TOLERATIONS,
    cpu_node_selector: dict = {},  # noqa: B006
    cpu_tolerations: list = [],  # noqa: B006
) -> None:
    """Run the defence, and close its tracking run whatever happened."""
    closed = finish(tracking=tracking, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    on_cpu_pool(closed, image, cpu_node_selector, cpu_tolerations, cached=False)
    with dsl.ExitHandler(closed, name="always-close-tracking"):
        defence(
            data_uri=data_uri,
            data_digest=data_digest,
            attack=attack,
            attack_settings=attack_settings,
            mapping=mapping,
            poison_rate=poison_rate,
            target_label=target_label,
            train_size=train_size,
            cache_period=cache_period,
            seed=seed,
            device=device,
            train_settings=train_settings,
            probe_settings=probe_settings,
            detect_settings=detect_settings,
            purify_settings=purify_settings,
            evaluate_settings=evaluate_settings,
            command=command,
            tracking=tracking,
            git_commit=git_commit,
            image=image,
            accelerator=accelerator,
            accelerator_count=accelerator_count,
            gpu_node_selector=gpu_node_selector,
            gpu_tolerations=gpu_tolerations,
            cpu_node_selector=cpu_node_selector,
            cpu_tolerations=cpu_tolerations,
        )


if __name__ == "__main__":
    main(pud, COMPILED)
