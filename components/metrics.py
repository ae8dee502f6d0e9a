"""What a component leaves of its metrics."""

import json
from pathlib import Path

from kfp.dsl import Metrics


def leave(metrics: Metrics, values: dict[str, float]) -> None:
    """Write the metrics as ``metrics.json`` and show them in the Kubeflow UI.

    The local runner's cache takes a task with metrics as finished only if there is a file at their path.
    """
    path = Path(metrics.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, sort_keys=True) + "\n")
    for name, value in values.items():
        metrics.log_metric(name, value)
