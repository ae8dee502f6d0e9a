"""How MLflow's pages show our experiment: as one of models, with a view of its runs that has what a reviewer asks."""

import json
import time

VIEW = "pud"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# tags: written by pud.reporting.tracking.log_findings; metrics: those of a run's last stage
COLUMNS = (
    "tags.`pud.verdict_code`",
    "tags.`pud.target_labels`",
    "tags.`pud.accused_images`",
    "metrics.`clean_accuracy`",
    "metrics.`attack_success_rate`",
    "metrics.`robust_accuracy_pgd`",
    "metrics.`seconds`",
)


def experiment_tags() -> dict[str, str]:
    """Return the tags by which MLflow's UI knows the kind of an experiment, and the view.

    The view is as the UI itself saves one: under *Views*, and by its key in an address. People may change it there.
    """
    now = int(1000 * time.time())
    widths = {column: 7 * len(column.split("`")[1]) + 24 for column in COLUMNS}  # pixels, so that no header is cut
    state = json.dumps({"selectedColumns": COLUMNS, "columnOrder": COLUMNS, "columnWidths": widths})
    view = {"name": "PUD: verdict and accuracies", "createdAt": now, "updatedAt": now, "state": state}
    return {"mlflow.experimentKind": "custom_model_development", VIEW_TAG: json.dumps(view)}


def page_of(experiment_id: str, tags: dict[str, str]) -> str:
    """Return where below a server's address MLflow's UI shows an experiment's runs, in the view if it has it.

    Without the workflow MLflow 3.17 opens pages for language models, whatever kind the experiment is of.
    """
    view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in tags else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning{view}"
