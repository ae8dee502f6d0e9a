"""Component finish: the exit task, runs whatever happened and closes the tracking run."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus


@dsl.component(base_image="pud", install_kfp_package=False)
def finish(tracking: dict, job: str, status: PipelineTaskFinalStatus) -> None:
    """End the MLflow run of this pipeline run as the pipeline ended."""
    from components.tracking import ended_as, tracking_of

    where = tracking_of(tracking, job)
    if where:
        from pud.base.errors import without_userinfo
        from pud.reporting.tracking import LOST, close

        try:
            close(where, ended_as(status.state))
        except LOST as error:
            print(without_userinfo(f"pud: MLflow at {where.uri} is lost, its run stays open: {error}"))
