"""Step release: what may be shipped. The repaired model in the form in which it came, and the cleaned data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pud.artifacts.model import load_model, save_model
from pud.artifacts.timing import timed_folder
from pud.artifacts.verdict import load_verdict
from pud.base.device import prepare_process, resolve_device
from pud.base.errors import without_userinfo
from pud.base.progress import say
from pud.data.readers import open_split
from pud.exchange.cleaned import write_cleaned
from pud.exchange.export import check_formats, export_as, export_weights, model_card
from pud.exchange.models import OURS, load_origin
from pud.reporting.gates import check_name
from pud.reporting.report import HEADERS, scalars_of

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

CARD, AS_IT_CAME = "README.md", "as-it-came"


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
    if tracking:
        check_name(name)
    origin = load_origin(model)
    network, card = load_model(purified, resolve_device(device), architecture=architecture)
    counts = write_cleaned(dataset, detection, cleaned)
    with timed_folder(repaired, "release", "model.json", model, purified, dataset, detection, findings) as folder:
        save_model(folder, network, card)
        if origin and origin.form != OURS:  # in a folder of its own: it may be called model.safetensors too
            export_weights(network, origin, folder / AS_IT_CAME / origin.file)
        for form in formats:
            export_as(form, network, card, folder)
        (folder / CARD).write_text(model_card(card, origin, facts_of(load_verdict(findings))), "utf-8")
    if tracking:
        _register(tracking, repaired, dataset, findings, name, architecture)
    return counts


def facts_of(verdict: dict[str, Any]) -> dict[str, Any]:
    """Return what a model card says of a run: what was found, and how the model was before and after."""
    facts = {"found in its training data": verdict["verdict"], "confidence": verdict["confidence"]}
    for stage, name in (("infected", "as it came"), ("purified", "repaired")):
        if measured := verdict.get("measured", {}).get(stage):
            scalars = {HEADERS[key]: value for key, value in scalars_of(measured).items()}
            attacks = {f"under {one['attack']} (n={one['n']})": one["value"] for one in measured["robust_accuracy"]}
            said = (f"{key} {100 * value:.2f} %" for key, value in {**scalars, **attacks}.items())
            facts[name] = ", ".join(said)
    return {**facts, "command": verdict["command"], "version of PUD": verdict["version"]}


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
