"""Where a task runs in the cluster: node pool, requests, retries, timeout, shared memory, identity.

KFP 2.17 hands a retry to Argo without a policy, and Argo's own is OnFailure: a pod that its node took along (evicted,
preempted) is an Error and is not retried. A cluster with spot nodes needs in Argo's workflow-controller-configmap
``workflowDefaults: {spec: {templateDefaults: {retryStrategy: {limit: 3, retryPolicy: Always}}}}``, which fills
what a template leaves open; see manifests/README.md.
"""

import os
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

GPU_HOURS, CPU_HOURS, QUEUE_HOURS = 6, 1, 24  # the last: waiting for a node, all tries together
RETRIES = 3
USER_ID = 1000

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
CA_MAP, CA_FOLDER = "pud-ca", "/etc/pud/ca"  # with ca.crt, the authorities of a site's own; pud.storage.MOUNTED_CA
DATA_CACHE, DATA_CACHE_SIZE = "/var/cache/pud", "64Gi"  # pud.storage.MOUNTED_CACHE
DATA_CACHE_PVC = os.environ.get("DATA_CACHE_PVC", "")  # make compile DATA_CACHE_PVC=NAME: shared by runs


def with_data(task: PipelineTask) -> PipelineTask:
    """Let a task fetch the data set from the object store, into a cache on a PVC or an empty directory."""
    kubernetes.use_config_map_as_env(task, STORAGE_MAP, STORAGE_MAP_KEYS, optional=True)
    kubernetes.use_secret_as_env(task, STORAGE_SECRET, STORAGE_SECRET_KEYS, optional=True)
    if DATA_CACHE_PVC:
        return kubernetes.mount_pvc(task, pvc_name=DATA_CACHE_PVC, mount_path=DATA_CACHE)
    return kubernetes.empty_dir_mount(task, "data-cache", DATA_CACHE, size_limit=DATA_CACHE_SIZE)


def on_cpu_pool(
    task: PipelineTask, image: Any, node_selector: Any, tolerations: Any, *, cached: bool = True
) -> PipelineTask:
    """Place a task on the CPU node pool."""
    task.set_cpu_request("1").set_cpu_limit("4").set_memory_request("4Gi").set_memory_limit("16Gi")
    return _placed(task, image, node_selector, tolerations, cached, CPU_HOURS)


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
    return _placed(task, image, node_selector, tolerations, cached, GPU_HOURS)


def _placed(
    task: PipelineTask, image: Any, node_selector: Any, tolerations: Any, cached: bool, hours: int
) -> PipelineTask:
    task.set_container_image(image).set_caching_options(cached)
    kubernetes.set_timeout(task, hours * 3600)
    # Argo counts the longest time from the beginning of the first try, not of the last wait
    longest = f"{(RETRIES + 1) * hours + QUEUE_HOURS}h"
    task.set_retry(RETRIES, backoff_duration="30s", backoff_factor=2, backoff_max_duration=longest)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.set_security_context(task, run_as_user=USER_ID, run_as_group=USER_ID, run_as_non_root=True)
    kubernetes.use_config_map_as_env(task, CONFIG_MAP, CONFIG_KEYS, optional=True)
    kubernetes.use_secret_as_env(task, SECRET, SECRET_KEYS, optional=True)
    kubernetes.use_config_map_as_volume(task, CA_MAP, CA_FOLDER, optional=True)
    return task
