"""The DAG: poison -> train -> probe -> [detect -> purify -> evaluate -> probe] x rounds -> detect -> evaluate.

The bracket is a nested pipeline, unrolled when this is compiled (``make compile``). Every evaluate extends the report
of the one before it; only poison, evaluate and nothing else touch the ground truth.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Model

from components.adversarial_probe import adversarial_probe
from components.artifacts import GroundTruth, Probe, Report
from components.detect import detect
from components.evaluate import evaluate
from components.finish import finish
from components.poison import poison
from components.purify import purify
from components.train import train
from pipelines.placement import on_cpu_pool, on_gpu_pool
from pud import __version__
from pud.config import as_parameters
from pud.detection import DetectConfig
from pud.poisoning import PoisonConfig
from pud.probing import ProbeConfig
from pud.purification import PurifyConfig
from pud.report import INFECTED, PURIFIED, ROUND
from pud.robustness import EvaluateConfig
from pud.training import TrainConfig

ROUNDS = len(PurifyConfig.keep)
COMPILED = Path(__file__).with_name("pud.yaml")

# The settings of a step are one parameter; what a caller leaves out keeps the default of its config.
TRAIN, PROBE, DETECT = as_parameters(TrainConfig()), as_parameters(ProbeConfig()), as_parameters(DetectConfig())
PURIFY, EVALUATE = as_parameters(PurifyConfig()), as_parameters(EvaluateConfig())
GPU_TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


class RoundOutputs(NamedTuple):
    """What a round hands to the next."""

    purified: Model
    probe: Probe
    report: Report


@dsl.pipeline(name="purification-round")
def purification_round(
    dataset: Input[Dataset],
    ground_truth: Input[GroundTruth],
    model: Input[Model],
    infected_probe: Input[Probe],
    probe: Input[Probe],
    previous_report: Input[Report],
    seed: int,
    device: str,
    probe_settings: dict,
    detect_settings: dict,
    purify_settings: dict,
    evaluate_settings: dict,
    tracking: dict,
    git_commit: str,
    data_uri: str,
    image: str,
    accelerator: str,
    accelerator_count: str,
    gpu_node_selector: dict,
    gpu_tolerations: list,
    cpu_node_selector: dict,
    cpu_tolerations: list,
) -> RoundOutputs:
    """Detect from what the last probe saw, purify, measure, and probe the purified model."""
    gpu = (image, gpu_node_selector, gpu_tolerations, accelerator, accelerator_count)
    detected = detect(infected_probe=infected_probe, probe=probe, settings=detect_settings)
    on_cpu_pool(detected, image, cpu_node_selector, cpu_tolerations)
    purified = purify(
        model=model,
        dataset=dataset,
        detection=detected.outputs["detection"],
        settings=purify_settings,
        seed=seed,
        device=device,
    )
    on_gpu_pool(purified, *gpu)
    measured = evaluate(
        stage=ROUND,
        model=purified.outputs["purified"],
        dataset=dataset,
        ground_truth=ground_truth,
        detection=detected.outputs["detection"],
        previous_report=previous_report,
        settings=evaluate_settings,
        tracking=tracking,
        job=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        git_commit=git_commit,
        data_uri=data_uri,
        seed=seed,
        device=device,
    )
    on_gpu_pool(measured, *gpu, cached=False)
    probed = adversarial_probe(
        model=purified.outputs["purified"],
        dataset=dataset,
        settings=probe_settings,
        seed=seed,
        device=device,
    )
    on_gpu_pool(probed, *gpu)
    return RoundOutputs(purified.outputs["purified"], probed.outputs["probe"], measured.outputs["report"])


@dsl.pipeline(name="pud", description="Progressive Unified Defense against backdoors and adversarial examples")
def pud(
    data_uri: str = "file:data",
    data_digest: str = "",
    trigger: str = PoisonConfig.trigger,
    poison_rate: float = PoisonConfig.poison_rate,
    target_label: int = PoisonConfig.target_label,
    train_size: int = PoisonConfig.train_size,
    seed: int = 0,
    device: str = "auto",
    train_settings: dict = TRAIN,
    probe_settings: dict = PROBE,
    detect_settings: dict = DETECT,
    purify_settings: dict = PURIFY,
    evaluate_settings: dict = EVALUATE,
    tracking: dict = {},  # noqa: B006  keys: uri, experiment, run_key, off; KFP wants a plain default
    git_commit: str = "",
    image: str = f"pud:{__version__}",
    accelerator: str = "nvidia.com/gpu",
    accelerator_count: str = "1",
    gpu_node_selector: dict = {},  # noqa: B006
    gpu_tolerations: list = GPU_TOLERATIONS,
    cpu_node_selector: dict = {},  # noqa: B006
    cpu_tolerations: list = [],  # noqa: B006
) -> None:
    """Infect a classifier, purify it and its training data round by round, and measure every round."""
    job = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    cpu = (image, cpu_node_selector, cpu_tolerations)
    gpu = (image, gpu_node_selector, gpu_tolerations, accelerator, accelerator_count)
    record = {"tracking": tracking, "git_commit": git_commit, "data_uri": data_uri, "seed": seed, "device": device}
    closed = on_cpu_pool(finish(tracking=tracking, job=job), *cpu, cached=False)
    with dsl.ExitHandler(closed, name="always-close-tracking"):
        poisoned = poison(
            data_uri=data_uri,
            data_digest=data_digest,
            trigger=trigger,
            poison_rate=poison_rate,
            target_label=target_label,
            train_size=train_size,
            seed=seed,
        )
        on_cpu_pool(poisoned, *cpu)
        dataset, ground_truth = poisoned.outputs["dataset"], poisoned.outputs["ground_truth"]
        trained = on_gpu_pool(train(dataset=dataset, settings=train_settings, seed=seed, device=device), *gpu)
        model = trained.outputs["model"]
        measured = evaluate(
            stage=INFECTED,
            model=model,
            dataset=dataset,
            ground_truth=ground_truth,
            settings=evaluate_settings,
            job=job,
            **record,
        )
        on_gpu_pool(measured, *gpu, cached=False)
        probed = adversarial_probe(model=model, dataset=dataset, settings=probe_settings, seed=seed, device=device)
        on_gpu_pool(probed, *gpu)
        probe, infected_probe, report = probed.outputs["probe"], probed.outputs["probe"], measured.outputs["report"]
        for _ in range(ROUNDS):
            done = purification_round(
                dataset=dataset,
                ground_truth=ground_truth,
                model=model,
                infected_probe=infected_probe,
                probe=probe,
                previous_report=report,
                probe_settings=probe_settings,
                detect_settings=detect_settings,
                purify_settings=purify_settings,
                evaluate_settings=evaluate_settings,
                image=image,
                accelerator=accelerator,
                accelerator_count=accelerator_count,
                gpu_node_selector=gpu_node_selector,
                gpu_tolerations=gpu_tolerations,
                cpu_node_selector=cpu_node_selector,
                cpu_tolerations=cpu_tolerations,
                **record,
            )
            model, probe, report = done.outputs["purified"], done.outputs["probe"], done.outputs["report"]
        judged = on_cpu_pool(detect(infected_probe=infected_probe, probe=probe, settings=detect_settings), *cpu)
        final = evaluate(
            stage=PURIFIED,
            model=model,
            dataset=dataset,
            ground_truth=ground_truth,
            detection=judged.outputs["detection"],
            previous_report=report,
            settings=evaluate_settings,
            job=job,
            **record,
        )
        on_gpu_pool(final, *gpu, cached=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile the pipeline.")
    parser.add_argument("out", nargs="?", type=Path, default=COMPILED)
    compiler.Compiler().compile(pud, str(parser.parse_args().out))
