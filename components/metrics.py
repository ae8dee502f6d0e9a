"""What a component leaves of its metrics."""

import json
from pathlib import Path

from kfp.dsl import ClassificationMetrics, Metrics


def leave(metrics: Metrics, values: dict[str, float]) -> None:
    """Write the metrics as ``metrics.json`` and show them in the Kubeflow UI.

    The local runner's cache takes a task with metrics as finished only if there is a file at their path.
    """
    path = Path(metrics.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, sort_keys=True) + "\n")
    for name, value in values.items():
        metrics.log_metric(name, value)


def show(classification: ClassificationMetrics, path: Path) -> None:
    """Let the Kubeflow UI draw what ``pud.evaluation.metrics.classification`` left in a file, if there is one.

    Its confusion matrix is square: who is unsure of an image does not accuse it.
    """
    if not path.is_file():
        return
    drawn = json.loads(path.read_text())
    if drawn["roc"]:
        classification.log_roc_curve(*(drawn["roc"][key] for key in ("fpr", "tpr", "threshold")))
    rows, counts = drawn["confusion"]["rows"], drawn["confusion"]["counts"]
    classification.log_confusion_matrix(rows, [[clean + unsure, accused] for clean, unsure, accused in counts])
