"""The exit task: MLflow says of a run what became of its pipeline, in whichever words the platform says it."""

import json

import pytest
from kfp.dsl import PipelineTaskFinalStatus
from kfp_server_api import V2beta1RuntimeState
from servers import TrackingServer

from components.finish import finish
from components.tracking import ended_as, tracking_of
from pud.base.errors import InputError
from pud.reporting.tracking import Tracking, _client, parent_run
from pud.steps.settings import check_settings

# ml_metadata/proto/metadata_store.proto, Execution.State: what the backend's driver hands to an exit task
METADATA_STORE = ["UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED"]
ENDED_WELL = {"COMPLETE", "CACHED", "SUCCEEDED"}
SECRET = "opensesame"


@pytest.mark.parametrize("state", sorted({*METADATA_STORE, *V2beta1RuntimeState.allowable_values, "", "unheard of"}))
def test_each_state_of_the_platform_has_its_status_in_mlflow(state: str) -> None:
    wanted = "FINISHED" if state in ENDED_WELL else "KILLED" if state == "CANCELED" else "FAILED"
    assert ended_as(state) == wanted


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("CANCELED", "KILLED"), ("FAILED", "FAILED")])
def test_the_exit_task_ends_the_run_as_the_backend_says(state: str, status: str, server: TrackingServer) -> None:
    tracking = Tracking(server.uri, f"ended {state}", "a run")
    client, experiment, _ = _client(tracking)
    run = parent_run(client, experiment, tracking).info.run_id
    final = PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="run",
        pipeline_task_name="exit-handler-1",
        error_code=None,
        error_message=None,
    )
    finish.python_func({"uri": server.uri, "experiment": tracking.experiment}, "a run", final)
    assert client.get_run(run).info.status == status


@pytest.mark.parametrize(
    ("tracking", "words"),
    [
        ({"uri": f"http://somebody:{SECRET}@mlflow:5000"}, "secret pud-tracking-credentials"),
        ({"uri": f"postgresql://somebody:{SECRET}/x@mlflow/db"}, "MLFLOW_TRACKING_PASSWORD"),
        ({"uri": f"http://{SECRET}@mlflow:5000"}, "secret pud-tracking-credentials"),
        ({"url": SECRET}, "no setting url: choose from uri, experiment"),
        ({"uri": [SECRET]}, "tracking.uri is of type list: give a string"),
        ({"off": SECRET}, "tracking.off is of type str: give true or false"),
        ([SECRET], "tracking is no mapping"),
    ],
)
def test_a_wrong_tracking_parameter_is_refused_in_a_sentence_without_its_password(tracking: dict, words: str) -> None:
    for look in (lambda: check_settings({"tracking": tracking}), lambda: tracking_of(tracking, "a job")):
        with pytest.raises(InputError, match=words) as refused:
            look()
        assert SECRET not in str(refused.value)


def test_a_tracking_parameter_without_a_password_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"uri": "http://mlflow:5000", "experiment": "a@b", "run_key": "host:/home", "name": "n", "off": False}
    for tracking in ({}, {"off": True}, json.loads(json.dumps(whole))):
        check_settings({"tracking": tracking})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:{SECRET}@mlflow:5000")
    assert tracking_of({}, "a job") == Tracking(f"http://somebody:{SECRET}@mlflow:5000", run_key="a job")
