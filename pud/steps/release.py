"""Step release: what may be shipped. The repaired model in the form in which it came, and the cleaned data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pud.artifacts.model import load_model, save_model
from pud.artifacts.timing import timed_folder
from pud.artifacts.verdict import load_verdict
from pud.base.device import prepare_process, resolve_device
from pud.base.errors import InputError, without_userinfo
from pud.base.progress import say
from pud.data.readers import open_split
from pud.exchange.cleaned import write_cleaned
from pud.exchange.export import export_onnx, export_pt2, export_weights, model_card
from pud.exchange.models import load_origin
from pud.reporting.report import scalars_of

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

CARD = "README.md"
FORMATS = {"pt2": export_pt2, "onnx": export_onnx}


def check_formats(formats: Sequence[str]) -> None:
    """Raise InputError for a form in which no model can be written."""
    if unknown := sorted(map(str, set(formats) - FORMATS.keys())):
        raise InputError(f"no model is written as {', '.join(unknown)}: choose from {', '.join(FORMATS)}")


def release_step(
    model: Path,
    purified: Path,
    dataset: Path,
    detection: Path,
    findings: Path,
    *,
    formats: Sequence[str] = (),
    device: str = "auto",
    architecture: str | None = None,
    name: str = "",
    tracking: "Tracking | None" = None,
    repaired: Path,
    cleaned: Path,
) -> dict[str, float]:
    """Write the folders ``repaired`` and ``cleaned``.

    Args:
        model: as it was received, which says in which form it came.
        purified: the last round's.
        detection, findings: the last detection, and what was concluded from it.
        formats: more forms of the model: pt2, onnx.
        architecture: see ``load_model``.
        name: under which MLflow registers the repaired model, as its candidate.
        tracking: where MLflow is; None registers nothing, and so does an MLflow that is lost, which is said.
    """
    prepare_process()
    check_formats(formats)
    origin = load_origin(model)
    network, card = load_model(purified, resolve_device(device), architecture=architecture)
    counts = write_cleaned(dataset, detection, cleaned)
    with timed_folder(repaired, "release", "model.json", model, purified, dataset, detection, findings) as folder:
        save_model(folder, network, card)
        if origin:
            export_weights(network, origin, folder / origin.file)
        for form in formats:
            FORMATS[form](network, card, folder / f"model.{form}")
        (folder / CARD).write_text(model_card(card, origin, load_verdict(findings)), "utf-8")
    if tracking:
        _register(tracking, repaired, dataset, findings, name, architecture)
    return counts


def _register(
    tracking: "Tracking", repaired: Path, dataset: Path, findings: Path, name: str, architecture: str | None
) -> None:
    from pud.reporting.registry import register  # three seconds of imports
    from pud.reporting.tracking import LOST

    said = load_verdict(findings)
    measured = scalars_of(said["measured"]["purified"]) if "measured" in said else {}
    example = open_split(dataset / "train").images[:2]
    try:
        register(
            tracking,
            repaired,
            example=example,
            name=name,
            metrics=measured,
            verdict=said,
            architecture=architecture,
        )
    except LOST as error:
        reason = without_userinfo(error)[:200]
        say(f"MLflow at {without_userinfo(tracking.uri)} is lost: the repaired model is not registered ({reason})")
