"""The DAG of a scan: check -> receive -> probe -> detect -> conclude. A model and its data in, a verdict out."""

from pathlib import Path

from kfp import dsl

from components.check import check
from components.conclude import conclude
from components.receive import receive
from pipelines.placement import on_cpu_pool, on_gpu_pool, with_data
from pipelines.rounds import DETECT, GPU_TOLERATIONS, PROBE, TRAIN, Rounds, main
from pud import __version__

COMPILED = Path(__file__).with_name("scan.yaml")


@dsl.pipeline(name="scan", description="Is there a backdoor in a model, by what it makes of its training data?")
def scan(
    model_uri: str = "",
    model_digest: str = "",
    model_settings: dict = {},  # noqa: B006  pud.exchange.models.ModelConfig
    data_uri: str = "file:data",
    data_digest: str = "",
    pictures: str = "",  # other: labelled, but not those that the model was trained on
    cache_period: str = "",  # see pipelines/pud.py
    seed: int = 0,
    device: str = "auto",
    train_settings: dict = TRAIN,
    probe_settings: dict = PROBE,
    detect_settings: dict = DETECT,
    command: str = "",  # how to do the same again, for the page
    image: str = f"pud:{__version__}",
    accelerator: str = "nvidia.com/gpu",
    accelerator_count: str = "1",
    gpu_node_selector: dict = {},  # noqa: B006
    gpu_tolerations: list = GPU_TOLERATIONS,
    cpu_node_selector: dict = {},  # noqa: B006
    cpu_tolerations: list = [],  # noqa: B006
) -> None:
    """Look at a model and its data, and change nothing."""
    cpu = (image, cpu_node_selector, cpu_tolerations)
    gpu = (image, gpu_node_selector, gpu_tolerations, accelerator, accelerator_count)
    checked = check(
        model_settings=model_settings,
        train_settings=train_settings,
        probe_settings=probe_settings,
        detect_settings=detect_settings,
    )
    on_cpu_pool(checked, *cpu, retries=0)
    received = receive(
        model_uri=model_uri,
        model_digest=model_digest,
        model_settings=model_settings,
        data_uri=data_uri,
        data_digest=data_digest,
        pictures=pictures,
        train_settings=train_settings,
        cache_period=cache_period,
        seed=seed,
        device=device,
    )
    with_data(on_gpu_pool(received, *gpu).after(checked))
    dataset = received.outputs["dataset"]
    rounds = Rounds(dataset, model_settings, probe_settings, detect_settings, seed, device, cpu, gpu)
    model = received.outputs["model"]
    probe, detection = rounds.assess(model)
    concluded = conclude(
        kind="scan",
        model=model,
        dataset=dataset,
        infected_probe=probe,
        detection=detection,
        command=command,
        tracking={"off": True},
        job="",
        job_name="",
    )
    on_cpu_pool(concluded, *cpu)


if __name__ == "__main__":
    main(scan, COMPILED)
