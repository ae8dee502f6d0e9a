"""The DAG of a defence: check -> receive -> [probe -> detect -> purify -> measure] x rounds -> conclude -> release.

A model and its data from outside in; a verdict, the repaired model and the cleaned data out. It knows no ground truth.
At the end stands a gate: it fails where the repaired model is not fit for release, else it becomes the champion.
"""

from pathlib import Path
from typing import Any

from kfp import dsl

from components.check import check
from components.finish import finish
from components.gate import gate
from components.measure import measure
from components.receive import receive
from components.release import release
from pipelines.placement import on_cpu_pool, on_gpu_pool, with_data
from pipelines.rounds import DETECT, EVALUATE, GPU_TOLERATIONS, PROBE, PURIFY, TRAIN, Rounds, main
from pud import __version__

COMPILED = Path(__file__).with_name("defend.yaml")


@dsl.pipeline(name="repair")
def repair(
    model_uri: str,
    model_digest: str,
    model_settings: dict,
    data_uri: str,
    data_digest: str,
    cache_period: str,
    seed: int,
    device: str,
    train_settings: dict,
    probe_settings: dict,
    detect_settings: dict,
    purify_settings: dict,
    evaluate_settings: dict,
    gate_settings: dict,
    formats: list,
    registered_name: str,
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
    """Purify a model and its training data round by round, and hand over what may be shipped."""
    cpu = (image, cpu_node_selector, cpu_tolerations)
    gpu = (image, gpu_node_selector, gpu_tolerations, accelerator, accelerator_count)
    checked = check(
        model_settings=model_settings,
        train_settings=train_settings,
        probe_settings=probe_settings,
        detect_settings=detect_settings,
        purify_settings=purify_settings,
        evaluate_settings=evaluate_settings,
        gate_settings=gate_settings,
        formats=formats,
        tracking=tracking,
    )
    on_cpu_pool(checked, *cpu, retries=0)
    received = receive(
        model_uri=model_uri,
        model_digest=model_digest,
        model_settings=model_settings,
        data_uri=data_uri,
        data_digest=data_digest,
        train_settings=train_settings,
        cache_period=cache_period,
        seed=seed,
        device=device,
    )
    with_data(on_gpu_pool(received, *gpu).after(checked))
    model, dataset = received.outputs["model"], received.outputs["dataset"]

    def measured(stage: str, model: Any, **known: Any) -> Any:
        task = measure(
            stage=stage,
            model=model,
            dataset=dataset,
            model_settings=model_settings,
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
        return on_gpu_pool(task, *gpu, cached=False)

    rounds = Rounds(dataset, model_settings, probe_settings, detect_settings, seed, device, cpu, gpu)
    last = rounds.run(model, purify_settings, measured)
    findings = rounds.conclude("defence", model, last, command, tracking)
    released = release(
        model=model,
        purified=last["purified"],
        dataset=dataset,
        detection=last["detection"],
        findings=findings,
        model_settings=model_settings,
        formats=formats,
        registered_name=registered_name,
        job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        job_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        tracking=tracking,
        device=device,
    )
    on_cpu_pool(released, *cpu, cached=False)
    gated = gate(
        findings=findings,
        report=last["report"],
        settings=gate_settings,
        registered_name=registered_name,
        job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        job_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        tracking=tracking,
    )
    on_cpu_pool(gated.after(released), *cpu, cached=False, retries=0)


@dsl.pipeline(name="defend", description="Progressive Unified Defense of a model and its data from outside")
def defend(
    model_uri: str = "",
    model_digest: str = "",
    model_settings: dict = {},  # noqa: B006  pud.exchange.models.ModelConfig
    data_uri: str = "file:data",
    data_digest: str = "",
    cache_period: str = "",  # see pipelines/pud.py
    seed: int = 0,
    device: str = "auto",
    train_settings: dict = TRAIN,
    probe_settings: dict = PROBE,
    detect_settings: dict = DETECT,
    purify_settings: dict = PURIFY,
    evaluate_settings: dict = EVALUATE,
    gate_settings: dict = {},  # noqa: B006  pud.reporting.gates.GateConfig
    formats: list = [],  # noqa: B006  of the repaired model beside the one in which it came: pt2, onnx
    registered_name: str = "pud",  # of the repaired model in MLflow
    command: str = "",  # how to do the same again, for the page
    tracking: dict = {},  # noqa: B006  see pipelines/pud.py
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
        repair(
            model_uri=model_uri,
            model_digest=model_digest,
            model_settings=model_settings,
            data_uri=data_uri,
            data_digest=data_digest,
            cache_period=cache_period,
            seed=seed,
            device=device,
            train_settings=train_settings,
            probe_settings=probe_settings,
            detect_settings=detect_settings,
            purify_settings=purify_settings,
            evaluate_settings=evaluate_settings,
            gate_settings=gate_settings,
            formats=formats,
            registered_name=registered_name,
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
    main(defend, COMPILED)
