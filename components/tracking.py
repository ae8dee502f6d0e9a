"""Where a task finds its tracking server, and how MLflow names what became of the pipeline."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

# Kubeflow's backend hands over the metadata store's name of a state (Execution.State), kfp.local its own (RuntimeState)
ENDED = {"COMPLETE": "FINISHED", "CACHED": "FINISHED", "SUCCEEDED": "FINISHED", "CANCELED": "KILLED"}


def ended_as(state: str) -> str:
    """Return MLflow's status of a run whose pipeline ended in this state; one that is not known has failed."""
    return ENDED.get(state, "FAILED")


def tracking_of(settings: dict[str, Any], job: str, job_name: str = "") -> "Tracking | None":
    """Return the tracking that a pipeline parameter describes; None where it is off.

    An empty uri stands for MLFLOW_TRACKING_URI, which the config map sets in a cluster; an empty run_key for the
    job, which no other run shares, as two runs may share a name.

    Raises:
        InputError: the parameter is not what pud.steps.settings.check_tracking takes.
    """
    from pud.steps.settings import check_tracking

    check_tracking(settings)
    uri = settings.get("uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if settings.get("off") or not uri:
        return None
    from pud.reporting.tracking import Tracking

    key, name = settings.get("run_key") or job, settings.get("name") or job_name
    return Tracking(uri, settings.get("experiment") or Tracking.experiment, key, name)
