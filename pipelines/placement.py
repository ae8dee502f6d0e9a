"""Where a task runs in the cluster: node pool, requests, retries, timeout, disk, shared memory.

What is in proportion to the data set is set when this is compiled: ``make compile DATA_GIB=16`` for images of 16 GiB.

Nothing here asks for a security context: Kubeflow 1.11 ships KFP 2.15, which refuses a platform document that holds
one. The image's own user is not root (Dockerfile).

KFP hands a retry to Argo without a condition. What that means, and the setting by which Argo tries lost pods again and
nothing else, is in manifests/README.md.
"""

import os
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from components.guard import DATA_VARIABLE

# The largest data set that the pipeline is compiled for, decompressed images in GiB; poison refuses a larger one.
DATA_GIB = float(os.environ.get("DATA_GIB", "4"))

# A pod is ended after a fixed time for what every step does, and a time for each GiB. That is generous: a step that
# stands still is ended long before, by itself (components/guard.py).
FIXED_SECONDS = 1200
GPU_SECONDS_PER_GIB, CPU_SECONDS_PER_GIB = 3600, 900
QUEUE_SECONDS = 24 * 3600  # waiting for a node, all tries together
GPU_RETRIES, CPU_RETRIES = 3, 1  # GPU pools are made of spot nodes, whose pods can be lost at any time

# KFP's launcher puts what a task reads and writes below /s3, a volume of this name without a limit: Kubernetes merges
# ours into it. A task reads and writes the data set at most once each, and models and probes beside.
SCRATCH, SCRATCH_NAME, SCRATCH_GIB = "/s3", "s3-scratch", 3 * DATA_GIB + 2

# Names that manifests/ documents; both are optional, so that a cluster without them still runs the pipeline.
CONFIG_MAP, SECRET = "pud-tracking", "pud-tracking-credentials"
CONFIG_KEYS = {"MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_URI"}
SECRET_KEYS = {
    "MLFLOW_TRACKING_USERNAME": "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD": "MLFLOW_TRACKING_PASSWORD",
}

STORAGE_MAP, STORAGE_SECRET = "pud-storage", "pud-storage-credentials"
STORAGE_MAP_KEYS = {name: name for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION")}
STORAGE_SECRET_KEYS = {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
CA_MAP, CA_FOLDER = (
    "pud-ca",
    "/etc/pud/ca",
)  # with ca.crt, the authorities of a site's own; pud.artifacts.storage.MOUNTED_CA
CA_KEYS = {"AWS_CA_BUNDLE": "AWS_CA_BUNDLE"}
# pud.artifacts.storage.MOUNTED_CACHE; what is replaced lies there twice
DATA_CACHE, DATA_CACHE_GIB = "/var/cache/pud", 2 * DATA_GIB + 1
DATA_CACHE_PVC = os.environ.get("DATA_CACHE_PVC", "")  # make compile DATA_CACHE_PVC=NAME: shared by runs


def with_data(task: PipelineTask) -> PipelineTask:
    """Let a task fetch the data set from the object store, into a cache on a PVC or an empty directory."""
    task.set_env_variable(DATA_VARIABLE, f"{DATA_GIB:g}")
    kubernetes.use_config_map_as_env(task, STORAGE_MAP, STORAGE_MAP_KEYS, optional=True)
    kubernetes.use_secret_as_env(task, STORAGE_SECRET, STORAGE_SECRET_KEYS, optional=True)
    if DATA_CACHE_PVC:
        return kubernetes.mount_pvc(task, pvc_name=DATA_CACHE_PVC, mount_path=DATA_CACHE)
    return kubernetes.empty_dir_mount(task, "data-cache", DATA_CACHE, size_limit=_gibibytes(DATA_CACHE_GIB))


def on_cpu_pool(
    task: PipelineTask,
    image: Any,
    node_selector: Any,
    tolerations: Any,
    *,
    cached: bool = True,
    retries: int = CPU_RETRIES,
) -> PipelineTask:
    """Place a task on the CPU node pool."""
    task.set_cpu_request("1").set_cpu_limit("4").set_memory_request("4Gi").set_memory_limit("16Gi")
    return _placed(task, image, node_selector, tolerations, cached, CPU_SECONDS_PER_GIB, retries)


def on_gpu_pool(
    task: PipelineTask,
    image: Any,
    node_selector: Any,
    tolerations: Any,
    accelerator: Any,
    accelerator_count: Any,
    *,
    cached: bool = True,
) -> PipelineTask:
    """Place a task on the GPU node pool, with shared memory for data loading."""
    task.set_cpu_request("2").set_cpu_limit("8").set_memory_request("8Gi").set_memory_limit("32Gi")
    task.set_accelerator_type(accelerator).set_accelerator_limit(accelerator_count)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="8Gi")
    return _placed(task, image, node_selector, tolerations, cached, GPU_SECONDS_PER_GIB, GPU_RETRIES)


def _placed(
    task: PipelineTask,
    image: Any,
    node_selector: Any,
    tolerations: Any,
    cached: bool,
    seconds_per_gib: int,
    retries: int,
) -> PipelineTask:
    task.set_container_image(image).set_caching_options(cached)
    seconds = FIXED_SECONDS + round(seconds_per_gib * DATA_GIB)
    kubernetes.set_timeout(task, seconds)
    if retries:
        # Argo counts the longest time from the beginning of the first try, not of the last wait
        longest = f"{(retries + 1) * seconds + QUEUE_SECONDS}s"
        task.set_retry(retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=longest)
    kubernetes.empty_dir_mount(task, SCRATCH_NAME, SCRATCH, size_limit=_gibibytes(SCRATCH_GIB))
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.use_config_map_as_env(task, CONFIG_MAP, CONFIG_KEYS, optional=True)
    kubernetes.use_secret_as_env(task, SECRET, SECRET_KEYS, optional=True)
    kubernetes.use_config_map_as_volume(task, CA_MAP, CA_FOLDER, optional=True)
    kubernetes.use_config_map_as_env(task, CA_MAP, CA_KEYS, optional=True)  # Kubeflow's launcher knows no other way
    return task


def _gibibytes(amount: float) -> str:
    """Return an amount as Kubernetes writes it."""
    return f"{round(1024 * amount)}Mi"
