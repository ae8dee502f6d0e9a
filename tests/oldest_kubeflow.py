"""Parse a compiled pipeline as the oldest supported Kubeflow Pipelines does: every field known, nothing ignored.

python -I -S tests/oldest_kubeflow.py FOLDER < JSON; FOLDER holds that release's protobufs and the protobuf library, and
nothing else is importable. JSON: [pipeline spec, platform document]. Prints the number of executors.
"""

import importlib.util
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(folder))

from google.protobuf.json_format import ParseDict  # noqa: E402
from kfp.pipeline_spec import pipeline_spec_pb2  # noqa: E402

path = folder / "kfp" / "kubernetes" / "kubernetes_executor_config_pb2.py"  # its package imports the whole SDK
found = importlib.util.spec_from_file_location("kubernetes_executor_config_pb2", path)
kubernetes_executor_config_pb2 = importlib.util.module_from_spec(found)
found.loader.exec_module(kubernetes_executor_config_pb2)

assert {Path(module.__file__).is_relative_to(folder) for module in (pipeline_spec_pb2, kubernetes_executor_config_pb2)}
spec, platform = json.load(sys.stdin)
ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
for config in executors.values():
    ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
print(len(executors))
