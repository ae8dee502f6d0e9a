"""The gates between a repaired model and its use: what a run must have found and measured for it to be the champion."""

from dataclasses import dataclass
from typing import Annotated, Any

from pud.base.config import Share
from pud.base.errors import InputError
from pud.detectors.contract import CANNOT_BE_JUDGED
from pud.reporting.report import INFECTED, PURIFIED

FORBIDDEN = "/:'\""  # MLflow's own and those that its filters cannot hold
MAXIMUM_NAME = 200  # of characters: MLflow's database holds 256
DIGITS = 6  # of a share: float32, in which accuracies are counted, makes 0.9 a little less


@dataclass(frozen=True)
class GateConfig:
    """What is asked for. 0 of a least and 1 of a largest are no gate; without a least there is no champion."""

    least_given_label_accuracy: Annotated[
        Share, "Of the repaired model on the given labels (of the given model where nothing was repaired)."
    ] = 0.0  # how much is good depends on the data, so there is no default
    least_clean_accuracy: Annotated[Share, "Of the repaired model on the test images."] = 0.0
    largest_accuracy_drop: Annotated[
        Share,
        "From the given to the repaired model, on the test images; without any on the given labels, where as many may "
        "be lost as there are accused images.",
    ] = 0.1
    least_robust_accuracy: Annotated[Share, "Of the repaired model, under the first attack of the report."] = 0.0
    largest_accused_share: Annotated[Share, "Of the training images: where most are accused, a verdict is wrong."] = 0.5
    judged: Annotated[bool, "Whether a verdict that the data cannot be judged closes the gate."] = True

    @property
    def says_how_good(self) -> bool:
        """Whether somebody has said how good a model must be; without that nobody vouches for one."""
        return max(self.least_given_label_accuracy, self.least_clean_accuracy, self.least_robust_accuracy) > 0


def failures(verdict: dict[str, Any], report: dict[str, Any] | None, config: GateConfig) -> list[str]:
    """Return a sentence for each gate that is not met, with its figure and its limit.

    A figure that nobody measured meets no gate.

    Args:
        verdict: content of ``verdict.json``; report: of ``report.json``, None where nothing was repaired.
    """
    given, repaired = ((report or {}).get(stage, {}) for stage in (INFECTED, PURIFIED))
    by_labels = (repaired if report else verdict).get("given_label_accuracy")
    attacked = [record["value"] for record in repaired.get("robust_accuracy", [])[:1]]
    accused, images = verdict.get("accused_images"), verdict.get("images")
    share = accused / images if images and accused is not None else None
    found = [
        _least("accuracy on the given labels", by_labels, config.least_given_label_accuracy),
        _least("clean accuracy", repaired.get("clean_accuracy"), config.least_clean_accuracy),
        _largest(*_drop(given, repaired, share), config.largest_accuracy_drop),
        _least("robust accuracy", attacked[0] if attacked else None, config.least_robust_accuracy),
        _largest("share of accused images", share, config.largest_accused_share),
    ]
    if config.judged and verdict["verdict_code"] == CANNOT_BE_JUDGED:
        left_out = f"{len(verdict.get('unjudged', {}))} classes were left out"
        found.append(f"the verdict: {CANNOT_BE_JUDGED} ({left_out}), and one way or the other is asked for")
    return [sentence for sentence in found if sentence]


def check_name(name: str) -> None:
    """Raise InputError for a name under which no model can be registered, before anything is spent."""
    if not name.strip() or len(name) > MAXIMUM_NAME or not name.isprintable() or set(name) & set(FORBIDDEN):
        raise InputError(
            f"{name[:MAXIMUM_NAME]!r} is no name for a registered model: give 1 to {MAXIMUM_NAME} characters, none of "
            f"{' '.join(FORBIDDEN)}"
        )


def _drop(given: dict[str, Any], repaired: dict[str, Any], accused: float | None) -> tuple[str, float | None]:
    """Return by what, and how much, the repaired model is worse than the given one; None if that is not known.

    A repaired model does not give the labels of accused images: their share is no loss.
    """
    if "clean_accuracy" in given and "clean_accuracy" in repaired:
        return "drop of clean accuracy", given["clean_accuracy"] - repaired["clean_accuracy"]
    key = "given_label_accuracy"
    known = key in given and key in repaired and accused is not None
    return "drop of accuracy on the given labels, beyond the accused images", (
        given[key] - repaired[key] - accused if known else None
    )


def _least(what: str, value: float | None, limit: float) -> str:
    if limit == 0 or (value is not None and round(value, DIGITS) >= limit):  # NaN is not
        return ""
    return f"{what}: {_percent(value)}, at least {_percent(limit)} is asked for"


def _largest(what: str, value: float | None, limit: float) -> str:
    if limit == 1 or (value is not None and round(value, DIGITS) <= limit):
        return ""
    return f"{what}: {_percent(value)}, at most {_percent(limit)} is allowed"


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.6g} %"
