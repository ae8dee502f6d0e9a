"""KFP types of what passes between the steps.

The ground truth and the report (made with it) have types of their own: no defending component has an input of these
types, so the compiler refuses to hand them over.
"""

from kfp import dsl


class GroundTruth(dsl.Artifact):
    """Which images are poisoned, their true labels, triggered test images. Only evaluate takes it."""

    schema_title = "system.PudGroundTruth"
    schema_version = "0.0.1"


class Report(dsl.Artifact):
    """What evaluate measured with the ground truth. Only evaluate takes it."""

    schema_title = "system.PudReport"
    schema_version = "0.0.1"


class Probe(dsl.Artifact):
    """A model's evidence about the training images."""

    schema_title = "system.PudProbe"
    schema_version = "0.0.1"


class Detection(dsl.Artifact):
    """A verdict on every training image."""

    schema_title = "system.PudDetection"
    schema_version = "0.0.1"


class Findings(dsl.Artifact):
    """What was concluded: ``verdict.json``, ``report.html``. Made without a ground truth, unless a rehearsal's."""

    schema_title = "system.PudFindings"
    schema_version = "0.0.1"
