"""Where a task finds its tracking server."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pud.tracking import Tracking


def tracking_of(settings: dict[str, Any], job: str, job_name: str = "") -> "Tracking | None":
    """Return the tracking that a pipeline parameter describes; None where it is off.

    An empty uri stands for MLFLOW_TRACKING_URI, which the config map sets in a cluster; an empty run_key for the
    job, which no other run shares, as two runs may share a name.
    """
    uri = settings.get("uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if settings.get("off") or not uri:
        return None
    from pud.tracking import Tracking

    key, name = settings.get("run_key") or job, settings.get("name") or job_name
    return Tracking(uri, settings.get("experiment") or Tracking.experiment, key, name)
